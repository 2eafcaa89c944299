"""Clinical scores: the answer is a sum of points for findings."""

from __future__ import annotations

from random import Random

from medvlt_lib.phantom.text_family import Facts, TextFamily, draw_near, draw_person


class Score(TextFamily):
    """A sum of points. The checker of steps also asks for the points of findings that no vignette tells."""

    def findings(self, f: Facts) -> list[str]:
        """What counts, in the order of the vignette and of the working."""
        raise NotImplementedError

    def points(self, finding: str) -> int | None:
        """The points of any finding of this score; None for words that it does not know."""
        raise NotImplementedError

    def rule(self, f: Facts) -> int:
        return sum(self.points(finding) or 0 for finding in self.findings(f))

    def steps(self, f: Facts) -> list[str]:
        """Each finding with its points and the total so far."""
        steps, total = [], 0
        for finding in self.findings(f):
            points = self.points(finding) or 0
            total += points
            steps.append(f"{finding} {points}, total {total}")
        return steps


def _measured(finding: str) -> tuple[str, list[int]]:
    """The name of a finding and its numbers: ("pressure", [120, 60]); no numbers where it is one of words."""
    name, _, value = finding.rpartition(" ")
    numbers = value.split("/")
    if len(value) < 9 and all(number.isdecimal() for number in numbers):
        return name, [int(number) for number in numbers]
    return finding, []


class Curb65(Score):
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

    def findings(self, f: Facts) -> list[str]:
        rows = {
            "mind": "confused" if f["confused"] else "alert",
            "urea": f"urea {f['urea']}",
            "rate": f"rate {f['rate']}",
            "pressure": f"pressure {f['systolic']}/{f['diastolic']}",
        }
        return [f"age {f['age']}", *(rows[k] for k in f["order"])]

    def points(self, finding: str) -> int | None:
        match _measured(finding):
            case "age", [years]:
                return int(years >= 65)
            case "urea", [urea]:
                return int(urea > 7)
            case "rate", [rate]:
                return int(rate >= 30)
            case "pressure", [systolic, diastolic]:
                return int(systolic < 90 or diastolic <= 60)
        return {"confused": 1, "alert": 0}.get(finding)

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} with pneumonia: {', '.join(self.findings(f)[1:])}. CURB-65 score?"


class GlasgowComaScale(Score):
    name = "glasgow_coma_scale"
    reference = "Teasdale G, Jennett B. Lancet 1974;304:81-84"
    values = tuple(range(3, 16))
    SIGNS = {
        "eyes": {4: "open", 3: "open to voice", 2: "open to pain", 1: "stay shut"},
        "speech": {5: "oriented", 4: "confused", 3: "words only", 2: "sounds only", 1: "silent"},
        "motor": {6: "obeys", 5: "localises pain", 4: "withdraws", 3: "flexes", 2: "extends", 1: "still"},
    }

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        order = ["eyes", "speech", "motor"] if level == 1 else rng.sample(["eyes", "speech", "motor"], 3)
        speech = rng.randint(max(1, aim - 10), min(5, aim - 2))
        motor = rng.randint(max(1, aim - speech - 4), min(6, aim - speech - 1))
        return {**draw_person(rng), "eyes": aim - speech - motor, "speech": speech, "motor": motor, "order": order}

    def findings(self, f: Facts) -> list[str]:
        return [f"{sign} {self.SIGNS[sign][f[sign]]}" for sign in f["order"]]

    def points(self, finding: str) -> int | None:
        sign, _, words = finding.partition(" ")
        return next((points for points, own in self.SIGNS.get(sign, {}).items() if own == words), None)

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} after a fall: {', '.join(self.findings(f))}. Glasgow coma scale?"


class Qsofa(Score):
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

    def findings(self, f: Facts) -> list[str]:
        rows = {"rate": f"rate {f['rate']}", "systolic": f"systolic {f['systolic']}", "coma": f"coma scale {f['coma']}"}
        return [rows[k] for k in f["order"]]

    def points(self, finding: str) -> int | None:
        match _measured(finding):
            case "rate", [rate]:
                return int(rate >= 22)
            case "systolic", [systolic]:
                return int(systolic <= 100)
            case "coma scale", [coma]:
                return int(coma < 15)
        return None

    def stem(self, f: Facts) -> str:
        return f"{self.person(f)} with infection: {', '.join(self.findings(f))}. qSOFA score?"


class Cha2ds2Vasc(Score):
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

    def findings(self, f: Facts) -> list[str]:
        return [f"age {f['age']}", f["sex"], *f["history"]]

    def points(self, finding: str) -> int | None:
        match _measured(finding):
            case "age", [years]:
                return 2 if years >= 75 else int(years >= 65)
        return {"man": 0, "woman": 1, **self.POINTS, **self.OTHER}.get(finding)

    def stem(self, f: Facts) -> str:
        history = ", ".join(f["history"]) or "no other illness"
        return f"{self.person(f)} with atrial fibrillation: {history}. CHA2DS2-VASc score?"


class Apgar(Score):
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

    def findings(self, f: Facts) -> list[str]:
        rows = {sign: f"{sign} {words[f[sign]]}" for sign, words in self.SIGNS.items()}
        rows["pulse"] = f"pulse {f['pulse']}"
        return [rows[k] for k in f["order"]]

    def points(self, finding: str) -> int | None:
        match _measured(finding):
            case "pulse", [pulse]:
                return 2 if pulse >= 100 else int(pulse > 0)
        sign, _, words = finding.partition(" ")
        own = self.SIGNS.get(sign, ())
        return own.index(words) if words in own else None

    def stem(self, f: Facts) -> str:
        return f"Newborn at {f['minutes']} minutes: {', '.join(self.findings(f))}. Apgar score?"
