"""What a stated step claims: something seen, a rule, a sum, or the choice of an option, and whether each holds.

`age 71 1, total 1` claims three things: that the vignette says so (perception), that it counts one point (rule), and
that the total is 1 (arithmetic). A picture's count or length is perception, a ratio of two of them arithmetic, and that
the picture's right is the patient's left a rule. Rules and sums are taken as they follow from what was stated before,
so a wrong sight does not make the right sum after it a wrong one. Sentences are in the teacher's own wording. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from medvlt_lib.phantom.image_families import BleedType, CardiothoracicRatio, CupToDiscRatio, ImageFamily
from medvlt_lib.phantom.plain import PART
from medvlt_lib.phantom.teacher import said_again
from medvlt_lib.phantom.text_family import TextFamily
from medvlt_lib.phantom.text_formulas import Formula, calculate
from medvlt_lib.phantom.text_scores import Score

Kind = Literal["perception", "rule", "arithmetic", "conclusion"]

NOT_ADDING_UP = re.compile(r"-?\d{1,9} \+ (-?\d{1,9}) is (-?\d{1,9}) with (.+), total")  # see as_own in teacher.py
CALCULATION = re.compile(r"(-?\d{1,9}) ([-+/*]) (-?\d{1,9}) = (-?\d{1,9})")
MIRROR = {"left": "right", "right": "left", "middle": "middle"}  # the picture's side: the patient's
LOBES = {"top": "frontal", "middle": "temporal", "bottom": "occipital"}


class Claim(NamedTuple):
    """One thing that a sentence claims. `follows`: it does not contradict what was stated before."""

    kind: Kind
    true: bool
    follows: bool = True


class Reader:
    """Reads the steps of one answer in their order. `value`: the option text that they lead to so far."""

    def __init__(self, rules: TextFamily | ImageFamily, facts: dict[str, Any], options: dict[str, str]) -> None:
        self.value: str | None = None
        self._rules, self._facts, self._options = rules, facts, options
        self._said: dict[Any, Any] = {}
        parts = [PART.fullmatch(step.lower()) for step in rules.steps(facts)]
        self._parts = {part[1]: int(part[2]) for part in parts if part}
        self._told: dict[str, int] = {}  # parts of a sum and their points, as stated
        self._total = 0

    def step(self, sentence: str) -> list[Claim]:
        """What a sentence of the working claims; nothing where it is not understood."""
        if self._parts:
            return self._part_of_sum(sentence)
        if isinstance(self._rules, Formula):
            return self._calculation(self._rules, sentence)
        if isinstance(self._rules, ImageFamily):
            claims = PICTURES[self._rules.scene.name](sentence, self._facts, self._said)
            self.value = self._said.get(self._rules.name, self.value)
            return claims
        return []

    def look(self, letter: str, text: str, fits: bool) -> list[Claim]:
        """A look at an option claims that it reads so and is, or is not, the value that was found; where none was, the
        true one."""
        value = self._rules.text(self._rules.rule(self._facts)) if self.value is None else self.value
        holds = self._options.get(letter) == text and (text == value) == fits
        return [Claim("conclusion", holds, holds)]

    def other(self, sentence: str) -> list[Claim]:
        """A sentence that is no step claims nothing; one that names the value without working is remembered."""
        if self.value is None and sentence.startswith("at a glance "):
            self.value = sentence.removeprefix("at a glance ")
        return []

    def _part_of_sum(self, sentence: str) -> list[Claim]:
        """`confused 1, total 3`; `total 3`; `in total 1 + 2 is 3`."""
        adds_up = True
        if again := said_again(sentence):
            points, total = again
            holds = total == sum(points) and sorted(points) == sorted(self._told.values())
            self.value = str(total)
            return [Claim("arithmetic", holds, holds)]
        if (named := _number("total #", sentence)) is not None:
            self.value = str(named)
            return [Claim("arithmetic", named == self._total, named == self._total)]
        if broken := NOT_ADDING_UP.fullmatch(sentence):
            name, own, total, adds_up = broken[3], int(broken[1]), int(broken[2]), False
        elif part := PART.fullmatch(sentence):
            name, own, total = part[1], int(part[2]), int(part[3])
        else:
            return []
        more = 0 if name in self._told else own
        adds_up = adds_up and total in (self._total + more, sum(self._told.values()) + more)
        self._told.setdefault(name, own)
        self._total, self.value = total, str(total)
        if not isinstance(self._rules, Score):  # a count in a part of the picture
            return [Claim("perception", self._parts.get(name) == own), Claim("arithmetic", adds_up, adds_up)]
        due = self._rules.points(name)
        rule = [] if due is None else [Claim("rule", own == due)]
        return [Claim("perception", name in self._parts), *rule, Claim("arithmetic", adds_up, adds_up)]

    def _calculation(self, rules: Formula, sentence: str) -> list[Claim]:
        """`140 - 100 = 40`; `a tenth of 110 is 11`; `index 0.7`."""
        if (index := re.fullmatch(r"index (\d{1,9}(?:\.\d{1,9})?)", sentence)) and rules.name == "shock_index":
            self.value = index[1]
            holds = float(index[1]) == self._said.get("index", rules.rule(self._facts)) / 10
            return [Claim("arithmetic", holds, holds)]
        if tenth := re.fullmatch(r"a tenth of (-?\d{1,9}) is (-?\d{1,9})", sentence):
            a, sign, b, c = int(tenth[1]), "/", 10, int(tenth[2])
        elif found := CALCULATION.fullmatch(sentence):
            a, sign, b, c = int(found[1]), found[2], int(found[3]), int(found[4])
        else:
            return []
        results = zip(rules.calculations, rules.worked(self._facts), strict=True)
        true = {**self._facts, **{own[0]: row[3] for own, row in results}}
        known = {v for _, left, _, right in rules.calculations for v in (left, right) if isinstance(v, str)}
        numbers = {true[v] for v in known} | {self._said[v] for v in known if v in self._said}

        def fits(value: str | int, number: int) -> bool:
            return number in ((true[value], self._said.get(value)) if isinstance(value, str) else (value,))

        def likeness(own: tuple) -> tuple[int, bool]:
            return fits(own[1], a) + (own[2] == sign) + fits(own[3], b), own[0] not in self._said

        name, left, due, right = max(rules.calculations, key=likeness)
        seen, rule, right_sum = True, sign == due, c in _results(a, sign, b)
        follows = right_sum
        for value, number in ((left, a), (right, b)):
            if fits(value, number):
                follows = follows and self._said.get(value, number) == number
            elif isinstance(value, int) or number in numbers:  # a known number in a place where it is not due
                rule = False
            elif value in self._facts:
                seen = False
            else:
                right_sum = follows = False
        self._said[name] = c
        if name == rules.calculations[-1][0]:
            self.value = rules.text(c)
        sight = [Claim("perception", seen)] if left in self._facts or right in self._facts else []
        return [*sight, Claim("rule", rule), Claim("arithmetic", right_sum, follows)]


def _results(a: int, sign: str, b: int) -> set[int]:
    """What a sign may give of two numbers; a quotient may be rounded down or to the nearest."""
    if sign == "*":
        return {a * b}
    if sign == "/":
        return {calculate(a, sign, b), round(a / b)} if b else set()
    return {calculate(a, sign, b)}


def _number(pattern: str, sentence: str) -> int | None:
    """The whole number at the # of a pattern; None where a sentence has another form."""
    found = re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d{1,9})"), sentence)
    return int(found[1]) if found else None


def _measured(sentence: str, true: dict[str, int], said: dict[str, Any]) -> list[Claim]:
    """A length or a count that is read off the picture. `true`: by the sentence's pattern."""
    for pattern, number in true.items():
        if (stated := _number(pattern, sentence)) is not None:
            said[pattern] = stated
            return [Claim("perception", stated == number)]
    return []


def _share(number: int, part: int, whole: int, scale: int, values: tuple) -> list[Claim]:
    """A ratio of two lengths: the nearest of the values that this question has."""
    off = {value: abs(scale * part - value * whole) for value in values}
    holds = whole > 0 and off.get(number) == min(off.values())
    return [Claim("arithmetic", holds, holds)]


def _chest(sentence: str, facts: dict[str, Any], said: dict[str, Any]) -> list[Claim]:
    right, chest = sum(x < 0 for x, _, _ in facts["nodules"]), facts["chest_cm"]
    true = {
        "chest # cm": chest, "heart # cm": round(chest * facts["cardiothoracic_ratio"] / 100),
        "right lung #": right, "left lung #": len(facts["nodules"]) - right,
    }  # fmt: skip
    if claims := _measured(sentence, true, said):
        return claims
    chest, heart, right, left = (said.get(pattern, number) for pattern, number in true.items())
    if (ratio := _number("ratio #%", sentence)) is not None:
        said["cardiothoracic_ratio"] = f"{ratio}%"
        return _share(ratio, heart, chest, 100, CardiothoracicRatio().values)
    if (total := _number("total #", sentence)) is not None:
        said["nodule_count"] = str(total)
        return [Claim("arithmetic", total == right + left, total == right + left)]
    return []


def _head(sentence: str, facts: dict[str, Any], said: dict[str, Any]) -> list[Claim]:
    amount, _, side = facts["midline_shift"].partition(" mm ")
    picture = MIRROR[side or "middle"]
    if found := re.fullmatch(r"septum (?:in the (middle)|.*\bpicture (left|right))", sentence):
        said["picture"] = found[1] or found[2]
        return [Claim("perception", said["picture"] == picture)]
    if found := re.fullmatch(r"shift (?:(none)|(\d{1,9}) mm (left|right))", sentence):
        said["midline_shift"] = sentence.removeprefix("shift ")
        if "patient" not in said and "picture" not in said:  # where it lies is read off the picture at once
            return [Claim("perception", said["midline_shift"] == facts["midline_shift"])]
        same = (found[3] or "middle") == (said.get("patient") or MIRROR[said["picture"]])
        return [Claim("perception", (found[1] or found[2]) == amount), Claim("rule", same, same)]
    signs = BleedType.SIGNS
    if sentence in signs.values():
        said["sign"] = sentence
        return [Claim("perception", sentence == signs[facts["bleed_type"]])]
    if sentence.startswith("bleed "):
        said["bleed_type"] = sentence.removeprefix("bleed ")
        return [Claim("rule", signs.get(said["bleed_type"]) == said.get("sign", signs[facts["bleed_type"]]))]
    return _patient(sentence, picture, said)


def _brain(sentence: str, facts: dict[str, Any], said: dict[str, Any]) -> list[Claim]:
    side, lobe = facts["lesion_site"].split()
    height = next(height for height, own in LOBES.items() if own == lobe)
    if found := re.fullmatch(r"bright spot on picture (left|right), (top|middle|bottom)", sentence):
        said["picture"], said["height"] = found[1], found[2]
        return [Claim("perception", (found[1], found[2]) == (MIRROR[side], height))]
    if found := re.fullmatch(r"site (left|right) (frontal|temporal|occipital)", sentence):
        said["lesion_site"] = sentence.removeprefix("site ")
        if "patient" not in said and "picture" not in said:
            return [Claim("perception", said["lesion_site"] == facts["lesion_site"])]
        same = found[1] == (said.get("patient") or MIRROR[said["picture"]])
        return [Claim("rule", same and found[2] == LOBES[said.get("height", height)], same)]
    if found := re.fullmatch(r"bright spot (frontal|temporal|occipital)", sentence):
        return [Claim("perception", found[1] == lobe)]
    if (diameter := _number("diameter # mm", sentence)) is not None:
        said["lesion_size"] = f"{diameter} mm"
        return [Claim("perception", diameter == facts["lesion_size"])]
    return _patient(sentence, MIRROR[side], said)


def _patient(sentence: str, picture: str, said: dict[str, Any]) -> list[Claim]:
    """`patient left`: the other side than in the picture. `picture`: the side on which it truly is there."""
    if not (found := re.fullmatch(r"patient (left|right)", sentence)):
        return []
    said["patient"] = found[1]
    return [Claim("rule", found[1] == MIRROR[said.get("picture", picture)])]


def _fundus(sentence: str, facts: dict[str, Any], said: dict[str, Any]) -> list[Claim]:
    true = {"disc #": facts["disc"], "cup #": round(facts["disc"] * facts["cup_to_disc_ratio"] / 10)}
    if claims := _measured(sentence, true, said):
        return claims
    if (tenths := _number("ratio 0.#", sentence)) is None:
        return []
    said["cup_to_disc_ratio"] = f"0.{tenths}"
    disc, cup = (said.get(pattern, number) for pattern, number in true.items())
    return _share(tenths, cup, disc, 10, CupToDiscRatio().values)


PICTURES: dict[str, Callable[[str, dict[str, Any], dict[str, Any]], list[Claim]]] = {
    "chest_film": _chest, "head_ct": _head, "brain_mri": _brain, "fundus": _fundus,
}  # fmt: skip
