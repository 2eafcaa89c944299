"""Clinical scores: the answer is a sum of points for findings."""

from __future__ import annotations

from random import Random

from medvlt_lib.phantom.text_family import Facts, TextFamily, draw_near, draw_person


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
            **draw_person(rng),
            "age": draw_near(rng, 65, met[0], level, 28),
            "confused": met[1],
            "urea": draw_near(rng, 8, met[2], level, 8) if met[2] else rng.randint(3, 7),
            "rate": draw_near(rng, 30, met[4], level, 14),
            "systolic": draw_near(rng, 89, low_systolic, level, 40, above=False),
            "diastolic": draw_near(rng, 60, low_diastolic, level, 24, above=False),
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
        return {**draw_person(rng), "eyes": aim - speech - motor, "speech": speech, "motor": motor, "order": order}

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
            **draw_person(rng),
            "rate": draw_near(rng, 22, met[0], level, 12),
            "systolic": draw_near(rng, 100, met[1], level, 40, above=False),
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
        age = {0: draw_near(rng, 65, False, level, 30), 1: rng.randint(65, 74), 2: draw_near(rng, 75, True, level, 20)}[
            band
        ]
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
