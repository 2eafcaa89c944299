"""Text families: vignettes over published clinical scores and formulas whose answer is computed.

Each family is one class: `draw` makes the facts, `rule` computes the answer from them, `stem` asks, `steps` is the
teacher's working, and `reference` says where the rule was published. The facts are drawn until the rule gives the
wanted value, so the gold value is uniform whatever the rule. `level` (1-3) sets how close findings lie to a
threshold, or how round the numbers are. Synthetic, for learning the method; not for clinical use.
"""

from __future__ import annotations

from random import Random

Facts = dict[str, int | str | bool | list[str]]


class TextFamily:
    """What the text families share: the person in the vignette and near-threshold numbers."""

    name: str
    reference: str
    values: tuple
    modality = "text"
    image_modality = None

    def text(self, value) -> str:
        """An answer value as option text."""
        return str(value)

    @staticmethod
    def person(facts: Facts) -> str:
        return f"{facts['sex'].capitalize()} of {facts['age']}"


def _person(rng: Random, low: int = 20, high: int = 95) -> Facts:
    return {"age": rng.randint(low, high), "sex": rng.choice(["man", "woman"])}


def _near(rng: Random, limit: int, met: bool, level: int, spread: int, above: bool = True) -> int:
    """A whole number that meets (or misses) `>= limit` (or `<= limit`), nearer the limit at a higher level."""
    gap = rng.randint(0, max(2, spread // level))
    if above:
        return limit + gap if met else limit - 1 - gap
    return limit - gap if met else limit + 1 + gap


def _tally(findings: list[tuple[str, int]]) -> list[str]:
    """Working for a sum of points: each finding with its points and the running total."""
    steps, total = [], 0
    for finding, points in findings:
        total += points
        steps.append(f"{finding} {points}, total {total}")
    return steps


class Curb65(TextFamily):
    name = "curb65"
    reference = "Lim WS et al. Thorax 2003;58:377-382"
    values = (0, 1, 2, 3, 4, 5)

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        met = [rng.random() < (aim + 0.3) / 5.6 for _ in range(5)]
        low_systolic = met[3] and rng.random() < 0.5
        low_diastolic = met[3] and (not low_systolic or rng.random() < 0.3)
        return {
            **_person(rng),
            "age": _near(rng, 65, met[0], level, 28),
            "confused": met[1],
            "urea": _near(rng, 8, met[2], level, 8) if met[2] else rng.randint(3, 7),
            "rate": _near(rng, 30, met[4], level, 14),
            "systolic": _near(rng, 89, low_systolic, level, 40, above=False),
            "diastolic": _near(rng, 60, low_diastolic, level, 24, above=False),
            "order": rng.sample(["mind", "urea", "rate", "pressure"], 4),
        }

    def _findings(self, f: Facts) -> list[tuple[str, int]]:
        rows = {
            "mind": ("confused" if f["confused"] else "alert", int(f["confused"])),
            "urea": (f"urea {f['urea']}", int(f["urea"] > 7)),
            "rate": (f"rate {f['rate']}", int(f["rate"] >= 30)),
            "pressure": (f"pressure {f['systolic']}/{f['diastolic']}", int(f["systolic"] < 90 or f["diastolic"] <= 60)),
        }
        return [(f"age {f['age']}", int(f["age"] >= 65)), *(rows[k] for k in f["order"])]

    def rule(self, f: Facts) -> int:
        return sum(points for _, points in self._findings(f))

    def stem(self, f: Facts) -> str:
        rows = ", ".join(finding for finding, _ in self._findings(f)[1:])
        return f"{self.person(f)} with pneumonia: {rows}. CURB-65 score?"

    def steps(self, f: Facts) -> list[str]:
        return _tally(self._findings(f))


class GlasgowComaScale(TextFamily):
    name = "glasgow_coma_scale"
    reference = "Teasdale G, Jennett B. Lancet 1974;304:81-84"
    values = tuple(range(3, 16))
    EYES = {4: "open", 3: "open to voice", 2: "open to pain", 1: "stay shut"}
    SPEECH = {5: "oriented", 4: "confused", 3: "words only", 2: "sounds only", 1: "silent"}
    MOTOR = {6: "obeys", 5: "localises pain", 4: "withdraws", 3: "flexes", 2: "extends", 1: "still"}

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        order = ["eyes", "speech", "motor"] if level == 1 else rng.sample(["eyes", "speech", "motor"], 3)
        speech = rng.randint(max(1, aim - 10), min(5, aim - 2))
        motor = rng.randint(max(1, aim - speech - 4), min(6, aim - speech - 1))
        return {**_person(rng), "eyes": aim - speech - motor, "speech": speech, "motor": motor, "order": order}

    def _findings(self, f: Facts) -> list[tuple[str, int]]:
        rows = {"eyes": self.EYES[f["eyes"]], "speech": self.SPEECH[f["speech"]], "motor": self.MOTOR[f["motor"]]}
        return [(f"{k} {rows[k]}", f[k]) for k in f["order"]]

    def rule(self, f: Facts) -> int:
        return f["eyes"] + f["speech"] + f["motor"]

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} after a fall: {', '.join(text for text, _ in self._findings(f))}. Glasgow coma scale?"

    def steps(self, f: Facts) -> list[str]:
        return _tally(self._findings(f))


class Qsofa(TextFamily):
    name = "qsofa"
    reference = "Singer M et al. JAMA 2016;315:801-810"
    values = (0, 1, 2, 3)

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        met = [rng.random() < (aim + 0.3) / 3.6 for _ in range(3)]
        return {
            **_person(rng),
            "rate": _near(rng, 22, met[0], level, 12),
            "systolic": _near(rng, 100, met[1], level, 40, above=False),
            "coma": rng.randint(3 + 3 * level, 14) if met[2] else 15,
            "order": rng.sample(["rate", "systolic", "coma"], 3),
        }

    def _findings(self, f: Facts) -> list[tuple[str, int]]:
        rows = {
            "rate": (f"rate {f['rate']}", int(f["rate"] >= 22)),
            "systolic": (f"systolic {f['systolic']}", int(f["systolic"] <= 100)),
            "coma": (f"coma scale {f['coma']}", int(f["coma"] < 15)),
        }
        return [rows[k] for k in f["order"]]

    def rule(self, f: Facts) -> int:
        return sum(points for _, points in self._findings(f))

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} with infection: {', '.join(text for text, _ in self._findings(f))}. qSOFA score?"

    def steps(self, f: Facts) -> list[str]:
        return _tally(self._findings(f))


class Cha2ds2Vasc(TextFamily):
    name = "cha2ds2_vasc"
    reference = "Lip GYH et al. Chest 2010;137:263-272"
    values = tuple(range(10))
    POINTS = {"heart failure": 1, "hypertension": 1, "diabetes": 1, "stroke": 2, "vascular disease": 1}
    OTHER = {"gout": 0, "asthma": 0, "migraine": 0, "eczema": 0, "cataract": 0}

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        odds = (aim + 0.4) / 9.8
        band = 2 if rng.random() < odds else int(rng.random() < 0.4)
        age = {0: _near(rng, 65, False, level, 30), 1: rng.randint(65, 74), 2: _near(rng, 75, True, level, 20)}[band]
        history = [k for k in self.POINTS if rng.random() < odds] + rng.sample(
            list(self.OTHER), rng.randint(0, level - 1)
        )
        rng.shuffle(history)
        return {"age": age, "sex": "woman" if rng.random() < 0.2 + 0.6 * odds else "man", "history": history}

    def _findings(self, f: Facts) -> list[tuple[str, int]]:
        age = 2 if f["age"] >= 75 else int(f["age"] >= 65)
        points = {**self.POINTS, **self.OTHER}
        return [(f"age {f['age']}", age), (f["sex"], int(f["sex"] == "woman")), *((k, points[k]) for k in f["history"])]

    def rule(self, f: Facts) -> int:
        return sum(points for _, points in self._findings(f))

    def stem(self, f: Facts) -> str:
        history = ", ".join(f["history"]) or "no other illness"
        return f"{self.person(f)} with atrial fibrillation: {history}. CHA2DS2-VASc score?"

    def steps(self, f: Facts) -> list[str]:
        return _tally(self._findings(f))


class Apgar(TextFamily):
    name = "apgar"
    reference = "Apgar V. Curr Res Anesth Analg 1953;32:260-267"
    values = tuple(range(11))
    SIGNS = {
        "colour": ("blue", "pink body, blue limbs", "pink"),
        "reflex": ("no response", "grimace", "cry"),
        "tone": ("limp", "some flexion", "active"),
        "breathing": ("absent", "slow", "good"),
    }

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        odds = (aim + 0.3) / 10.6
        points = {k: int(rng.random() < odds) + int(rng.random() < odds) for k in ("pulse", *self.SIGNS)}
        pulse = {0: 0, 1: 99 - rng.randint(0, 45 // level), 2: 100 + rng.randint(1, 60 // level)}[points["pulse"]]
        return {
            **points,
            "pulse": pulse,
            "minutes": rng.choice([1, 5, 10]),
            "order": rng.sample(["pulse", *self.SIGNS], 5),
        }

    def _findings(self, f: Facts) -> list[tuple[str, int]]:
        pulse = 2 if f["pulse"] >= 100 else int(f["pulse"] > 0)
        rows = {k: (f"{k} {words[f[k]]}", f[k]) for k, words in self.SIGNS.items()}
        rows["pulse"] = (f"pulse {f['pulse']}", pulse)
        return [rows[k] for k in f["order"]]

    def rule(self, f: Facts) -> int:
        return sum(points for _, points in self._findings(f))

    def stem(self, f: Facts) -> str:
        return f"Newborn at {f['minutes']} minutes: {', '.join(text for text, _ in self._findings(f))}. Apgar score?"

    def steps(self, f: Facts) -> list[str]:
        return _tally(self._findings(f))


class AnionGap(TextFamily):
    name = "anion_gap"
    reference = "Kraut JA, Madias NE. Clin J Am Soc Nephrol 2007;2:162-174"
    values = tuple(range(4, 32, 2))

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        step = (10, 5, 1)[level - 1]
        bicarbonate, chloride = rng.randrange(10, 31, step), rng.randrange(90, 116, step)
        return {
            **_person(rng),
            "sodium": aim + chloride + bicarbonate,
            "chloride": chloride,
            "bicarbonate": bicarbonate,
        }

    def rule(self, f: Facts) -> int:
        gap = f["sodium"] - f["chloride"] - f["bicarbonate"]
        return gap if 118 <= f["sodium"] <= 158 else -1  # no such patient: drawn again

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)}, unwell: sodium {f['sodium']}, chloride {f['chloride']}, bicarbonate {f['bicarbonate']} mmol/L. Anion gap?"

    def steps(self, f: Facts) -> list[str]:
        rest = f["sodium"] - f["chloride"]
        return [f"{f['sodium']} - {f['chloride']} = {rest}", f"{rest} - {f['bicarbonate']} = {self.rule(f)}"]


class MeanArterialPressure(TextFamily):
    name = "mean_arterial_pressure"
    reference = "DeMers D, Wachs D. Physiology, Mean Arterial Pressure. StatPearls 2023: diastolic + pulse pressure / 3"
    values = tuple(range(60, 125, 5))

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        third = rng.randrange(10, 21, (10, 5, 1)[level - 1])
        return {**_person(rng), "systolic": aim + 2 * third, "diastolic": aim - third}

    def rule(self, f: Facts) -> int:
        pulse = f["systolic"] - f["diastolic"]
        return f["diastolic"] + pulse // 3 if f["diastolic"] >= 35 and f["systolic"] <= 190 else -1

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)}, blood pressure {f['systolic']}/{f['diastolic']} mmHg. Mean arterial pressure?"

    def steps(self, f: Facts) -> list[str]:
        pulse = f["systolic"] - f["diastolic"]
        third = pulse // 3
        return [
            f"{f['systolic']} - {f['diastolic']} = {pulse}",
            f"{pulse} / 3 = {third}",
            f"{f['diastolic']} + {third} = {self.rule(f)}",
        ]


class ShockIndex(TextFamily):
    name = "shock_index"
    reference = "Allgower M, Burri C. Dtsch Med Wochenschr 1967;92:1947-1950"
    values = tuple(range(4, 16))  # tenths

    def text(self, value: int) -> str:
        return f"{value // 10}.{value % 10}"

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        systolic = rng.choice([80, 90, 100, 110, 120, 130, 140][3 - level : 4 + level])
        return {**_person(rng), "pulse": aim * systolic // 10, "systolic": systolic}

    def rule(self, f: Facts) -> int:
        return f["pulse"] * 10 // f["systolic"] if 40 <= f["pulse"] <= 180 else -1

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} in the emergency room: pulse {f['pulse']}, systolic {f['systolic']}. Shock index?"

    def steps(self, f: Facts) -> list[str]:
        tenth = f["systolic"] // 10
        return [
            f"a tenth of {f['systolic']} is {tenth}",
            f"{f['pulse']} / {tenth} = {self.rule(f)}",
            f"index {self.text(self.rule(f))}",
        ]


TEXT_FAMILIES = (
    Curb65(),
    GlasgowComaScale(),
    Qsofa(),
    Cha2ds2Vasc(),
    Apgar(),
    AnionGap(),
    MeanArterialPressure(),
    ShockIndex(),
)
