"""One answer's steps in a few words: is a working stated, is it true by kind, does the answer follow, what went wrong.

The judging itself is in phantom/rationale.py and phantom/step_kinds.py. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medvlt_lib.phantom.questions import FAMILIES
from medvlt_lib.phantom.rationale import Judgement, judge
from medvlt_lib.phantom.step_kinds import Claim

FIRST_ERRORS = {
    "perception": "saw it wrong",
    "rule": "wrong rule",
    "arithmetic": "wrong sum",
    "conclusion": "wrong letter",
    "form": "no gradable answer",
    "glance": "wrong without a working",
}


@dataclass(frozen=True)
class TrueSteps:
    """What an answer states. None: it states nothing of the kind.

    `works`: a working is stated. `perception`, `rule`, `arithmetic`: all steps of that kind are true, rules and sums as
    they follow from what was stated before. `conclusion`: the options are read rightly and the letter is that of the
    value that was found. `all_true`: every step of the working is true. `follows`: the sums are right as stated and the
    letter is that of what they lead to, whether or not the steps are true. `first_error`: a key of FIRST_ERRORS.
    """

    works: bool
    perception: bool | None
    rule: bool | None
    arithmetic: bool | None
    conclusion: bool | None
    all_true: bool | None
    follows: bool | None
    first_error: str | None


def true_steps(
    text: str, letter: str | None, formed: bool, family: str, facts: dict[str, Any], options: dict[str, str]
) -> TrueSteps:
    """The record of one answer. `letter` and `formed`: what a grader read and whether the answer has the asked form."""
    judgement, rules = judge(text.partition("<answer>")[0], family, facts, options), FAMILIES[family]
    chosen = options.get(letter) if letter else None
    claims = _claims(judgement, "working") if judgement.works else []

    def all_of(kind: str) -> bool | None:
        own = [claim.true for claim in claims if claim.kind == kind]
        return all(own) if own else None

    follows = None
    if judgement.works and letter:
        follows = chosen is not None and chosen == judgement.value and all(claim.follows for claim in claims)
    return TrueSteps(
        works=judgement.works,
        perception=all_of("perception"),
        rule=all_of("rule"),
        arithmetic=all_of("arithmetic"),
        conclusion=_concludes(judgement, letter, chosen),
        all_true=all(claim.true for claim in claims) if judgement.works else None,
        follows=follows,
        first_error=_first_error(judgement, rules.text(rules.rule(facts)), letter, chosen, formed),
    )


def _claims(judgement: Judgement, kind: str) -> list[Claim]:
    return [claim for step in judgement.steps if step.kind == kind for claim in step.claims]


def _concludes(judgement: Judgement, letter: str | None, chosen: str | None) -> bool | None:
    """Whether the options are read rightly and the letter fits the value; None without a letter or a value."""
    if not all(claim.true for claim in _claims(judgement, "option")):
        return False
    return chosen == judgement.value if letter and judgement.value is not None else None


def _first_error(judgement: Judgement, answer: str, letter: str | None, chosen: str | None, formed: bool) -> str | None:
    """Where an answer first went wrong. A working without a false step that leads to a false value left a part out,
    which the rule asks for."""
    if judgement.works and (false := [claim.kind for claim in _claims(judgement, "working") if not claim.true]):
        return false[0]
    if letter is None and all(step.kind != "option" for step in judgement.steps):
        return "form"  # it broke off before it was done
    if judgement.value not in (None, answer):
        return "rule" if judgement.works else "glance"
    if _concludes(judgement, letter, chosen) is False:
        return "conclusion"
    if letter is None or not formed:
        return "form"
    if chosen != answer:  # no value was named
        return "conclusion" if judgement.works else "glance"
    return None
