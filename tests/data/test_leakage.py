"""The leakage check finds copies and near-copies, of words and of pictures, and nothing else."""

import io
import json
import random
from dataclasses import replace

import pytest
from PIL import Image
from rapidfuzz import fuzz, process

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Question, read_questions, write_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.data.leakage import (
    FAR,
    Fingerprint,
    find_leaks,
    fingerprint,
    leak_table,
    perceptual_hash,
    picture_groups,
)
from medvlt_lib.data.pictures import fit_image
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import data as stage


def text(name, words, options=("Heart", "Lung", "Liver", "Bowel"), label="B"):
    options = dict(zip("ABCD", options, strict=True))
    return Question(name, "set", "test", "text", words, options, label, options[label])


def image(name, encoded, words="What is shown?"):
    picture = fit_image(encoded)
    return Question(
        name,
        "pictures",
        "test",
        "image",
        words,
        {"A": "Cyst", "B": "Mass"},
        "B",
        "Mass",
        images=[picture.encoded],
        image_ids=[picture.pixel_id],
    )


def scene(seed) -> Image.Image:
    """A picture with soft blobs, as unlike another seed's as two photographs are."""
    rng = random.Random(seed)
    small = Image.new("L", (9, 7))
    small.putdata([rng.randrange(256) for _ in range(63)])
    return small.resize((360, 280), Image.Resampling.BICUBIC).convert("RGB")


def encode(picture, form="PNG", size=None, **kwargs) -> bytes:
    buffer = io.BytesIO()
    (picture.resize(size) if size else picture).save(buffer, form, **kwargs)
    return buffer.getvalue()


def leaks(train, test):
    found = find_leaks(map(fingerprint, train), [fingerprint(q) for q in test])
    return [(leak["train_id"], leak["test_id"], leak["how"]) for leak in found]


VIGNETTE = (
    "A 67-year-old man comes to the physician because of a two-day history of ringing in his ear after chemotherapy. "
    "What did the drug do?"
)


def test_words():
    test = [text("t1", VIGNETTE), text("t2", "Which organ pumps blood?")]
    near = VIGNETTE.replace("67-year-old", "68 year old")
    assert leaks([text("same", VIGNETTE.upper(), ("Liver", "Bowel", "Heart", "Lung"), "D")], test) == [
        ("same", "t1", "exact text")
    ]
    assert leaks([text("near", near)], test) == [("near", "t1", "near text")]
    assert leaks(
        [text("stem", VIGNETTE, ("Inhibits the proteasome", "Frees radicals", "Links DNA", "Binds"))], test
    ) == [("stem", "t1", "same stem")]
    assert leaks([text("other", "Which organ makes bile?", ("Heart", "Lung", "Liver", "Brain"))], test) == []


def test_minhash_proposes_what_comparing_every_pair_finds():
    rng = random.Random(1)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randrange(3, 9))) for _ in range(2000)]
    sentence = lambda: " ".join(rng.choice(words) for _ in range(rng.randrange(15, 60)))  # noqa: E731
    test = [Fingerprint(f"t{i}", "set", "text", s := sentence(), s) for i in range(150)]

    def noisy(t):
        spoiled = list(t.words)
        for i in rng.sample(range(len(spoiled)), int(rng.choice([0.01, 0.03, 0.045, 0.08]) * len(spoiled))):
            spoiled[i] = rng.choice("xyz")
        return "".join(spoiled)

    train = [Fingerprint(f"r{i}", "set", "text", s := noisy(t), s) for i, t in enumerate(test)]
    every = {
        t.id for t in train if process.extractOne(t.words, [x.words for x in test], scorer=fuzz.ratio, score_cutoff=95)
    }
    found = {leak["train_id"] for leak in find_leaks(train, test) if leak["how"] == "near text"}
    assert 60 < len(every) < 150
    assert found <= every and len(found) >= 0.98 * len(every)


def test_pictures():
    test = [image(f"t{i}", encode(scene(i))) for i in range(20)]
    copy = encode(scene(3), "JPEG", (250, 195), quality=70)
    assert leaks([image("pixels", encode(scene(3), "BMP"))], test) == [("pixels", "t3", "same image")]
    assert leaks([image("copy", copy, "Other words?")], test) == [("copy", "t3", "near image")]
    assert (
        leaks([image(f"r{i}", encode(scene(100 + i))) for i in range(20)], test) == []
    )  # the same words of other pictures
    shared = [image("u", encode(scene(3)), "First?"), image("v", encode(scene(3)), "Second?")]
    assert {t for _, t, _ in leaks([image("pixels", encode(scene(3)))], shared)} == {"u", "v"}
    plain = [encode(Image.new("RGB", (60, 60), colour)) for colour in ("red", "blue")]
    assert leaks([image("red", plain[0])], [image("blue", plain[1])]) == []


def test_perceptual_hash_bands_miss_nothing_within_the_distance():
    value = perceptual_hash(encode(scene(0)))
    rng = random.Random(0)
    for bits in range(FAR + 3):
        other = value
        for bit in rng.sample(range(256), bits):
            other ^= 1 << bit
        test = [Fingerprint("t", "set", "image", "w", "w", ("x",), (other,))]
        found = list(find_leaks([Fingerprint("r", "set", "image", "v", "v", ("y",), (value,))], test))
        likeness = [] if bits > FAR else [round((256 - bits) / 256 * 100, 1)]
        assert [row["score"] for row in found] == likeness  # the more alike, the higher, as for words


def test_table_counts_pairs_and_both_sides():
    leak = {"train_set": "train_text", "test_set": "test", "test_id": "t1", "how": "near text", "score": 96}
    leaks = [{**leak, "train_id": i} for i in "ab"] + [
        {**leak, "test_set": "validation", "test_id": "v", "train_id": "a"}
    ]
    held_out = {
        "validation": [Fingerprint("v", "medmcqa", "text", "", "")],
        "test": [Fingerprint("t1", "medqa", "text", "", ""), Fingerprint("t2", "medqa", "text", "", "")],
    }
    validation, test = leak_table(leaks, {"train_text": 10}, held_out)
    assert (test["near text"], test["flagged_train"], test["hit_test"], test["of_test"]) == (2, 2, 1, 2)
    assert (validation["test_set"], validation["test"], validation["near text"]) == ("validation", "medmcqa", 1)


@pytest.fixture
def run_with_leaks(tmp_path, monkeypatch):
    """Files of phantom questions with one planted near-duplicate and one re-encoded, smaller picture."""
    monkeypatch.chdir(tmp_path)
    texts, images = (
        make_questions("glasgow_coma_scale", "train", 30, seed=1),
        make_questions("lesion_site", "train", 20, seed=1),
    )
    planted = text("planted", VIGNETTE)
    small = encode(load_image(images[4].images[0]), "JPEG", (90, 90), quality=80)
    test = [text("t", VIGNETTE.replace("two-day", "2-day")), image("u", small)]
    for name, rows in (("text", [*texts, planted]), ("image", images), ("test", test)):
        write_questions(rows, tmp_path / f"{name}.parquet")

    def make(**settings):
        files = {"data.train_text": "text.parquet", "data.train_image": "image.parquet", "data.test": "test.parquet"}
        sizes = {f"data.{n}_size": 100 for n in ("train_text", "train_image", "test")}
        run = open_run("tiny", settings.pop("name"), {**files, **sizes, "data.validation_size": 5, **settings})
        return run, stage.run(run)

    return make, images[4].id


def test_planted_leaks_are_in_the_card_and_dropped_on_demand(run_with_leaks):
    make, copied = run_with_leaks
    run, counts = make(name="left")
    flagged = [json.loads(line) for line in (run.folder / "01_data/leaks.jsonl").read_text().splitlines()]
    assert {(f["train_set"], f["train_id"], f["test_id"], f["how"]) for f in flagged} >= {
        ("train_text", "planted", "t", "near text"),
        ("train_image", copied, "u", "near image"),
    }
    assert counts["train_text"] == 31
    card = (run.folder / "01_data/data_card.md").read_text()
    assert "| train_text | 31 | test | set | 1 | 0 | 1 |" in card and "They were left in" in card
    run, counts = make(name="dropped", **{"data.drop_leaks": True})
    ids = {q.id for n in ("train_text", "train_image") for q in read_questions(run.folder / f"01_data/{n}.parquet")}
    assert not ids & {"planted", copied} and counts["train_text"] == 30
    assert "They were dropped" in (run.folder / "01_data/data_card.md").read_text()


def test_validation_is_held_out_of_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_questions(make_questions("text", "train", 40, seed=8), tmp_path / "text.parquet")
    settings = {
        "data.train_text": "text.parquet",
        "data.train_text_size": 30,
        "data.validation": "split:train_text",
        "data.validation_size": 10,
    }
    run = open_run("tiny", "split", settings)
    assert stage.run(run) == {"train_text": 20, "train_image": 240, "validation": 10, "test": 400}
    train, held = (read_questions(run.folder / f"01_data/{n}.parquet") for n in ("train_text", "validation"))
    assert not {q.id for q in train} & {q.id for q in held}


def test_groups_of_pictures_are_those_that_can_be_reached_from_one_to_another():
    shown = {"a": "x", "b": "y", "c": "xz", "d": "", "e": "w", "f": "zw", "g": "y", "h": ""}
    questions = [Fingerprint(name, "set", "image", "", "", tuple(pictures)) for name, pictures in shown.items()]
    assert sorted(picture_groups(questions)) == [["a", "c", "e", "f"], ["b", "g"], ["d"], ["h"]]
    assert picture_groups([Fingerprint("t", "set", "text", "", "")]) == [["t"]]


SMALL = {f"data.{name}_size": 5 for name in ("train_text", "test")}


def several_questions_a_picture(pictures: int, each: int) -> list[Question]:
    made = [image(f"p{i}", encode(Image.new("RGB", (40, 40), (i, 0, 99)))) for i in range(pictures)]
    return [replace(q, id=f"{q.id}-{k}", question=f"What is shown in view {k}?") for q in made for k in range(each)]


def test_validation_holds_whole_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_questions(several_questions_a_picture(10, 3), tmp_path / "image.parquet")
    settings = {
        "data.train_image": "image.parquet",
        "data.train_image_size": 100,
        "data.validation": "split:train_image",
        **SMALL,
    }

    def split(name, **changes):
        run = open_run("tiny", name, {**settings, "data.validation_size": 10, **changes})
        counts = stage.run(run)
        sides = [read_questions(run.folder / f"01_data/{n}.parquet") for n in ("train_image", "validation")]
        return counts, [[q.id for q in side] for side in sides], [{q.cluster for q in side} for side in sides]

    counts, ids, (trained, held_out) = split("one")
    assert (counts["train_image"], counts["validation"]) == (
        21,
        9,
    )  # never more than asked for: whole pictures of three
    assert not trained & held_out and len(trained | held_out) == 10
    assert split("two")[1] == ids != split("three", **{"data.seed": 5})[1]
    with pytest.raises(UserError, match="at least 3 questions share a picture"):
        split("four", **{"data.validation_size": 2})


def test_training_is_also_compared_with_validation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_questions([text("planted", VIGNETTE), text("other", "Which organ makes bile?")], tmp_path / "text.parquet")
    write_questions([text("v", VIGNETTE.replace("two-day", "2-day"))], tmp_path / "validation.parquet")
    files = {"data.train_text": "text.parquet", "data.validation": "validation.parquet"}
    run = open_run("tiny", "left", {**files, **SMALL, "data.train_image_size": 5})
    stage.run(run)
    [leak] = [x for x in read_jsonl(run.folder / "01_data/leaks.jsonl") if x["train_id"] == "planted"]
    assert (leak["test_set"], leak["test_id"], leak["how"]) == ("validation", "v", "near text")
    assert "| train_text | 2 | validation | set | 1 | 0 | 1 |" in (run.folder / "01_data/data_card.md").read_text()
    run = open_run("tiny", "dropped", {**run.manifest["overrides"], "data.drop_leaks": True})
    assert stage.run(run)["train_text"] == 1


@pytest.mark.parametrize("split", ["split:trian_text", "split:train_image"])
def test_impossible_splits_are_a_sentence(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_profile("tiny")
    with pytest.raises(UserError, match="validation"):
        stage.run(open_run("tiny", "split", {"data.validation": split}))
