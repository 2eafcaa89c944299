"""Real CT, MR and fundus pictures of 8, 12 and 16 bits, saved as a user would save them, through `medvlt import` and
the data stage: scaled and not clipped, and the data card says so. They come with pydicom, scikit-image and nilearn."""

import gzip
import io
import json
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from medvlt_lib.core.images import CHANGES, DEPTH
from medvlt_lib.core.records import read_questions
from tests.pipeline.conftest import medvlt, settings


def dicom(name: str) -> np.ndarray:
    """A file's stored values, (rows, columns)."""
    return pydicom.dcmread(get_testdata_file(name, download=False)).pixel_array.astype(np.int32)


def fundus(name: str) -> np.ndarray:
    [folder] = find_spec("skimage").submodule_search_locations
    return np.asarray(Image.open(Path(folder) / "data" / name))


def brain() -> np.ndarray:
    """The middle axial slice of the MNI152 T1 template, 8 bits; NIfTI-1 by its own header (nifti1.h)."""
    [folder] = find_spec("nilearn").submodule_search_locations
    data = gzip.decompress(
        (Path(folder) / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz").read_bytes()
    )
    shape, (kind,) = struct.unpack("<8h", data[40:56])[1:4], struct.unpack("<h", data[70:72])
    start = int(struct.unpack("<f", data[108:112])[0])
    assert kind == 2, "unsigned 8 bits"
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape, order="F")[:, :, shape[2] // 2].T[::-1]


def pictures() -> dict[str, tuple[np.ndarray, str]]:
    """By name: the values that a user saves, and the form of the file."""
    ct, mr = dicom("CT_small.dcm"), dicom("examples_overlay.dcm")
    assert (ct.min(), ct.max(), mr.min(), mr.max()) == (128, 2191, 0, 1123)
    t1, retina = brain(), fundus("retina.jpg")
    return {
        "ct-16-bits": (ct.astype(np.uint16), "PNG"),  # as they are stored
        "ct-hounsfield": (ct - 1024, "TIFF"),
        "ct-12-bits": (np.clip(ct, 0, 4095).astype(np.uint16), "PNG"),
        "mr-12-bits": (mr.astype(np.uint16), "PNG"),  # 12 bits are stored
        "mr-small-16-bits": (dicom("MR_small.dcm").astype(np.uint16), "PNG"),
        "t1-8-bits": (t1, "PNG"),
        "t1-16-bits": (t1.astype(np.uint16) * 257, "PNG"),
        "t1-12-bits": (t1.astype(np.uint16) * 16, "PNG"),
        "t1-floats": ((t1 / 255).astype(np.float32), "TIFF"),
        "fundus-8-bits": (fundus("microaneurysms.png"), "PNG"),
        "fundus-colour": (retina[200:1000, 200:1000], "PNG"),
        "fundus-green-16-bits": (retina[200:1000, 200:1000, 1].astype(np.uint16) * 257, "PNG"),
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """(the saved pictures, the folder of the data stage that was made of them)."""
    folder, saved = tmp_path_factory.mktemp("pictures"), pictures()
    rows = []
    for name, (values, form) in saved.items():
        file = f"{name}.{form.lower()}"
        Image.fromarray(values).save(folder / file)
        rows.append({"id": name, "question": f"What is seen in {name}?", "options": ["a", "b"], "answer": "A",
                     "image": file, "image_modality": name.split("-")[0]})  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = medvlt(folder, "import", "rows.jsonl", "--out", "own", "--yes")
    assert done.returncode == 0, done.stderr[-2000:]
    sets = {"data.train_image": "own/questions.parquet", "data.test": "own/questions.parquet", "data.test_size": 100}
    done = medvlt(folder, "data", "--profile", "tiny", *settings(**sets))
    assert done.returncode == 0, done.stderr[-2000:]
    return saved, folder / "runs/tiny/01_data"


def read(stage, name: str) -> np.ndarray:
    """What the next stage sees of a picture: (rows, columns, 3) in 8 bits."""
    [question] = [q for q in read_questions(stage[1] / "test.parquet") if q.id == name]
    with Image.open(io.BytesIO(question.images[0])) as picture:
        assert picture.mode in ("RGB", "L")
        return np.asarray(picture.convert("RGB")).astype(int)


DEEP = [name for name, (values, _) in pictures().items() if values.dtype != np.uint8]


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_picture_is_scaled_and_not_clipped(name, stage):
    values = stage[0][name][0].astype(np.float64)
    seen = read(stage, name)
    low, high = values.min(), values.max()
    assert np.abs(seen - ((values - low) / (high - low) * 255)[..., None]).max() <= 0.5001
    assert (seen.min(), seen.max()) == (0, 255)
    flat, order = seen[..., 0].ravel(), np.argsort(values.ravel(), kind="stable")
    assert (np.diff(flat[order]) >= 0).all()  # what was brighter is not darker now
    brightest = values >= high - (high - low) / 255
    assert (flat == 255).mean() <= brightest.mean()  # white is what was brightest, and no more
    if values.dtype != np.float32 and high > 255:
        assert (np.minimum(values, 255) == 255).mean() > 3 * (flat == 255).mean()  # clipped, far more would be white


@pytest.mark.parametrize("name", ["t1-8-bits", "fundus-8-bits", "fundus-colour"])
def test_an_8_bit_picture_stays_as_it_is(name, stage):
    values = stage[0][name][0]
    assert (read(stage, name) == (values if values.ndim == 3 else values[..., None])).all()


def test_one_slice_looks_the_same_however_deep_it_was_saved(stage):
    """The template's slice holds 0 and less than 255: with 8 bits it stays, deeper it is stretched to its own range."""
    plain = read(stage, "t1-8-bits")
    deep = [read(stage, f"t1-{depth}") for depth in ("12-bits", "16-bits", "floats")]
    stretched = plain * 255 / plain.max()
    assert all(np.abs(one - stretched).max() <= 0.5001 for one in deep)


def test_the_card_states_the_rule_and_how_many_pictures_it_changed(stage):
    card = json.loads((stage[1] / "data_card.json").read_text())
    different = {name: tuple(map(bytes, read(stage, name))) for name in DEEP}
    assert card["test"]["pictures_changed"] == {DEPTH: len(set(different.values()))}
    assert CHANGES[DEPTH] in (stage[1] / "data_card.md").read_text()
