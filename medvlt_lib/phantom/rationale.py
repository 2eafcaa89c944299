"""Whether the steps that an answer states are true, in the phantom teacher's own wording or its foreign one.

A rationale is cut into sentences. Each is a step of the working, a look at an option ("B. 4 yes"), or neither ("at a
glance 4"). What is true comes from the question's facts through the family's own `steps` and `rule`, never from the
teacher's trace, which noise may have changed. The parts of a sum may come in any order: each needs its points, and the
total of what was stated so far. A sentence in the foreign wording (phantom/teacher.py) is read as the step of the own
wording that it renders. Other wordings are not read: a sentence that begins like a step and is none of the
true ones is false. No torch here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question
from medvlt_lib.grading import rewards
from medvlt_lib.phantom.plain import PART
from medvlt_lib.phantom.questions import FAMILIES
from medvlt_lib.phantom.step_kinds import NOT_ADDING_UP, Claim, Reader
from medvlt_lib.phantom.teacher import as_own, said_again

SENTENCE_END = re.compile(r"(?<!\b[A-J])\.(?:\s+|$)|\n")  # the full stop of "B. 4 yes" ends nothing
LOOK = re.compile(r"([A-J])\. (.+) (yes|no)")
OPENINGS = (
    "a tenth of", "bleed", "bright", "chest", "cup", "diameter", "disc", "heart", "index", "left lung", "no bright",
    "patient", "ratio", "right lung", "septum", "shift", "site", "total",
)  # fmt: skip
NAMES_VALUE = re.compile(r"(?:bleed|diameter|index|ratio|shift|site|total)\b.*")  # a step that tells what was found
STEP = re.compile(rf"(?:not )?(?:{'|'.join(OPENINGS)})\b.*|.+, total\b.*|.+ = .*")

NO_FACTS = (
    "use it on phantom questions that this version made (--redo 01 makes them again), or set grpo.reward=published"
)


@dataclass(frozen=True)
class Step:
    """One sentence of a rationale. `repeated`: it was judged before, and saying it again counts for nothing.

    `claims` are all true where the sentence is. A false sentence may have none that is false, where it only goes on
    rightly from a false one before it.
    """

    text: str
    kind: Literal["working", "option", "other"]
    verdict: Literal["true", "false", "repeated", "no step"]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """`steps` in their order, the true steps that are `missing`, the `letter` truly named as the one that fits, and the
    option text (`value`) that the steps, true or false, lead to."""

    steps: list[Step]
    missing: list[str]
    letter: str | None
    value: str | None = None

    @property
    def grounded(self) -> bool:
        """Every step that the answer rests on is stated, the right letter is named, and nothing false is said."""
        return not self.missing and self.letter is not None and all(step.verdict != "false" for step in self.steps)

    @property
    def works(self) -> bool:
        """Whether a working is stated: a step, true or false, that does more than name the value."""
        return any(s.kind == "working" and not NAMES_VALUE.fullmatch(as_own(s.text).lower()) for s in self.steps)


def judge(rationale: str, family: str, facts: dict[str, Any], options: dict[str, str]) -> Judgement:
    """Judge every sentence of a rationale by the facts of its question, a family of this world."""
    # Step 1: what is true, in the family's own words.
    rules = FAMILIES[family]
    answer, working = rules.text(rules.rule(facts)), [step.lower() for step in rules.steps(facts)]
    sum_ = _Sum({part[1]: int(part[2]) for step in working if (part := PART.fullmatch(step))})
    statements = [step for step in working if not PART.fullmatch(step)]
    # Step 2: each sentence against it.
    steps: dict[str, Step] = {}
    said: set[str] = set()
    judged, letter, reader = [], None, Reader(rules, facts, options)
    for sentence in _sentences(rationale):
        if before := steps.get(sentence):
            again = before.verdict if before.verdict == "no step" else "repeated"
            judged.append(Step(sentence, before.kind, again))
            continue
        own = as_own(sentence)
        said.add(own.lower())
        if look := LOOK.fullmatch(own):
            kind, verdict = "option", _judge_look(look, options, answer)
            letter = look[1] if look[3] == "yes" and verdict == "true" else letter
            claims = reader.look(look[1], look[2], look[3] == "yes")
        elif STEP.fullmatch(own.lower()) or said_again(sentence.lower()):
            kind, verdict = "working", _judge_step(own.lower(), sum_, statements)
            claims = reader.step(own.lower()) or [Claim("perception", False)]  # it tells of what is not there
        else:
            kind, verdict = "other", "no step"
            claims = reader.other(own)
        if verdict in ("true", "repeated"):
            claims = [claim._replace(true=True) for claim in claims]
        steps[sentence] = Step(sentence, kind, verdict, tuple(claims))
        judged.append(steps[sentence])
    # Step 3: what the answer rests on and was not said.
    missing = [f"{name} {points}" for name, points in sum_.points.items() if name not in sum_.stated]
    return Judgement(judged, missing + [step for step in statements if step not in said], letter, reader.value)


def grounded(
    completions: Sequence[str | list[dict]],
    answer_label: Sequence[str],
    answer: Sequence[str],
    options: Sequence[str],
    family: Sequence[str],
    facts: Sequence[str | None],
    **_: Any,
) -> list[float]:
    """1 where the published reward is 1 and the steps are true and lead to the answer, else 0.

    `options` and `facts` are JSON texts. A wrong label is never paid for, since the facts contradict it.
    """
    if not all(facts):
        raise UserError(f"the reward grounded checks steps against facts, and there are none; {NO_FACTS}.")
    values = rewards.published(completions, answer_label, answer)
    for place, value in enumerate(values):
        if value:
            said = rewards.text_of(completions[place]).partition("<answer>")[0]
            judgement = judge(said, family[place], json.loads(facts[place]), json.loads(options[place]))
            values[place] = float(judgement.grounded and judgement.letter == answer_label[place])
    return values


def has_facts(question: Question) -> bool:
    """Whether the steps of an answer to this question can be checked."""
    return question.family in FAMILIES and bool(question.extra.get("facts"))


@dataclass
class _Sum:
    """A sum of points while it is being stated. `points`: the true parts, in the vignette's order."""

    points: dict[str, int]
    told: set[str] = field(default_factory=set)  # parts of which something was said, true or false
    stated: set[str] = field(default_factory=set)  # parts that were stated truly
    places: int = 0
    slipped: bool = False

    def judge(self, name: str, points: int, total: int) -> Literal["true", "false", "repeated"]:
        """Whether a part, its points and the total so far are true."""
        self.places += 1
        self.told |= self._meant(name)
        if self.points.get(name) != points or total not in self._totals(name):
            self.slipped = True
            return "false"
        verdict = "repeated" if name in self.stated else "true"
        self.stated.add(name)
        return verdict

    def judge_again(self, points: list[int], total: int) -> Literal["repeated", "false"]:
        """A sum that is said once more is false unless it holds the true parts' points and their total."""
        true = sorted(points) == sorted(self.points.values()) and total == sum(points)
        return "repeated" if true else "false"

    def _meant(self, name: str) -> set[str]:
        """The part that a statement is about: "urea 9" is about "urea 8", an invention about none."""
        alike = {part for part in self.points if part.split()[0] == name.split()[0]}
        return {name} if name in self.points else alike if len(alike) == 1 else set()

    def _totals(self, name: str) -> set[int]:
        """The true points of all that was told so far. A false part may stand in the place of a true one: after one,
        the vignette's own total at this place is true as well."""
        totals = {sum(self.points[part] for part in self.told)}
        parts = list(self.points)
        if self.slipped and parts.index(name) == self.places - 1:
            totals.add(sum(self.points[part] for part in parts[: self.places]))
        return totals


def _judge_step(step: str, sum_: _Sum, statements: list[str]) -> Literal["true", "false", "repeated"]:
    """Whether a part of a sum, a sum that is said again, or a statement is true."""
    if broken := NOT_ADDING_UP.fullmatch(step):
        sum_.judge(broken[3], int(broken[1]), int(broken[2]))  # what comes after it is judged with it
        return "false"
    if part := PART.fullmatch(step):
        return sum_.judge(part[1], int(part[2]), int(part[3]))
    if again := said_again(step):
        return sum_.judge_again(*again)
    return "true" if step in statements else "false"


def _judge_look(look: re.Match, options: dict[str, str], answer: str) -> Literal["true", "false"]:
    """Whether an option reads so and is the answer, or not: "B. 4 no" is true where B is 4 and the answer is not."""
    letter, text, word = look.groups()
    return "true" if options.get(letter) == text and (text == answer) == (word == "yes") else "false"


def _sentences(rationale: str) -> Iterator[str]:
    """The sentences without their full stops, tags or spare spaces."""
    for piece in SENTENCE_END.split(re.sub(r"</?think>", "\n", rationale)):
        if sentence := " ".join(piece.split()):
            yield sentence
