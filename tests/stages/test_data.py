"""The data stage decodes a picture once, and its card says what was done to pictures and what they cost in tokens."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.files import read_json
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import read_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.loading import profile_processor
from medvlt_lib.rollout.engine import prompts_of
from medvlt_lib.stages import data as stage
from medvlt_lib.tools.import_file import import_files

SMALL = {f"data.{name}_size": 4 for name in ("train_text", "validation", "test")}
TEXT_ONLY = {f"data.{name}": "phantom:apgar" for name in ("validation", "test")}


def write_film(path, seed: int, form: str = "PNG", **kwargs) -> None:
    """A 12-bit film of its own."""
    values = np.random.default_rng(seed).integers(100, 4096, (40, 60)).astype(np.uint16)
    Image.fromarray(values).save(path, form, **kwargs)


def rows(names) -> list[dict]:
    return [{"question": f"Which is {n}?", "options": ["a", "b"], "answer": "A", "images": [n]} for n in names]


def write_jsonl(path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def decodings(monkeypatch):
    """How often a picture is decoded, counted where Pillow opens one."""
    opened = []
    whole = Image.open

    def counting(*args, **kwargs):
        opened.append(args)
        return whole(*args, **kwargs)

    monkeypatch.setattr(Image, "open", counting)
    return opened


def test_a_picture_is_decoded_once(tmp_path, monkeypatch, decodings):
    """Also where a picture is scaled, resized, held out, or its question is dropped as a leak."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "mirror" / "UCSC-VLAA" / "MedVLThinker-pmc_vqa"
    (home / "images").mkdir(parents=True)
    for i in range(20):
        write_film(home / "images" / f"{i}.png", i)
    Image.new("RGB", (1600, 200), "red").save(home / "images" / "wide.png")
    published = [
        {
            **row,
            "options": json.dumps({"A": "a", "B": "b"}),
            "answer_label": "A",
            "answer": "a",
            "dataset_name": "pmc_vqa",
            "dataset_index": i,
            "reasoning": None,
        }
        for i, row in enumerate(rows([*(f"{i}.png" for i in range(20)), "wide.png"]))
    ]
    write_jsonl(home / "train.jsonl", published)
    source = "hub:UCSC-VLAA/MedVLThinker-pmc_vqa"
    settings = {
        **SMALL,
        "data.train_image": source,
        "data.train_image_size": 1000,
        "data.validation": "split:train_image",
        "data.test": source,
        "data.mirror": "mirror",
        "data.drop_leaks": True,
    }
    monkeypatch.setattr(
        "medvlt_lib.core.plot_drawings.load_image", lambda image: Image.new("RGB", (9, 9))
    )  # the sample sheet
    counts = stage.run(open_run("tiny", "once", settings))
    assert counts["validation"] == 4 and counts["train_image"] < 17  # the test set is a part of the training set
    assert len(decodings) == 21 + 4


def test_the_card_says_what_was_done_to_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turned = Image.Exif()
    turned[0x0112] = 6
    write_film("deep.png", 1)
    write_film("deep and turned.png", 2, exif=turned)
    Image.new("RGBA", (50, 50), (9, 9, 9, 128)).save("glass.png")
    Image.new("RGB", (50, 50), "red").save("plain.png")
    names = ["deep.png", "deep and turned.png", "glass.png", "plain.png"]
    write_jsonl(tmp_path / "films.jsonl", rows([*names, "deep.png"]))
    import_files([tmp_path / "films.jsonl"], tmp_path / "films", [], None, None)
    run = open_run(
        "tiny",
        "card",
        {**SMALL, **TEXT_ONLY, "data.train_image": "films/questions.parquet", "data.train_image_size": 9},
    )
    stage.run(run)
    card = read_json(run.folder / "01_data/data_card.json")["train_image"]
    assert card["images"] == 4  # one of them in two questions
    assert card["pictures_changed"] == {"bit depth": 2, "orientation": 1, "transparency": 1}
    text = (run.folder / "01_data/data_card.md").read_text()
    assert "bit depth, 2 pictures: a picture of one channel" in text and "laid on white" in text
    kept = read_questions(run.folder / "01_data/train_image.parquet")
    for question in kept:
        assert Image.open(io.BytesIO(question.images[0])).mode == "RGB"
    assert [load_image(q.images[0]).size for q in kept] == [(60, 40), (40, 60), (50, 50), (50, 50), (60, 40)]


def test_a_question_file_with_paths_is_read_by_the_same_rules(tmp_path, monkeypatch):
    """A file that did not come from `medvlt import`: what had to change is kept in the run, the rest stays a path."""
    monkeypatch.chdir(tmp_path)
    write_film("deep.png", 1)
    Image.new("RGB", (50, 50), "red").save("plain.png")
    question = {
        "dataset": "own",
        "split": "train",
        "modality": "image",
        "question": "?",
        "options": {"A": "a", "B": "b"},
        "answer_label": "A",
        "answer": "a",
    }
    images = [{"bytes": None, "path": name} for name in ("deep.png", "plain.png")]
    write_jsonl(
        tmp_path / "own.jsonl", [{**question, "id": str(i), "images": [image]} for i, image in enumerate(images)]
    )
    run = open_run("tiny", "own", {**SMALL, **TEXT_ONLY, "data.train_image": "own.jsonl", "data.train_image_size": 9})
    stage.run(run)
    deep, plain = read_questions(run.folder / "01_data/train_image.parquet")
    assert Image.open(io.BytesIO(deep.images[0])).getextrema() == ((0, 255),) * 3
    assert plain.images == ["plain.png"] and len(plain.image_ids) == 1


@pytest.mark.parametrize("max_pixels", [None, 54 * 28 * 28])
def test_tokens_an_image_are_those_of_the_prompt(tmp_path, monkeypatch, max_pixels):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (1008, 756), "red").save("large.png")
    write_jsonl(tmp_path / "large.jsonl", rows(["large.png"]))
    import_files([tmp_path / "large.jsonl"], tmp_path / "large", [], None, None)
    settings = {**SMALL, **TEXT_ONLY, "data.train_image": "large/questions.parquet", "model.max_pixels": max_pixels}
    run = open_run("tiny", "large", settings)
    stage.run(run)
    card = read_json(run.folder / "01_data/data_card.json")["train_image"]
    processor = profile_processor(load_profile("tiny", {"model.max_pixels": max_pixels}))
    [question] = read_questions(run.folder / "01_data/train_image.parquet")
    [prompt] = prompts_of([question])
    text = processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
    ids = processor(text=[text], images=[load_image(question.images[0])]).input_ids[0]
    tokens = ids.count(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    assert card["image_tokens"]["median"] == tokens and (max_pixels is None or tokens == 48)
