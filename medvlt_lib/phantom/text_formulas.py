"""Clinical formulas: the answer is calculated from measured values."""

from __future__ import annotations

from random import Random

from medvlt_lib.phantom.text_family import Facts, TextFamily, draw_person

Value = str | int  # a fact or an earlier result by its name, or a constant


class Formula(TextFamily):
    """Calculations, one after the other. Each is the name of its result, a value, + - or /, and a value."""

    calculations: tuple[tuple[str, Value, str, Value], ...]

    def worked(self, f: Facts) -> list[tuple[int, str, int, int]]:
        """The calculations in numbers: value, sign, value, result."""
        known, found = dict(f), []
        for name, left, sign, right in self.calculations:
            a, b = (known[v] if isinstance(v, str) else v for v in (left, right))
            known[name] = calculate(a, sign, b)
            found.append((a, sign, b, known[name]))
        return found

    def steps(self, f: Facts) -> list[str]:
        return [f"{a} {sign} {b} = {c}" for a, sign, b, c in self.worked(f)]


def calculate(a: int, sign: str, b: int) -> int:
    """a + b, a - b, or a / b rounded down."""
    return a + b if sign == "+" else a - b if sign == "-" else a // b


class AnionGap(Formula):
    name = "anion_gap"
    reference = "Kraut JA, Madias NE. Clin J Am Soc Nephrol 2007;2:162-174"
    values = tuple(range(4, 32, 2))
    calculations = (("rest", "sodium", "-", "chloride"), ("gap", "rest", "-", "bicarbonate"))

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        step = (10, 5, 1)[level - 1]
        bicarbonate, chloride = rng.randrange(10, 31, step), rng.randrange(90, 116, step)
        return {
            **draw_person(rng),
            "sodium": aim + chloride + bicarbonate,
            "chloride": chloride,
            "bicarbonate": bicarbonate,
        }

    def rule(self, f: Facts) -> int:
        gap = f["sodium"] - f["chloride"] - f["bicarbonate"]
        return gap if 118 <= f["sodium"] <= 158 else -1  # no such patient: drawn again

    def stem(self, f: Facts) -> str:
        values = f"sodium {f['sodium']}, chloride {f['chloride']}, bicarbonate {f['bicarbonate']} mmol/L"
        return f"{self.person(f)}, unwell: {values}. Anion gap?"


class MeanArterialPressure(Formula):
    name = "mean_arterial_pressure"
    reference = "DeMers D, Wachs D. Physiology, Mean Arterial Pressure. StatPearls 2023: diastolic + pulse pressure / 3"
    values = tuple(range(60, 125, 5))
    calculations = (
        ("pulse", "systolic", "-", "diastolic"), ("third", "pulse", "/", 3), ("mean", "diastolic", "+", "third"),
    )  # fmt: skip

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        third = rng.randrange(10, 21, (10, 5, 1)[level - 1])
        return {**draw_person(rng), "systolic": aim + 2 * third, "diastolic": aim - third}

    def rule(self, f: Facts) -> int:
        pulse = f["systolic"] - f["diastolic"]
        return f["diastolic"] + pulse // 3 if f["diastolic"] >= 35 and f["systolic"] <= 190 else -1

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)}, blood pressure {f['systolic']}/{f['diastolic']} mmHg. Mean arterial pressure?"


class ShockIndex(Formula):
    name = "shock_index"
    reference = "Allgower M, Burri C. Dtsch Med Wochenschr 1967;92:1947-1950"
    values = tuple(range(4, 16))  # tenths
    calculations = (("tenth", "systolic", "/", 10), ("index", "pulse", "/", "tenth"))

    def text(self, value: int) -> str:
        return f"{value // 10}.{value % 10}"

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        systolic = rng.choice([80, 90, 100, 110, 120, 130, 140][3 - level : 4 + level])
        return {**draw_person(rng), "pulse": aim * systolic // 10, "systolic": systolic}

    def rule(self, f: Facts) -> int:
        return f["pulse"] * 10 // f["systolic"] if 40 <= f["pulse"] <= 180 else -1

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} in the emergency room: pulse {f['pulse']}, systolic {f['systolic']}. Shock index?"

    def steps(self, f: Facts) -> list[str]:
        (systolic, _, _, tenth), (pulse, _, _, index) = self.worked(f)
        return [f"a tenth of {systolic} is {tenth}", f"{pulse} / {tenth} = {index}", f"index {self.text(index)}"]
