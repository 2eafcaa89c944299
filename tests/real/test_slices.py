"""`mni152:` with nilearn's template: answers against the files read by hand, splits against the leak finder, and the
way through the data stage and an evaluation."""

import gzip
import json
import struct
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from medvlt_lib.data.leakage import find_leaks, fingerprint
from medvlt_lib.data.mni152 import COPYRIGHT, MIDDLE, read_mni152
from medvlt_lib.data.slices import AXES, HALF, slice_questions
from tests.pipeline.conftest import medvlt, settings


def nifti(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(voxels, 4 x 4 matrix from voxel to MNI millimetres) of one of the template's files, by nifti1.h."""
    [folder] = find_spec("nilearn").submodule_search_locations
    path = Path(folder) / f"datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    data = gzip.decompress(path.read_bytes())
    shape, start = struct.unpack("<8h", data[40:56])[1:4], int(struct.unpack("<f", data[108:112])[0])
    assert struct.unpack("<h", data[254:256])[0] > 0, "the matrix is in srow"
    matrix = np.vstack([np.frombuffer(data[280:328], "<f4").reshape(3, 4), [0, 0, 0, 1]])
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape, order="F"), matrix


@pytest.fixture(scope="module")
def files():
    return {name: nifti(name) for name in ("t1", "gm", "wm")}


@pytest.fixture(scope="module")
def sets():
    brain = read_mni152()
    return {split: list(slice_questions(brain, "all", split, 144, seed=0)) for split in ("train", "validation", "test")}


def at(file, millimetres) -> int:
    voxels, matrix = file
    place = np.linalg.solve(matrix, [*millimetres, 1])[:3]
    return int(voxels[tuple(np.rint(place).astype(int))])


def test_the_cube_holds_the_whole_brain_and_its_midline(files):
    brain, (t1, _) = read_mni152(), files["t1"]
    assert (brain.t1 > 0).sum() == (t1 > 0).sum()
    assert (brain.t1 == brain.t1[::-1]).all()  # the symmetric template: its midline is the cube's
    places = np.argwhere(brain.t1 > 0)
    assert np.abs(places.min(0) + places.max(0) - 2 * HALF).max() <= 1  # in the middle of the picture
    assert MIDDLE[0] == 0


def test_answers_are_what_the_files_say(files, sets):
    for question in (q for questions in sets.values() for q in questions):
        x, y, z = question.extra["ring_mm"]
        t1, grey, white = (at(files[name], (x, y, z)) for name in ("t1", "gm", "wm"))
        if question.family == "side":
            assert question.answer == ("right" if x > 0 else "left")  # MNI: x grows to the right
        if question.family == "tissue":
            shares = {
                "grey matter": grey,
                "white matter": white,
                "cerebrospinal fluid": (255 - grey - white) * (t1 > 0),
            }
            inside = max(shares.values()) >= 0.9 * 255
            assert inside == (question.answer != "outside the brain")
            assert max(shares, key=shares.get) == question.answer if inside else t1 == 0


def test_tissues_are_as_bright_as_t1_weighted_mri_has_them(files, sets):
    """An independent truth: fluid is dark, grey matter between, white matter bright."""
    seen = {}
    for question in (q for questions in sets.values() for q in questions if q.family == "tissue"):
        seen.setdefault(question.answer, []).append(at(files["t1"], question.extra["ring_mm"]))
    order = ["outside the brain", "cerebrospinal fluid", "grey matter", "white matter"]
    for darker, brighter in pairwise(order):
        assert max(seen[darker]) < min(seen[brighter])


def test_no_test_picture_is_a_near_copy_of_a_training_picture(sets):
    prints = {split: [fingerprint(q) for q in questions] for split, questions in sets.items()}
    for held_out in ("validation", "test"):
        assert list(find_leaks(prints["train"], prints[held_out])) == []
    shown = {split: {(q.extra["plane"], q.extra["ring_mm"][AXES[q.extra["plane"]]]) for q in questions}
             for split, questions in sets.items()}  # fmt: skip
    assert all(len(slices) > 30 for slices in shown.values())


def test_data_stage_and_evaluation(tmp_path):
    sizes = {"data.train_image_size": 9, "data.validation_size": 9, "data.test_size": 9}
    sources = dict.fromkeys(("data.train_image", "data.validation", "data.test"), "mni152:all")
    done = medvlt(tmp_path, "data", "--profile", "tiny", *settings(**sources, **sizes))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not for clinical use" in done.stderr and COPYRIGHT in done.stderr
    folder = tmp_path / "runs/tiny/01_data"
    card = json.loads((folder / "data_card.json").read_text())
    assert card["test"]["licences"] == {COPYRIGHT: 9} and card["test"]["images"] == 9
    assert COPYRIGHT in (folder / "data_card.md").read_text()
    asked = ("eval", "--model", "phantom:small", "--benchmarks", "mni152:all", "--questions", "9", "--out", "out")
    done = medvlt(tmp_path, *asked, *settings(**{"eval.max_new_tokens": 8}))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "out/scores.json").read_text())
