"""Questions on slices, of a made-up brain whose tissue is known from formulas; and what is wrong with the package."""

from collections import Counter
from importlib import metadata

import numpy as np
import pytest

from medvlt_lib.core import packaged
from medvlt_lib.core.config import Data
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import LETTERS
from medvlt_lib.data import mni152
from medvlt_lib.data.benchmarks import named_benchmarks
from medvlt_lib.data.slices import (
    ANSWERS,
    AXES,
    HALF,
    SIDE,
    SIZE,
    Brain,
    cut,
    slice_families,
    slice_questions,
    split_of,
    voxel,
)
from medvlt_lib.data.sources import load_set

MIDDLE = (0, -20, 10)  # mm
HALF_AXES = np.array([60, 85, 70])  # mm: of the brain, to the right, front and top
TISSUES = ((1.0, "grey matter"), (0.8, "white matter"), (0.4, "cerebrospinal fluid"))  # within this share of them
BRIGHTNESS = {"outside the brain": 0, "cerebrospinal fluid": 60, "grey matter": 150, "white matter": 220}


def radius(x, y, z):
    """How far a point lies from the middle, as a share of the half axes; in the volume's own millimetres."""
    return np.sqrt(sum(((v - m) / h) ** 2 for v, m, h in zip((x, y, z), MIDDLE, HALF_AXES, strict=True)))


def tissue(far):
    return ([name for share, name in TISSUES if far <= share] or ["outside the brain"])[-1]


@pytest.fixture(scope="module")
def brain() -> Brain:
    """Ellipsoids: fluid, around it white matter, around that grey matter."""
    steps = np.arange(SIDE) - HALF
    far = radius(*np.meshgrid(*(steps + m for m in MIDDLE), indexing="ij", sparse=True))
    grey, white = (far > 0.8) & (far <= 1), (far > 0.4) & (far <= 0.8)
    t1 = np.where(grey, 150, np.where(white, 220, np.where(far <= 0.4, 60, 0))).astype(np.uint8)
    maps = [(255 * mask).astype(np.uint8) for mask in (grey, white)]
    return Brain(t1, *maps, MIDDLE, {"name": "mni152", "revision": "made up", "licence": "none"})


@pytest.fixture(scope="module")
def questions(brain):
    return list(slice_questions(brain, "all", "test", 48, seed=5))


def of(questions, family):
    return [q for q in questions if q.family == family]


def seen(question):
    """(grey values, (row, column) of the ring's middle) of a picture, both from its pixels alone."""
    pixels = np.asarray(load_image(question.images[0])).astype(int)
    red = (pixels[..., 0] - pixels[..., 1]) > 60
    rows, columns = np.nonzero(red)
    return pixels[..., 1], ((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2)


def test_a_slice_is_looked_at_as_radiologists_do():
    """One bright voxel at the patient's right, front and top, each at another distance from the edge."""
    volume = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    right, front, top = 5, 20, 40  # voxels from that edge
    volume[SIDE - 1 - right, SIDE - 1 - front, SIDE - 1 - top] = 255
    shown = {"axial": (SIDE - 1 - top, front, right), "coronal": (SIDE - 1 - front, top, right)}
    shown["sagittal"] = (SIDE - 1 - right, top, front)
    for plane, (place, row, column) in shown.items():
        assert np.argwhere(cut(volume, plane, place)).tolist() == [[row, column]]
        assert volume[voxel(plane, place, row, column)] == 255


def test_the_tissue_is_that_of_the_formula_and_of_the_pixel(questions):
    for question in of(questions, "tissue"):
        assert tissue(radius(*question.extra["ring_mm"])) == question.answer
        values, (row, column) = seen(question)
        value = values[round(row), round(column)]
        assert min(BRIGHTNESS, key=lambda name: abs(BRIGHTNESS[name] - value)) == question.answer


def test_all_around_the_point_is_the_same_tissue(questions):
    """One voxel further in any direction within the slice nothing changes; outside the brain, four."""
    for question in of(questions, "tissue"):
        step = 4 if question.answer == "outside the brain" else 1
        for axis in {0, 1, 2} - {AXES[question.extra["plane"]]}:
            for sign in (-1, 1):
                at = list(question.extra["ring_mm"])
                at[axis] += sign * step
                assert tissue(radius(*at)) == question.answer


def test_the_patients_right_is_on_the_left_of_the_picture(questions):
    for question in of(questions, "side"):
        assert question.extra["plane"] in ("axial", "coronal")
        assert (question.extra["ring_mm"][0] > 0) == (question.answer == "right")  # the axis goes to the right
        middle = (SIZE - 1) / 2
        _, (_, column) = seen(question)
        assert abs(column - middle) >= 5  # 10 mm are 6 pixels
        assert (column < middle) == (question.answer == "right")


def test_the_plane_is_seen_in_the_outline(brain):
    """Of this brain sagittal slices are the longest, and axial ones are higher than wide by more than coronal ones."""
    shapes = {"axial": 85 / 60, "coronal": 70 / 60, "sagittal": 70 / 85}
    for question in slice_questions(brain, "plane", "train", 9, seed=0):
        values, _ = seen(question)
        rows, columns = np.nonzero(values > 30)
        high, wide = (np.ptp(v) + 1 for v in (rows, columns))
        assert min(shapes, key=lambda plane: abs(shapes[plane] - high / wide)) == question.answer
        assert question.answer == question.extra["plane"]


@pytest.mark.parametrize("family", ANSWERS)
def test_no_answer_and_no_letter_is_right_more_often(family, brain):
    count = len(ANSWERS[family])
    answers, letters, both = Counter(), Counter(), Counter()
    for question in slice_questions(brain, family, "test", count**2, seed=1):
        assert sorted(question.options.values()) == sorted(ANSWERS[family])
        answers[question.answer] += 1
        letters[question.answer_label] += 1
        both[question.answer, question.answer_label] += 1
    assert answers == dict.fromkeys(ANSWERS[family], count)
    assert letters == dict.fromkeys(LETTERS[:count], count)
    assert set(both.values()) == {1} and len(both) == count**2


def test_the_seed_and_the_split_say_which_questions(brain, questions):
    again = list(slice_questions(brain, "all", "test", 6, seed=5))
    assert again == questions[:6]
    assert [q.family for q in again[:3]] == ["plane", "side", "tissue"]
    [alone] = slice_questions(brain, "tissue", "test", 1, seed=5)
    assert alone == again[2]
    other = list(slice_questions(brain, "all", "test", 6, seed=6))
    assert not {i for q in other for i in q.image_ids} & {i for q in again for i in q.image_ids}


def test_slices_of_two_splits_lie_five_millimetres_apart():
    for plane in AXES:
        splits = {place: split_of(plane, place) for place in range(SIDE)}
        assert {"train", "validation", "test"} <= set(splits.values())
        for one, split in splits.items():
            near = {splits.get(one + step) for step in range(-4, 5)}
            assert split is None or near <= {split, None}
    mirrored = [split_of("sagittal", place) for place in range(SIDE)]
    assert mirrored == mirrored[::-1]


def test_a_question_shows_a_slice_of_its_split(brain):
    for split in ("train", "validation", "test"):
        for question in slice_questions(brain, "all", split, 6, seed=2):
            axis = AXES[question.extra["plane"]]
            place = question.extra["ring_mm"][axis] - MIDDLE[axis] + HALF
            assert split_of(question.extra["plane"], place) == split == question.split


def test_a_brain_without_fluid_is_a_sentence(brain):
    solid = Brain(brain.t1, brain.grey, np.where(brain.t1 > 0, 255 - brain.grey, 0), MIDDLE, brain.source)
    with pytest.raises(UserError, match=r"no more tissue questions with the answer cerebrospinal fluid; ask for fewer"):
        list(slice_questions(solid, "tissue", "test", 16, seed=0))


def test_families_and_benchmarks_by_name():
    assert slice_families("tissue, plane") == ["plane", "tissue"]
    assert slice_families("all") == list(ANSWERS)
    [benchmark] = named_benchmarks(["mni152:side,plane"], None, 30)
    assert (benchmark.source, benchmark.questions) == ("mni152:side,plane", 30)
    for wrong in ("mni152:", "mni152:lobe"):
        with pytest.raises(
            UserError, match=r"unknown family '(lobe)?' of slices; choose from all, plane, side, tissue"
        ):
            named_benchmarks([wrong], None, 30)


@pytest.mark.parametrize(
    ("version", "reader", "sentence"),
    [
        (None, True, "read from the package nilearn 0.14.1; install it with `pip install --no-deps -r"),
        ("0.9", True, "read from nilearn 0.14.1, and 0.9 is installed; install that version"),
        ("0.14.1", None, "read with the package nibabel; install it with"),
        ("0.14.1", True, "t1_tal_nlin_sym_09a_converted.nii.gz is missing or damaged; install it again"),
    ],
)
def test_what_is_wrong_with_the_package_is_a_sentence(version, reader, sentence, tmp_path, monkeypatch):
    if version:
        info = tmp_path / f"nilearn-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: nilearn\nVersion: {version}\n")

    def only_here(name):
        for found in metadata.distributions(name=name, path=[str(tmp_path)]):
            return found
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", only_here)
    monkeypatch.setattr(packaged, "find_spec", lambda name: reader)
    mni152.read_mni152.cache_clear()
    with pytest.raises(UserError) as raised:
        list(load_set("test", Data(test="mni152:all")))
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
