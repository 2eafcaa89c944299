"""Every published source from local files in its own columns, through the loading code that reads the Hub."""

import io
import json
import threading
import tracemalloc
import zipfile
from dataclasses import replace
from http.server import ThreadingHTTPServer

import datasets
import numpy as np
import pytest
from PIL import Image

from medvlt_lib.core.config import Data
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import write_questions
from medvlt_lib.data.archive import Archive
from medvlt_lib.data.closed import closed_options
from medvlt_lib.data.published import SOURCES
from medvlt_lib.data.readers import to_published
from medvlt_lib.data.rows import Refused
from medvlt_lib.data.sources import load_set
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.openai_engine import ChatClient
from tests.serving import QuietHandler


def png(width=64, height=48, colour="red", form="PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, form)
    return buffer.getvalue()


def picture(i: int, **kwargs) -> Image.Image:
    return Image.open(io.BytesIO(png(colour=(i % 256, i // 256, 80), **kwargs)))


def put(mirror, name, rows, file="data/train-00000-of-00001.parquet", images=None):
    """Write rows as a data set's copy under `mirror`, in the form in which the Hub serves it."""
    path = mirror / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".json", ".jsonl"):
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in rows))
        return
    table = datasets.Dataset.from_list(rows)
    for column in images or ():
        kind = datasets.Image() if not isinstance(rows[0][column], list) else datasets.Sequence(datasets.Image())
        table = table.cast_column(column, kind)
    if path.suffix == ".csv":
        table.to_csv(str(path))
    else:
        table.to_parquet(str(path))


def describe(mirror, source):
    """The README of a data set's copy, which names configurations and splits, as on the Hub."""
    lines = ["---", "configs:"]
    for config in source.configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {config}/{split}-*" for split in source.splits]
    (mirror / source.repo / "README.md").write_text("\n".join([*lines, "---", ""]))


def unified_row(i, name="medmcqa", images=None, **changes):
    options = {"A": "Heart", "B": "Lung", "C": "Liver", "D": f"Organ {i}"}
    return {
        "images": images,
        "question": f"Which organ is number {i}?",
        "options": json.dumps(options),
        "answer_label": "B",
        "answer": "Lung",
        "reasoning": f"Think {i}.",
        "dataset_name": name,
        "dataset_index": i,
        "hash": f"{i:016x}",
        "misc": None,
        **changes,
    }


def load(mirror, source, name="train_text", size=1000, **settings):
    tallies = []
    data = Data(**{name: f"hub:{source}", f"{name}_size": size, "mirror": str(mirror), **settings})
    return list(load_set(name, data, tallies)), tallies


def test_m23k_with_json_options_missing_reasoning_and_repeated_indices(tmp_path):
    rows = [unified_row(i, text="templated") for i in range(6)]
    rows[1]["reasoning"] = None
    rows[2]["dataset_index"] = 0  # an index that repeats, with another question
    rows.append(dict(rows[3]))  # the same row twice
    rows.append(unified_row(7, answer_label="F"))
    rows.append(unified_row(8, options="A or B"))
    rows.append(unified_row(9, answer="Heart"))
    put(tmp_path, "UCSC-VLAA/MedVLThinker-m23k-tokenized", rows)
    questions, [tally] = load(tmp_path, "UCSC-VLAA/MedVLThinker-m23k-tokenized")
    assert (
        len(questions) == len({q.id for q in questions}) == 7
    )  # repeated rows stay, as published, with ids of their own
    assert questions[1].reasoning is None
    assert (tally.read, tally.kept, dict(tally.dropped)) == (10, 7, {"answer_label": 1, "options": 1, "answer": 1})
    assert tally.examples["answer_label"] == "row 8: 'F' names no option of ['Heart', 'Lung', 'Liver', 'Organ 7']"
    assert [to_published(q, 0) for q in questions] == rows[:7]  # back without loss


@pytest.mark.parametrize("form", ["train.jsonl", "train.csv", "data/train-00000-of-00001.parquet"])
def test_the_form_of_a_local_copy_does_not_matter(tmp_path, form):
    put(tmp_path, "UCSC-VLAA/MedVLThinker-m23k-tokenized", [unified_row(i) for i in range(4)], form)
    questions, _ = load(tmp_path, "UCSC-VLAA/MedVLThinker-m23k-tokenized")
    assert [q.id for q in questions] == [f"medmcqa-{i}" for i in range(4)]
    assert questions[2].options["D"] == "Organ 2"


def test_pmc_vqa_images_are_fitted_and_a_part_is_a_part(tmp_path):
    sizes = [(64, 48), (2048, 512), (20, 10), (40, 3000)]
    rows = [
        unified_row(i, "pmc_vqa", [Image.open(io.BytesIO(png(w, h)))], reasoning=None) for i, (w, h) in enumerate(sizes)
    ]
    put(tmp_path, "UCSC-VLAA/MedVLThinker-pmc_vqa", rows, images=["images"])
    questions, [tally] = load(tmp_path, "UCSC-VLAA/MedVLThinker-pmc_vqa", "train_image")
    # shortest side to 28, else longest side to 1024, the two exclusive (resize_image.py)
    assert {load_image(q.images[0]).size for q in questions} == {(64, 48), (1024, 256), (56, 28), (14, 1024)}
    assert tally.changed["image size"] == 3
    part, [tally] = load(tmp_path, "UCSC-VLAA/MedVLThinker-pmc_vqa", "train_image", size=2)
    assert len(part) == 2 and tally.read == 2  # no more is read than is asked for
    assert to_published(questions[0], 0)["images"][0]["bytes"] == questions[0].images[0]


def test_an_evaluation_part_is_spread_over_its_sets(tmp_path):
    rows = [unified_row(i, "pathvqa_closed", [picture(i)]) for i in range(60)]
    rows += [unified_row(i, "slake_closed", [picture(i), picture(i + 1)]) for i in range(30)]
    rows += [
        unified_row(
            i, "MMMU-medical", [picture(i)], options=json.dumps(dict(zip("ABCDE", "vwxyz", strict=True))), answer="w"
        )
        for i in range(4)
    ]
    put(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", rows, "data/test-00000-of-00001.parquet", ["images"])
    part, _ = load(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", "test", size=24)
    names = [q.dataset for q in part]
    assert (names.count("MMMU-medical"), names.count("slake_closed"), names.count("pathvqa_closed")) == (4, 10, 10)
    again, _ = load(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", "test", size=24)
    other, _ = load(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", "test", size=24, seed=1)
    assert [q.id for q in part] == [q.id for q in again] != [q.id for q in other]
    assert all(len(q.images) == 2 for q in part if q.dataset == "slake_closed")
    assert all(len(q.options) == 5 for q in part if q.dataset == "MMMU-medical")
    whole, _ = load(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", "test")
    assert len(whole) == 94


def test_pmc_vqa_as_released_is_cleaned(tmp_path):
    good = {
        "Figure_path": "f1.jpg",
        "Question": " 'What is seen?' ",
        "Answer": " Lung ",
        "Answer_label": "B",
        "Choice A": " A:Heart ",
        "Choice B": " B:Lung\u00a0",
        "Choice C": ' C:"Liver"',
        "Choice D": " D: ratio 1:2 ",
    }
    bad = [
        {"Choice C": "Liver"},
        {"Choice A": " B:Heart"},
        {"Answer_label": "E"},
        {"Answer": "Heart"},
        {"Figure_path": "nowhere.jpg"},
    ]
    put(tmp_path, "RadGenome/PMC-VQA", [good, *({**good, **b} for b in bad)], "train.csv")
    (tmp_path / "RadGenome/PMC-VQA/images").mkdir()
    (tmp_path / "RadGenome/PMC-VQA/images/f1.jpg").write_bytes(png(form="JPEG"))
    [question], [tally] = load(tmp_path, "RadGenome/PMC-VQA", "train_image")
    assert question.question == "What is seen?"
    assert question.options == {"A": "Heart", "B": "Lung", "C": "Liver", "D": "ratio 1:2"}
    assert dict(tally.dropped) == {"Choice C": 1, "Choice A": 1, "Answer_label": 1, "Answer": 1, "images": 1}


def adapt(mirror, config, rows):
    put(mirror, "AdaptLLM/biomed-VQA-benchmark", rows, f"{config}/test-00000-of-00001.parquet", ["image"])


def closed(i, question, answer, kind="CLOSED"):
    return {"image": picture(i), "input": question, "label": answer, "answer_type": kind}


def test_six_benchmarks_from_their_own_homes(tmp_path):
    asked = "Question: What is shown?\nThe choices are:\n(A) CT\n(B) MRI\n(C) X-ray\n(D) PET"
    adapt(
        tmp_path,
        "PMC-VQA",
        [{"image": picture(0), "input": asked, "label": "B", "A": "CT", "B": "MRI", "C": "X-ray", "D": "PET"}],
    )
    adapt(tmp_path, "PathVQA", [closed(1, "Is it benign?", "yes"), closed(2, "What is it?", "a cyst", "OPEN")])
    adapt(tmp_path, "SLAKE", [closed(3, "Left or right?", "Left"), closed(4, "Is there a nodule?", "No")])
    adapt(tmp_path, "VQA_RAD", [closed(5, "Is the heart large?", "Yes")])
    for config in SOURCES["MMMU/MMMU"].configs:
        for split in ("validation", "dev"):
            row = {
                "id": f"{split}_{config}",
                "question": "See <image 1> and <image 2>: which?",
                "options": "['one', \"the other's\"]",
                "answer": "B",
                "question_type": "multiple-choice",
                "image_1": picture(6),
                "image_2": picture(7),
            }
            opened = {**row, "id": f"{split}_{config}_open", "question_type": "open"}
            put(
                tmp_path, "MMMU/MMMU", [row, opened], f"{config}/{split}-00000-of-00001.parquet", ["image_1", "image_2"]
            )
    describe(tmp_path, SOURCES["MMMU/MMMU"])
    expert = {
        "id": "MM-0",
        "question": "Which? Answer Choices: (A) a (B) b",
        "options": dict(zip("ABCDE", "abcde", strict=True)),
        "label": "E",
        "images": ["MM-0-a.jpeg", "MM-0-b.jpeg"],
        "medical_task": "Diagnosis",
        "body_system": "Skeletal",
        "question_type": "Reasoning",
    }
    put(tmp_path, "TsinghuaC3I/MedXpertQA", [expert], "MM/test.jsonl")
    with zipfile.ZipFile(tmp_path / "TsinghuaC3I/MedXpertQA/images.zip", "w") as archive:
        archive.writestr("images/MM-0-a.jpeg", png(form="JPEG"))
        archive.writestr("images/MM-0-b.jpeg", png(70, 50, form="JPEG"))
    questions, tallies = load(tmp_path, "six-benchmarks", "test")
    found = {q.dataset: q for q in questions}
    assert found["pmc_vqa"].question == "What is shown?" and found["pmc_vqa"].answer == "MRI"
    assert found["pathvqa_closed"].options == {"A": "Yes", "B": "No"} and found["pathvqa_closed"].answer_label == "A"
    assert found["slake_closed"].answer == "No"
    assert found["MMMU-medical"].question == "See  and : which?" and len(found["MMMU-medical"].images) == 2
    assert found["MMMU-medical"].answer == "the other's"
    assert found["MedXpertQA-MM"].question == "Which?" and [
        load_image(i).size for i in found["MedXpertQA-MM"].images
    ] == [
        (64, 48),
        (70, 50),
    ]
    kept = {t.name.rsplit("/", 1)[1]: (t.read, t.kept, dict(t.dropped)) for t in tallies}
    assert kept["MMMU"] == (20, 10, {"question_type": 10})
    assert kept["PathVQA"] == (2, 1, {"answer_type": 1})
    assert kept["SLAKE"] == (2, 1, {"options": 1})  # no endpoint: options of "Left or right?" cannot be had


def omni_row(i, subset, options=("Cyst", "Tumour", "Normal.", "Fracture")):
    return {
        "image": [f"images/x{i}.png"],
        "problem": "",
        "solution": "B",
        "question": "What is seen?",
        "options": list(options),
        "answer": options[1],
        "dataset": "OmniMedVQA",
        "subset": subset,
    }


def test_medvlm_r1_training_and_test_rows(tmp_path):
    subsets = ["MR (Mag-netic Resonance Imaging)", "CT(Computed Tomography)", "X-Ray", "Fundus Photography"]
    rows = [
        omni_row(i, subsets[i % 4], ("No, normal", "Yes") if i % 5 == 0 else ("Cyst", "Tumour", "Normal.", "Fracture"))
        for i in range(24)
    ]
    home = "FreedomIntelligence/Medical_Multimodal_Evaluation_Data"
    put(tmp_path, home, rows, "test.jsonl")
    put(tmp_path, "JZPeterPan/MedVLM-R1", rows, "MRI_CT_XRAY_300each_dataset.json")
    with zipfile.ZipFile(tmp_path / home / "images.zip", "w") as archive:
        for i in range(24):
            archive.writestr(f"images/x{i}.png", png(colour=(i, 0, 0)))
    train, _ = load(tmp_path, home, "train_image")
    assert {q.image_modality for q in train} == {"MRI"} and len(train) == 6
    assert {len(q.options) for q in train} == {2, 4}
    test, _ = load(tmp_path, "JZPeterPan/MedVLM-R1", "test", size=9)
    assert sorted(q.image_modality for q in test) == ["CT"] * 3 + ["MRI"] * 3 + ["X-ray"] * 3


def put_everywhere(mirror, source, row):
    """One row in every configuration and split of a published set's copy."""
    if source.configs != (None,):
        (mirror / source.repo).mkdir(parents=True)
        describe(mirror, source)
    for config in source.configs:
        for split in source.splits:
            file = (source.files or "").rpartition("/")[2] or f"{config or 'data'}/{split}-00000-of-00001.parquet"
            put(mirror, source.repo, [row], file)


@pytest.mark.parametrize("name", SOURCES)
def test_every_listed_set_finds_its_rows_and_refuses_those_of_another_kind(tmp_path, name):
    source = SOURCES[name]
    put_everywhere(tmp_path / "short", source, dict.fromkeys(source.columns[1:], "x"))
    with pytest.raises(UserError, match=f"has no column {source.columns[0]}; it has"):
        load(tmp_path / "short", name, "test")
    put_everywhere(tmp_path / "other", source, dict.fromkeys(source.columns, "x"))
    questions, [tally] = load(tmp_path / "other", name, "test")
    assert questions == []
    assert tally.read == sum(tally.dropped.values()) == len(source.configs) * len(source.splits)


def test_a_set_that_is_not_listed_is_read_in_medvlthinker_s_columns(tmp_path):
    put(tmp_path, "someone/bench", [unified_row(i) for i in range(3)], "data/test-00000-of-00001.parquet")
    questions, [tally] = load(tmp_path, "someone/bench", "test")
    rows = sorted((to_published(q, 0) for q in questions), key=lambda row: row["dataset_index"])
    assert rows == [unified_row(i) for i in range(3)]
    assert {q.source["name"] for q in questions} == {"someone/bench"} and tally.kept == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, "no folder"),
        (
            lambda folder: put(folder, "UCSC-VLAA/MedVLThinker-Eval", [{"q": "?"}], "test.jsonl"),
            "no column images; it has q",
        ),
        (
            lambda folder: put(folder, "UCSC-VLAA/MedVLThinker-Eval", [unified_row(0)], "train.jsonl"),
            "cannot read .*split",
        ),
    ],
)
def test_a_copy_that_cannot_be_read_is_a_sentence(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        load(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", "test")


def test_a_torn_parquet_is_a_sentence(tmp_path):
    put(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", [unified_row(0)], "data/test-00000-of-00001.parquet")
    path = tmp_path / "UCSC-VLAA/MedVLThinker-Eval/data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cannot read .*MedVLThinker-Eval"):
        load(tmp_path, "UCSC-VLAA/MedVLThinker-Eval", "test")


def test_without_a_network_the_hub_is_a_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    data = Data(test="hub:MMMU/MMMU@nowhere", test_size=5)
    with pytest.raises(UserError, match=r"cannot read MMMU/MMMU at revision nowhere .*data.mirror"):
        list(load_set("test", data, []))


def test_a_broken_image_drops_its_row_only(tmp_path):
    bomb = io.BytesIO()
    Image.new("1", (10000, 10000)).save(bomb, "PNG")
    rows = [unified_row(i, "pmc_vqa", None) for i in range(4)]
    for row, encoded in zip(rows, (png(), png()[:60], bomb.getvalue(), b"no image"), strict=True):
        row["images"] = [{"bytes": encoded, "path": None}]
    features = {"images": datasets.Sequence(datasets.Image(decode=False))}
    table = datasets.Dataset.from_list([{**r, "misc": ""} for r in rows])
    path = tmp_path / "UCSC-VLAA/MedVLThinker-pmc_vqa/data/train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    table.cast_column("images", features["images"]).to_parquet(str(path))
    questions, [tally] = load(tmp_path, "UCSC-VLAA/MedVLThinker-pmc_vqa", "train_image")
    assert [q.id for q in questions] == ["pmc_vqa-0"]
    assert tally.dropped["images"] == 3


def test_cells_of_another_kind_drop_their_row_only(tmp_path):
    rows = [closed(1, "Is it benign?", "yes"), closed(2, None, "yes"), closed(3, "Is it?", None)]
    adapt(tmp_path, "PathVQA", rows)
    questions, [tally] = load(tmp_path, "AdaptLLM/biomed-VQA-benchmark/PathVQA", "test")
    assert len(questions) == 1 and sum(tally.dropped.values()) == 2


def test_pictures_of_one_name_in_two_folders_keep_apart(tmp_path):
    home = "FreedomIntelligence/Medical_Multimodal_Evaluation_Data"
    rows = [
        {**omni_row(i, "MR (Mag-netic Resonance Imaging)"), "image": [f"images/{folder}/1.png"]}
        for i, folder in enumerate("ab")
    ]
    rows.append({**rows[0], "image": ["1.png"]})
    put(tmp_path, home, rows, "test.jsonl")
    with zipfile.ZipFile(tmp_path / home / "images.zip", "w") as archive:
        archive.writestr("images/a/1.png", png(50, 60))
        archive.writestr("images/b/1.png", png(70, 80))
    questions, [tally] = load(tmp_path, home, "train_image")
    assert [load_image(q.images[0]).size for q in questions] == [(50, 60), (70, 80)]
    assert "more than one 1.png" in tally.examples["images"]


def test_a_part_of_a_file_is_an_even_sample_in_its_order(tmp_path):
    path = tmp_path / "text.parquet"
    every = make_questions("text", "train", 40, seed=8)
    write_questions(every, path)
    part = list(load_set("train_text", Data(train_text=str(path), train_text_size=10, seed=3)))
    order = [[q.id for q in every].index(q.id) for q in part]
    assert order == sorted(order) and order != list(range(10))


def test_a_part_of_a_file_does_not_hold_the_file(tmp_path):
    [question] = make_questions("nodule_count", "train", 1)
    path = tmp_path / "image.parquet"
    encoded = [png() + bytes([i % 256]) * 40_000 for i in range(1500)]  # what follows a PNG is not read
    questions = (replace(question, id=str(i), images=[image]) for i, image in enumerate(encoded))
    write_questions(questions, path)
    data = Data(train_image=str(path), train_image_size=10)
    tracemalloc.start()
    assert sum(1 for _ in load_set("train_image", data)) == 10
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * sum(map(len, encoded))  # a row group of 500 is


@pytest.fixture
def secret(tmp_path) -> str:
    """A picture of this machine that no data set may bring into a run."""
    path = tmp_path / "private" / "secret.png"
    path.parent.mkdir()
    path.write_bytes(png(colour="black"))
    return str(path)


def test_a_row_cannot_name_a_file_outside_its_data_set(tmp_path, secret):
    name = "UCSC-VLAA/MedVLThinker-pmc_vqa"
    mirror = tmp_path / "mirror"
    home = mirror / name
    (home / "images").mkdir(parents=True)
    (home / "images" / "own.png").write_bytes(png())
    (home / "images" / "link.png").symlink_to(secret)
    paths = ["own.png", "images/own.png", str(home / "images" / "own.png"), "images/../images/own.png"]
    paths += [
        secret,
        "../../../private/secret.png",
        "images/../../../../private/secret.png",
        "link.png",
        "none.png",
        "x\0",
    ]
    rows = [unified_row(i, "pmc_vqa", [path]) for i, path in enumerate(paths)]
    put(mirror, name, rows, "train.jsonl")
    questions, [tally] = load(mirror, name, "train_image")
    assert sorted(q.id for q in questions) == [f"pmc_vqa-{i}" for i in range(4)]
    assert {q.images[0] for q in questions} == {png()} and tally.dropped["images"] == 6
    assert "cannot be read" in tally.examples["images"] or f"leads out of {home}" in tally.examples["images"]


def test_a_row_of_the_hub_cannot_name_a_file_of_this_machine(tmp_path, secret, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (secret, "private/secret.png", {"bytes": None, "path": secret}):
        with pytest.raises(Refused, match="holds images only in its rows"):
            Archive(SOURCES["UCSC-VLAA/MedVLThinker-pmc_vqa"], None).bytes_of(path)


def test_pictures_of_published_rows_are_made_readable_for_everyone(tmp_path):
    film = Image.fromarray((np.arange(48 * 64).reshape(48, 64) + 900).astype(np.uint16))
    encoded = io.BytesIO()
    film.save(encoded, "PNG")
    rows = [unified_row(i, "pmc_vqa", [{"bytes": b, "path": None}]) for i, b in enumerate((encoded.getvalue(), png()))]
    put(tmp_path, "UCSC-VLAA/MedVLThinker-pmc_vqa", rows)
    (deep, plain), [tally] = load(tmp_path, "UCSC-VLAA/MedVLThinker-pmc_vqa", "train_image")
    stored = Image.open(io.BytesIO(deep.images[0]))  # what another reader sees who knows nothing of our rules
    assert stored.mode == "RGB" and stored.getextrema() == ((0, 255),) * 3
    assert deep.extra["picture_changes"] == [["bit depth"]] and tally.changed["bit depth"] == 1
    assert plain.images == [png()] and "picture_changes" not in plain.extra


# --- options of closed questions, from a server ---


class Server(QuietHandler):
    """A local chat endpoint whose answers are scripted: an integer is an error status, a string an answer."""

    script: list = []
    asked: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.asked.append(body)
        step = Server.script.pop(0)
        status = step if isinstance(step, int) else 200
        message = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": step}}],
        }
        self.answer(status, json.dumps(message if status == 200 else {"error": {"message": "no"}}).encode())


@pytest.fixture
def client(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.script, Server.asked = [], []
    yield ChatClient(f"http://127.0.0.1:{server.server_port}/v1", "m", tmp_path / "cache", retries=2)
    server.shutdown()


def test_options_are_asked_for_validated_and_remembered(client):
    Server.script = [500, "no list", '["Left"]', '["top", "bottom"]', 'Sure: ["Left", "Right"]']
    assert closed_options("Is it left or right?", "left", client) == {"A": "Left", "B": "Right"}
    assert len(Server.asked) == 5
    assert closed_options("Is it left or right?", "left", client) == {"A": "Left", "B": "Right"}
    assert len(Server.asked) == 5  # from the cache
    assert closed_options("Is it there?", "yes", client) == {"A": "Yes", "B": "No"}
    Server.script = ["no list"] * 5
    with pytest.raises(Refused, match="5 attempts"):
        closed_options("Is it up or down?", "up", client)


def test_a_server_that_refuses_is_a_sentence(client):
    Server.script = [401]
    with pytest.raises(UserError, match="refuses the key; set OPENAI_API_KEY"):
        client.ask([{"role": "user", "content": "?"}])
    Server.script = [404]
    with pytest.raises(UserError, match="no model m"):
        client.ask([{"role": "user", "content": "?"}])
    Server.script = [400]
    with pytest.raises(UserError, match=r"answers 400 .*mend the request"):
        client.ask([{"role": "user", "content": "?"}])
    Server.script = [None]  # an answer without content
    assert client.ask([{"role": "user", "content": "empty"}]) == ""
    nobody = ChatClient("http://127.0.0.1:9/v1", "m", client.cache, retries=0)
    with pytest.raises(UserError, match="cannot be reached"):
        nobody.ask([{"role": "user", "content": "?"}])
