"""`medvlt ask`: one question, with or without a picture and options, to several arms of a run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.prompts import question_text
from medvlt_lib.core.records import LETTERS
from medvlt_lib.core.runs import Run
from medvlt_lib.data.pictures import fit_image, image_bytes
from medvlt_lib.data.rows import Refused
from medvlt_lib.grading.grade import grade_response
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.engine import Prompt, Sampling
from medvlt_lib.stages.answer_view import parted
from medvlt_lib.stages.evaluate import finished_arms
from medvlt_lib.stages.evaluate_any import arm_of

OPTION = re.compile(r"([A-J])\s*=\s*(.+)", re.DOTALL)


@dataclass(frozen=True)
class Said:
    """An arm's answer in two parts, without the marks around them, and the letter that the grader reads in it."""

    arm: str
    thinking: str
    answer: str
    letter: str | None
    cut: bool


def options_of_words(words: list[str]) -> dict[str, str]:
    """{"A": "left", ...} of words such as A=left. Raises UserError for other words, and for letters out of order."""
    options: dict[str, str] = {}
    for word in words:
        found = OPTION.fullmatch(word.strip())
        if not found or found[1] in options:
            raise UserError(f"the option {word!r} is not a new letter and a text; write A=left B=right.")
        options[found[1]] = found[2].strip()
    if list(options) != list(LETTERS[: len(options)]) or len(options) == 1:
        raise UserError(
            f"the options are lettered {', '.join(options)}; give at least two, lettered A, B, C ... in order."
        )
    return options


def ask(run_: Run, question: str, picture: Path | None, options: dict[str, str], arms: list[str]) -> Iterator[Said]:
    """The answers of `arms` (none named: the base and every finished arm), one after the other.

    Raises UserError, before any model is loaded, for a picture that cannot be read, an empty question, or an arm that
    was not trained.
    """
    if not question.strip():
        raise UserError("the question is empty; write it in quotes.")
    try:
        pictures = [] if picture is None else [fit_image(image_bytes(str(picture), Path()), None).pixels]
    except Refused as error:
        raise UserError(f"{error.why}; give a picture file, such as PNG or JPEG.") from None
    candidates = [arm_of(run_, arm) for arm in dict.fromkeys(arms) or finished_arms(run_)]
    style = run_.profile.model.prompt_style
    parts = [*({"type": "image"} for _ in pictures), {"type": "text", "text": question_text(question, options, style)}]
    name = hashlib.sha256(repr((question, options)).encode()).hexdigest()[:12]
    prompt = Prompt(f"ask-{name}", [{"role": "user", "content": parts}], list(pictures))
    for who in candidates:
        e = who.profile.eval
        engine = build_engine(who.profile, who.checkpoint)
        [done] = engine.generate([prompt], Sampling(1, e.temperature, e.max_new_tokens, e.seed))
        thinking, answer = parted(done.text)
        letter = letter_of(done.text, options, who.profile, done.finish_reason)
        yield Said(who.name, thinking, answer, letter, done.finish_reason == "length")


def letter_of(text: str, options: dict[str, str], profile: Profile, finish_reason: str) -> str | None:
    """The option that a response names, by the profile's grader; None without one."""
    if not options:
        return None
    style, grader = profile.model.prompt_style, profile.eval.grader
    return grade_response(text, options, "A", grader, style, finish_reason).letter
