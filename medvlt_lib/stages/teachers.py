"""Teachers: who is asked for chains of thought, with what, and what that may cost.

A teacher is the embedded world's own, a model at a server, or a model that the engine loads. Its answers come as rows,
each with the reason why it was rejected, if it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.prompts import target
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.sections import Teacher
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import weights_id
from medvlt_lib.phantom.teacher import write_trace
from medvlt_lib.rollout.budget import prompt_tokens_at_most
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.chat_client import ChatClient
from medvlt_lib.rollout.engine import Engine, Sampling, engine_version, prompts_of
from medvlt_lib.rollout.openai_engine import OpenAIEngine, with_images
from medvlt_lib.rollout.parts import Part, missing

WITHOUT_RESULT = frozenset({"key", "concurrency", "prompt_price", "completion_price", "max_cost"})
OF_THE_RUN_S_MODEL = ("model.name", "model.revision", "model.prompt_style")  # which a teacher has itself
MEASURED = 32  # questions whose prompts are measured for the estimate of the cost
FEW = 64  # questions without one answer, after which a teacher is not asked on
# Why an answer is rejected, in the order in which it is looked for.
REASONS = ("truncated", "refused or empty", "no answer", "wrong", "no thinking", "marks in the thinking")
MARKS = re.compile(r"</?(?:think|answer)>|<\|\w+\|>")  # in a chain of thought they would teach a broken form


# --- settings ---


def kinds_asked(teacher: Teacher) -> tuple[str, ...]:
    return ("text", "image") if teacher.asks == "both" else (teacher.asks,)


def teacher_settings(profile: Profile) -> dict[str, Any]:
    """What decides which answers come, flat: {"distill.teachers.NAME.samples": 3, ...}."""
    settings: dict[str, Any] = {
        "distill.teachers": list(profile.distill.teachers),
        "distill.seed": profile.distill.seed,
    }
    for label, teacher in profile.distill.teachers.items():
        own = {key: value for key, value in teacher.model_dump().items() if key not in WITHOUT_RESULT}
        settings |= {f"distill.teachers.{label}.{key}": value for key, value in own.items()}
        if teacher.loaded_by_engine():
            shared = profile.identity("model", "engine")
            settings |= {key: value for key, value in shared.items() if key not in OF_THE_RUN_S_MODEL}
            settings[f"distill.teachers.{label}.weights"] = _weights(profile, label)
    return settings


def provenance(profile: Profile, label: str) -> dict[str, Any]:
    """What every row of a teacher's answers says of how it was made."""
    teacher = profile.distill.teachers[label]
    if teacher.loaded_by_engine():
        by = {"weights": _weights(profile, label), "engine": engine_version(profile)}
    else:
        by = {"weights": teacher.name, "engine": teacher.url or "phantom"}
    sampling = {"temperature": teacher.temperature, "max_new_tokens": teacher.max_new_tokens}
    return {**by, "prompt": teacher.prompt, **sampling, "seed": profile.distill.seed, "grader": teacher.grader}


def _weights(profile: Profile, label: str) -> str:
    name = profile.distill.teachers[label].name
    try:
        return weights_id(profile.with_model(name))
    except UserError as error:
        raise UserError(f"distill.teachers.{label}: {error} If a server has it, give its url.") from None


# --- engines and cost ---


def teacher_engine(profile: Profile, label: str) -> Engine | None:
    """The engine that answers for a teacher; None for that of the embedded world, which needs none."""
    teacher = profile.distill.teachers[label]
    if teacher.url is not None:
        return OpenAIEngine(_client(label, teacher), teacher.concurrency)
    return build_engine(profile.with_model(teacher.name)) if teacher.loaded_by_engine() else None


def _client(label: str, teacher: Teacher) -> ChatClient:
    assert teacher.url is not None
    prices, cap = (teacher.prompt_price, teacher.completion_price), f"distill.teachers.{label}.max_cost"
    return ChatClient(
        teacher.url, teacher.name, prices=prices, max_cost=teacher.max_cost, cap_setting=cap, key=teacher.key
    )


def cost_ahead(label: str, kind: str, teacher: Teacher, parts: list[Part]) -> str:
    """What the missing parts of one set may cost at most, and what the cap allows, in words.

    The tokens of prompts are counted from above on the first questions; answers count as long as they may be.
    """
    to_do = missing(parts)
    questions = sum(part.stop - part.start for part in to_do)
    prompts = prompts_of(to_do[0].questions()[:MEASURED], teacher.prompt)
    measured = [prompt_tokens_at_most(with_images(prompt)) for prompt in prompts]
    asked, answered = teacher.samples * sum(measured) / len(measured), teacher.samples * teacher.max_new_tokens
    head = f"teacher {label}: {teacher.samples} answers to each of {questions:,} {kind} questions are missing; "
    if not max(teacher.prompt_price, teacher.completion_price):
        tokens = f"at most {asked * questions:,.0f} tokens of prompts and {answered * questions:,} of answers"
        return f"{head}{tokens}, whose price is not known (prompt_price and completion_price tell it)."
    budget = _client(label, teacher).budget
    each = budget.cost(asked, answered)
    most = f"{head}they cost up to about {each * questions:,.2f} dollars, and nothing where they are in the cache; "
    if budget.cap is None:
        return f"{most}there is no cap ({budget.setting})."
    left = max(0.0, budget.cap - budget.spent())
    enough = f"which are enough for at least {min(questions, int(left / each)):,} of them"
    return f"{most}{budget.setting} = {budget.cap} leaves {left:,.2f} dollars, {enough}."


# --- answers ---


def answer_rows(engine: Engine | None, questions: list[Question], profile: Profile, label: str) -> Iterator[dict]:
    """Rows of a teacher's answers. Raises UserError where none of so many questions gets any answer."""
    teacher, by_id = profile.distill.teachers[label], {q.id: q for q in questions}
    answered = False
    for completion in _answers(engine, questions, teacher, profile.distill.seed):
        thinking, rejected = judge(completion, by_id[completion.question_id], teacher)
        answered = answered or rejected != "refused or empty"
        yield {
            "id": completion.question_id,
            "sample": completion.sample,
            "rejected": rejected,
            "thinking": thinking,
            "text": completion.text,
        }
    if not answered and len(questions) >= FEW:
        raise UserError(
            f"distill.teachers.{label}: {teacher.name} refused, or answered with nothing, all {len(questions)} "
            "questions of a part; choose another model or prompt, or ask again with another distill.seed."
        )


def _answers(engine: Engine | None, questions: list[Question], teacher: Teacher, seed: int) -> Iterable[Completion]:
    if engine is not None:
        sampling = Sampling(teacher.samples, teacher.temperature, teacher.max_new_tokens, seed)
        yield from engine.generate(prompts_of(questions, teacher.prompt), sampling)
        return
    style = teacher.name.removeprefix("phantom:")
    for question in questions:
        text = target(write_trace(question, style), question.answer_label)
        yield Completion(question.id, 0, text, [], None, "stop")


def judge(completion: Completion, question: Question, teacher: Teacher) -> tuple[str | None, str | None]:
    """(thinking, why it is rejected) of one answer: the thinking is None where it was rejected, the reason where not.

    Right is what the grader counts during inference, where it has such a rule, as in filtering.
    """
    text = completion.text
    verdict = grade(text, question, teacher.grader, finish_reason=completion.finish_reason)
    thinking = thinking_of(text)
    found = {
        "truncated": verdict.truncated,
        "refused or empty": not text.strip(),
        "no answer": verdict.letter is None,
        "wrong": not (verdict.correct if verdict.online is None else verdict.online),
        "no thinking": not thinking,
        "marks in the thinking": bool(MARKS.search(thinking)),
    }
    rejected = next((reason for reason in REASONS if found[reason]), None)
    return (None, rejected) if rejected else (thinking, None)


def thinking_of(text: str) -> str:
    """The first closed block of thinking, "" without one; its opening mark may be missing, where a chat template wrote
    it before the answer began."""
    before, closed, _ = text.partition("</think>")
    return before.strip().removeprefix("<think>").strip() if closed else ""
