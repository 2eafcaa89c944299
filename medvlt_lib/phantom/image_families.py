"""Image families: digital phantoms drawn with known geometry, pose, contrast and noise, and the questions on them.

A *scene* is one picture of some kind (chest film, head CT, ...): its pose, and the values of every question that can be
asked of it, drawn independently and uniformly. A *family* asks for one of the values. `level` (1-3) lowers contrast and
adds noise and rotation. As radiologists have it, the patient's right is on the left of the picture. Synthetic, for
learning the method; not for clinical use.

Pictures are drawn at twice their size with Pillow and reduced; everything random comes from integers, so that the
same seed gives the same pixels on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from medvlt_lib.phantom.mistakes import one_off, other_side

SIZE = 112
S = 2  # drawing scale
MM = 0.6  # picture pixels per millimetre in the heads (a skull 150 mm wide is 90 pixels)
Point = tuple[float, float]
Colour = int | tuple[int, int, int]  # grey, or red, green and blue
Scene = dict[str, Any]  # a picture's pose and what there is to see on it, by name


def _ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
    draw.ellipse([round(S * v) for v in (x - rx, y - ry, x + rx, y + ry)], fill=fill)


def _polygon(draw: ImageDraw.ImageDraw, points: list[Point], fill: Colour) -> None:
    draw.polygon([(round(S * x), round(S * y)) for x, y in points], fill=fill)


def _line(draw: ImageDraw.ImageDraw, points: list[Point], fill: Colour, width: float) -> None:
    draw.line([(round(S * x), round(S * y)) for x, y in points], fill=fill, width=round(S * width), joint="curve")


def _canvas(mode: str = "L", colour: Colour = 0) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new(mode, (S * SIZE, S * SIZE), colour)
    return image, ImageDraw.Draw(image)


def _finish(image: Image.Image, scene: Scene, blur: float = 1.0) -> Image.Image:
    """Rotate, blur, reduce to SIZE and add grain: the sum of three uniform integers for each pixel."""
    if scene["tilt"]:
        image = image.rotate(scene["tilt"], resample=Image.BILINEAR)
    image = image.filter(ImageFilter.BoxBlur(blur)).reduce(S)
    grain = np.random.Generator(np.random.PCG64(scene["grain_seed"]))
    pixels = np.asarray(image, dtype=np.int16)
    width = scene["grain"]
    noise = grain.integers(-width, width + 1, size=(3, SIZE, SIZE), dtype=np.int16).sum(axis=0, dtype=np.int16)
    pixels = pixels + (noise if pixels.ndim == 2 else noise[:, :, None])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _pose(rng: Random, level: int, tilt: int) -> Scene:
    return {
        "level": level,
        "dx": rng.randint(-4, 4),
        "dy": rng.randint(-3, 3),
        "tilt": rng.randint(-tilt * (level - 1), tilt * (level - 1)),
        "grain": (2, 4, 6)[level - 1],
        "grain_seed": rng.getrandbits(32),
        "contrast": (100, 85, 70)[level - 1] + rng.randint(-5, 5),
    }


def _place(rng: Random, count: int, sample: Callable[[Random], Point], gap: float) -> list[Point]:
    """`count` points from `sample(rng)`, every two at least `gap` apart; starts again when it runs out of room."""
    while True:
        points: list[Point] = []
        for _ in range(60 * max(1, count)):
            if len(points) == count:
                return points
            x, y = sample(rng)
            if all((x - a) ** 2 + (y - b) ** 2 >= gap * gap for a, b in points):
                points.append((x, y))


class SceneKind(Protocol):
    """One kind of picture. `values` are the answers to every question that can be asked of it, by family."""

    name: str
    modality: str
    values: dict[str, tuple]

    def draw(self, rng: Random, level: int, values: dict) -> Scene:
        """A scene with these values, its pose and all else at random."""

    def render(self, s: Scene) -> Image.Image:
        """The scene's picture."""


class ChestFilm:
    """Frontal chest film: heart size and lung nodules. A picture pixel is 1/2.7 cm."""

    name, modality = "chest_film", "X-ray"
    PX = 2.7  # pixels per cm
    values = {"cardiothoracic_ratio": (40, 45, 50, 55, 60, 65), "nodule_count": (0, 1, 2, 3, 4)}

    def draw(self, rng: Random, level: int, values: dict) -> Scene:
        scene = {**_pose(rng, level, 2), **values, "chest_cm": rng.choice([26, 28, 30, 32])}
        count = values["nodule_count"]
        right = rng.randint(0, count)
        scene["nodules"] = [
            *self._nodules(rng, scene, -1, min(right, count)),
            *self._nodules(rng, scene, 1, count - right),
        ]
        return scene

    def _nodules(self, rng: Random, scene: Scene, side: int, count: int) -> list[list[float]]:
        half = scene["chest_cm"] * self.PX / 2

        def sample(r: Random) -> Point:
            return side * half * r.randint(42, 78) / 100, r.randint(-24, 24 if side < 0 else 2)

        return [[x, y, rng.randint(46, 56) / 10] for x, y in _place(rng, count, sample, 13)]

    def render(self, s: Scene) -> Image.Image:
        cx, cy = 56 + s["dx"], 56 + s["dy"]
        half, c = s["chest_cm"] * self.PX / 2, s["contrast"] / 100
        lung, soft = 58, round(58 + 100 * c)
        image, d = _canvas("L", 8)
        _polygon(d, [(cx - 24, 4), (cx + 24, 4), (cx + 54, 24), (cx + 52, 112), (cx - 52, 112), (cx - 54, 24)], soft)
        for side in (-1, 1):
            lungs = [
                (4, -38),
                (0.45 * half, -46),
                (0.72 * half, -38),
                (0.92 * half, -14),
                (half, 16),
                (half, 36),
                (0.6 * half, 30),
                (5, 36),
            ]
            _polygon(d, [(cx + side * x, cy + y) for x, y in lungs], lung)
            for k in range(6):  # ribs
                y = cy - 36 + 12 * k
                left, right = sorted((cx + side * 2, cx + side * (half + 8)))
                box = [round(S * v) for v in (left, y - 4, right, y + 14)]
                d.arc(box, 180, 360, fill=lung + 16, width=4)
            _line(d, [(cx + side * 4, cy - 40), (cx + side * 0.8 * half, cy - 46)], soft + 15, 2)  # clavicle
        _polygon(d, [(cx - 4, 2), (cx + 4, 2), (cx + 4, 110), (cx - 4, 110)], min(255, soft + 12))  # spine
        width = s["cardiothoracic_ratio"] / 100 * 2 * half
        left = 0.64 * width  # to the picture's right: the patient's left
        _ellipse(d, cx + (left - (width - left)) / 2, cy + 20, width / 2, 17, min(255, soft + 18))
        _polygon(
            d,
            [(cx - 6, cy - 24), (cx + 7, cy - 24), (cx + left * 0.7, cy + 14), (cx - (width - left) * 0.8, cy + 14)],
            soft + 18,
        )
        for x, y, radius in s["nodules"]:
            _ellipse(d, cx + x, cy + y, radius, radius, min(255, lung + round(125 * c)))
        return _finish(image, s, 2)


class HeadCT:
    """Axial head CT: midline shift and the kind of bleeding. The skull is white, fluid dark, blood bright."""

    name, modality = "head_ct", "CT"
    SHIFTS = ("none", "8 mm left", "16 mm left", "8 mm right", "16 mm right")
    BLEEDS = ("none", "epidural", "subdural", "intracerebral", "intraventricular")
    values = {"midline_shift": SHIFTS, "bleed_type": BLEEDS}

    def draw(self, rng: Random, level: int, values: dict) -> Scene:
        return {
            **_pose(rng, level, 3),
            **values,
            "side": rng.choice([-1, 1]),
            "spot": rng.randint(-10, 10),
            "rx": rng.randint(41, 46),
        }

    def render(self, s: Scene) -> Image.Image:
        cx, cy, rx, ry = 56 + s["dx"] // 2, 56 + s["dy"] // 2, s["rx"], 51
        c = s["contrast"] / 100
        brain, blood, fluid = 105, round(105 + 105 * c), round(105 - 75 * c)
        image, d = _canvas()
        _ellipse(d, cx, cy, rx + 1, ry + 1, 70)  # scalp
        _ellipse(d, cx, cy, rx - 1, ry - 1, 245)  # skull
        _ellipse(d, cx, cy, rx - 6, ry - 6, brain)
        amount, _, side = s["midline_shift"].partition(" mm ")
        shift = 0 if amount == "none" else MM * int(amount) * (1 if side == "left" else -1)
        midline = [(cx, cy - ry + 7), (cx + shift, cy - 12), (cx + shift, cy + 12), (cx, cy + ry - 7)]
        _line(d, midline, brain + 45, 1.5)
        ventricle = blood if s["bleed_type"] == "intraventricular" else fluid
        for hand in (-1, 1):
            outline = [(1.5, -2), (4, -16), (11, -20), (9, -10), (7, 2), (12, 18), (7, 19), (2, 6)]
            _polygon(d, [(cx + shift + hand * x, cy + y) for x, y in outline], ventricle)
        _ellipse(d, cx + shift, cy + 8, 2, 4, ventricle)
        self._bleed(image, d, s, cx, cy, rx - 6, ry - 6, blood)
        return _finish(image, s, 2)

    @staticmethod
    def _bleed(
        image: Image.Image, d: ImageDraw.ImageDraw, s: Scene, cx: float, cy: float, rx: float, ry: float, blood: int
    ) -> None:
        """Draw the bleeding inside the skull, an ellipse of rx and ry around (cx, cy)."""
        y = cy + s["spot"]
        if s["bleed_type"] == "intracerebral":
            _ellipse(d, cx + s["side"] * (rx - 15), y, 8, 7, blood)
        if s["bleed_type"] not in ("epidural", "subdural"):
            return
        inside, draw_inside = _canvas()
        other, draw_other = _canvas()
        _ellipse(draw_inside, cx, cy, rx, ry, 255)
        if s["bleed_type"] == "epidural":  # a lens on the inner table
            _ellipse(draw_other, cx + s["side"] * rx, y, 10, 17, 255)
            mask = ImageChops.darker(inside, other)
        else:  # a crescent along the convexity
            _ellipse(draw_other, cx - s["side"] * 6, cy, rx, ry + 1, 255)
            mask = ImageChops.subtract(inside, other)
        image.paste(blood, mask=mask)


class BrainMRI:
    """Axial T2-weighted brain MRI with one bright lesion: where it lies and how large it is."""

    name, modality = "brain_mri", "MRI"
    SITES = ("left frontal", "left temporal", "left occipital", "right frontal", "right temporal", "right occipital")
    values = {"lesion_site": SITES, "lesion_size": (8, 14, 20, 26, 32)}

    def draw(self, rng: Random, level: int, values: dict) -> Scene:
        jitter = {"jx": rng.randint(-2, 2), "jy": rng.randint(-3, 3), "stretch": rng.randint(92, 108)}
        return {**_pose(rng, level, 3), **values, **jitter, "rx": rng.randint(40, 44)}

    def render(self, s: Scene) -> Image.Image:
        cx, cy, rx, ry = 56 + s["dx"] // 2, 56 + s["dy"] // 2, s["rx"], 50
        c = s["contrast"] / 100
        grey, white, fluid = 120, round(120 - 45 * c), round(120 + 85 * c)
        image, d = _canvas()
        _ellipse(d, cx, cy, rx + 2, ry + 2, 110)
        _ellipse(d, cx, cy, rx - 1, ry - 1, 15)  # bone is dark
        _ellipse(d, cx, cy, rx - 4, ry - 4, fluid - 25)
        _ellipse(d, cx, cy, rx - 6, ry - 6, grey)
        for k in range(28):  # sulci
            a = 2 * math.pi * k / 28 + s["jx"] / 20
            outer, inner = (rx - 5, ry - 5), (rx - 11 - k % 3, ry - 11 - k % 3)
            _line(d, [(cx + r * math.cos(a), cy + q * math.sin(a)) for r, q in (outer, inner)], fluid - 45, 1)
        for side in (-1, 1):
            _ellipse(d, cx + side * 14, cy, 13, 32, white)
            outline = [(1.5, -2), (3, -13), (8, -16), (6, -6), (5, 3), (9, 15), (5, 15), (2, 5)]
            _polygon(d, [(cx + side * x, cy + y) for x, y in outline], fluid)
        _line(d, [(cx, cy - ry + 6), (cx, cy - 16)], fluid - 20, 1)
        _line(d, [(cx, cy + 16), (cx, cy + ry - 6)], fluid - 20, 1)
        side, lobe = s["lesion_site"].split()
        x = cx + (1 if side == "left" else -1) * {"frontal": 16, "temporal": 24, "occipital": 16}[lobe] + s["jx"]
        y = cy + {"frontal": -26, "temporal": 3, "occipital": 28}[lobe] + s["jy"]
        radius, stretch = MM * s["lesion_size"] / 2, s["stretch"] / 100
        _ellipse(d, x, y, radius * stretch + 1.5, radius / stretch + 1.5, min(255, fluid - 40))  # oedema
        _ellipse(d, x, y, radius * stretch, radius / stretch, min(255, fluid + 45))
        return _finish(image, s, 1)


class Fundus:
    """Colour fundus photograph centred on the optic disc: the cup-to-disc ratio. A pixel is 1/18 mm."""

    name, modality = "fundus", "fundus photography"
    values = {"cup_to_disc_ratio": (2, 3, 4, 5, 6, 7, 8)}  # tenths

    def draw(self, rng: Random, level: int, values: dict) -> Scene:
        extra = {
            "disc": rng.choice([30, 34, 38, 42]),
            "eye": rng.choice([-1, 1]),
            "tone": rng.randint(-12, 12),
            "bend": rng.randint(-4, 4),
        }
        return {**_pose(rng, level, 6), **values, **extra}

    def render(self, s: Scene) -> Image.Image:
        cx, cy, c, t = 56 + s["dx"], 56 + s["dy"], s["contrast"] / 100, s["tone"]
        image, d = _canvas("RGB", (6, 4, 4))
        _ellipse(d, 56, 56, 54, 54, (190 + t, 84 + t, 38))
        _ellipse(d, cx + s["eye"] * 44, cy + 4, 9, 8, (150 + t, 58, 26))  # macula
        disc, cup = s["disc"] / 2, s["disc"] / 2 * s["cup_to_disc_ratio"] / 10
        _ellipse(d, cx, cy, disc + 1, disc + 1, (212 + t, 120 + t, 60))
        _ellipse(d, cx, cy, disc, disc, (228, 160, 92))
        pale = round(70 * c)
        _ellipse(d, cx, cy, cup, cup, (min(255, 205 + pale), min(255, 170 + pale), min(255, 120 + pale)))
        for side in (-1, 1):
            for up in (-1, 1):
                for width, reach, colour in ((2.4, 1.0, (124, 26, 22)), (1.6, 0.7, (160, 44, 30))):
                    bend = s["bend"] * up
                    path = [(cx + side * 2, cy + up * cup * 0.6), (cx + side * 5 * reach, cy + up * (disc + 4))]
                    path += [(cx + side * (14 * reach + bend), cy + up * 34), (cx + side * 34 * reach, cy + up * 48)]
                    _line(d, path, colour, width)
        return _finish(image, s, 1)


class Histology:
    """H&E-stained tissue: how many of the nuclei are dark (hyperchromatic) among the pale ones."""

    name, modality = "histology", "histology"
    values = {"dark_nuclei": (1, 2, 3, 4, 5)}

    def draw(self, rng: Random, level: int, values: dict) -> Scene:
        dark = values["dark_nuclei"]

        def sample(r: Random) -> Point:  # clear of the picture's two middle lines
            return r.choice([r.randint(8, 49), r.randint(63, 104)]), r.choice([r.randint(8, 49), r.randint(63, 104)])

        points = _place(rng, dark + 3 + level, sample, 17)
        nuclei = [
            [x, y, rng.randint(52, 66) / 10, rng.randint(88, 114) / 100, i < dark] for i, (x, y) in enumerate(points)
        ]
        strands = [rng.randint(0, 112) for _ in range(10)]
        return {**_pose(rng, level, 0), **values, "nuclei": nuclei, "strands": strands}

    def render(self, s: Scene) -> Image.Image:
        c = s["contrast"] / 100
        image, d = _canvas("RGB", (236, 190, 212))
        for a, b in zip(s["strands"][::2], s["strands"][1::2], strict=True):  # stroma
            _line(d, [(0, a), (40, b), (80, a), (112, b)], (224, 160, 192), 2)
        for x, y, radius, stretch, dark in s["nuclei"]:
            _ellipse(d, x, y, radius * stretch + 4, radius / stretch + 4, (226, 168, 198))  # cytoplasm
            deep = (round(120 - 60 * c), round(80 - 50 * c), round(150 - 55 * c))
            _ellipse(d, x, y, radius * stretch, radius / stretch, deep if dark else (176, 140, 196))
            if not dark:
                _ellipse(d, x - 1, y - 1, 1.2, 1.2, (150, 110, 176))  # nucleolus
        return _finish(image, s, 1)


class ImageFamily:
    """One question that can be asked of a scene: the value it reads, its wording and the teacher's working."""

    modality = "image"
    name: str
    reference: str
    scene: SceneKind
    question: str

    @property
    def values(self) -> tuple:
        return self.scene.values[self.name]

    @property
    def image_modality(self) -> str:
        return self.scene.modality

    def text(self, value: Any) -> str:
        """An answer value as option text."""
        return str(value)

    def steps(self, s: Scene) -> list[str]:
        """The teacher's working."""
        raise NotImplementedError

    def rule(self, s: Scene) -> Any:
        """The value that the picture shows."""
        return s[self.name]

    def mistaken(self, value: Any) -> Any | None:
        """What a writer with a habit takes the value for: the next on the scale, the last for the one before it. None
        where there is no such mistake."""
        return one_off(self.values, value)


class CardiothoracicRatio(ImageFamily):
    name, scene = "cardiothoracic_ratio", ChestFilm()
    reference = "Danzer CS. Am J Med Sci 1919;157:513-521"
    question = "Chest film. Cardiothoracic ratio?"

    def text(self, value: int) -> str:
        return f"{value}%"

    def steps(self, s: Scene) -> list[str]:
        heart = round(s["chest_cm"] * s[self.name] / 100)
        return [f"chest {s['chest_cm']} cm", f"heart {heart} cm", f"ratio {self.text(s[self.name])}"]


class NoduleCount(ImageFamily):
    name, scene = "nodule_count", CardiothoracicRatio.scene
    reference = "MacMahon H et al. Radiology 2017;284:228-243 (count of pulmonary nodules)"
    question = "Chest film. How many lung nodules?"

    def steps(self, s: Scene) -> list[str]:
        right = sum(x < 0 for x, _, _ in s["nodules"])
        return [f"right lung {right}", f"left lung {len(s['nodules']) - right}", f"total {len(s['nodules'])}"]


class MidlineShift(ImageFamily):
    name, scene = "midline_shift", HeadCT()
    mistaken = other_side
    reference = "Liao CC et al. Front Neurol 2018;9:18 (midline shift of the septum, in mm)"
    question = "Head CT. Midline shift?"

    def steps(self, s: Scene) -> list[str]:
        amount, _, side = s[self.name].partition(" mm ")
        if amount == "none":
            return ["septum in the middle", "shift none"]
        seen = "right" if side == "left" else "left"
        return [f"septum off to picture {seen}", f"patient {side}", f"shift {s[self.name]}"]


class BleedType(ImageFamily):
    name, scene = "bleed_type", MidlineShift.scene
    reference = "Heit JJ et al. J Stroke 2017;19:11-27 (imaging of intracranial haemorrhage)"
    question = "Head CT. Which bleed?"
    SIGNS = {
        "none": "no bright blood",
        "epidural": "bright lens at the skull",
        "subdural": "bright crescent along the skull",
        "intracerebral": "bright ball in the brain",
        "intraventricular": "bright ventricles",
    }

    CONFUSED = {"epidural": "subdural", "intracerebral": "intraventricular"}

    def steps(self, s: Scene) -> list[str]:
        return [self.SIGNS[s[self.name]], f"bleed {s[self.name]}"]

    def mistaken(self, value: str) -> str | None:
        return {**self.CONFUSED, **{b: a for a, b in self.CONFUSED.items()}}.get(value)


class LesionSite(ImageFamily):
    name, scene = "lesion_site", BrainMRI()
    mistaken = other_side
    reference = (
        "Kirkpatrick JB, Hayman LA. Radiology 1987;162:369-373 (lobes on axial sections); radiological convention"
    )
    question = "Brain MRI. Where is the lesion?"

    def steps(self, s: Scene) -> list[str]:
        side, lobe = s[self.name].split()
        seen = "right" if side == "left" else "left"
        height = {"frontal": "top", "temporal": "middle", "occipital": "bottom"}[lobe]
        return [f"bright spot on picture {seen}, {height}", f"patient {side}", f"site {s[self.name]}"]


class LesionSize(ImageFamily):
    name, scene = "lesion_size", LesionSite.scene
    reference = "Eisenhauer EA et al. Eur J Cancer 2009;45:228-247 (RECIST 1.1, longest diameter)"
    question = "Brain MRI. Lesion diameter?"

    def text(self, value: int) -> str:
        return f"{value} mm"

    def steps(self, s: Scene) -> list[str]:
        return [f"bright spot {s['lesion_site'].split()[1]}", f"diameter {self.text(s[self.name])}"]


class CupToDiscRatio(ImageFamily):
    name, scene = "cup_to_disc_ratio", Fundus()
    reference = "Armaly MF. Arch Ophthalmol 1967;78:35-43"
    question = "Fundus. Cup-to-disc ratio?"

    def text(self, value: int) -> str:
        return f"0.{value}"

    def steps(self, s: Scene) -> list[str]:
        return [f"disc {s['disc']}", f"cup {round(s['disc'] * s[self.name] / 10)}", f"ratio {self.text(s[self.name])}"]


class DarkNuclei(ImageFamily):
    name, scene = "dark_nuclei", Histology()
    reference = "Elston CW, Ellis IO. Histopathology 1991;19:403-410 (counts in a field)"
    question = "Histology. How many dark nuclei?"

    def steps(self, s: Scene) -> list[str]:
        steps, total = [], 0
        for name, right, low in (
            ("top left", 0, 0),
            ("top right", 1, 0),
            ("bottom left", 0, 1),
            ("bottom right", 1, 1),
        ):
            here = sum(dark and (x > 56) == right and (y > 56) == low for x, y, _, _, dark in s["nuclei"])
            total += here
            steps.append(f"{name} {here}, total {total}")
        return steps


IMAGE_FAMILIES: tuple[ImageFamily, ...] = (
    CardiothoracicRatio(),
    NoduleCount(),
    MidlineShift(),
    BleedType(),
    LesionSite(),
    LesionSize(),
    CupToDiscRatio(),
    DarkNuclei(),
)
