"""Rows survive the round trip; what is not a row is refused with a sentence and nothing is half-written."""

import dataclasses
import os

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.images import load_image, pixel_id
from medvlt_lib.core.records import Question, count_questions, read_questions, write_questions
from medvlt_lib.phantom.questions import make_questions

ROW = {"id": "q", "dataset": "d", "split": "test", "modality": "text", "question": "?", "options": {"A": "x", "B": "y"}}


def test_parquet_round_trip_keeps_images_and_noise(tmp_path):
    questions = make_questions("curb65,nodule_count", "train", 6, label_noise=0.5)
    write_questions(questions, tmp_path / "q.parquet")
    assert read_questions(tmp_path / "q.parquet") == questions


def test_jsonl_round_trip_for_text_and_refusal_of_image_bytes(tmp_path):
    questions = make_questions("text", "test", 8)
    write_questions(questions, tmp_path / "q.jsonl")
    assert read_questions(tmp_path / "q.jsonl") == questions
    with pytest.raises(UserError, match="parquet"):
        write_questions(make_questions("nodule_count", "test", 1), tmp_path / "i.jsonl")
    assert not (tmp_path / "i.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"answer_label": "C", "answer": "x"}, "answer_label"),
        ({"answer_label": "A", "answer": "y"}, "answer_label"),
        ({"answer_label": "A", "answer": "x", "options": {"A": "x", "C": "y"}}, "letters"),
        ({"answer_label": "A", "answer": "x", "options": {"A": "x"}}, "two"),
        ({"answer_label": "A", "answer": "x", "modality": "sound"}, "sound"),
        ({"answer_label": "A", "answer": "x", "modality": "image"}, "images"),
    ],
)
def test_impossible_questions_are_refused(change, word):
    with pytest.raises(UserError, match=word):
        Question(**{**ROW, **change})


def test_torn_missing_and_foreign_files(tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 half a file")
    (tmp_path / "foreign.jsonl").write_text('{"prompt": "x"}\n')
    for name, word in (("torn.parquet", "torn"), ("none.parquet", "no file"), ("foreign.jsonl", "prompt")):
        with pytest.raises(UserError, match=word):
            read_questions(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")

    def fail(temporary):
        with open(temporary, "w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space"):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_pixel_id_is_of_the_picture_not_the_file():
    question = make_questions("lesion_site", "test", 1)[0]
    picture = load_image(question.images[0])
    assert pixel_id(picture) == question.image_ids[0]
    picture.putpixel((0, 0), (1, 2, 3))
    assert pixel_id(picture) != question.image_ids[0]


def test_unreadable_image_is_a_sentence():
    with pytest.raises(UserError, match="cannot read the image"):
        load_image(b"not a picture")


def test_replace_checks_again():
    question = make_questions("curb65", "test", 1)[0]
    with pytest.raises(UserError):
        dataclasses.replace(question, answer="no such option")


def test_groups_and_clusters():
    worded, drawn = make_questions("cardiothoracic_ratio,curb65", "test", 2)
    assert (drawn.group, drawn.cluster) == ("cardiothoracic_ratio", drawn.image_ids[0])
    assert (worded.group, worded.cluster) == ("curb65", worded.id)
    assert dataclasses.replace(worded, family=None).group == "phantom"


def test_a_file_is_counted_without_reading_it(tmp_path):
    questions = make_questions("text", "test", 8)
    for name in ("q.parquet", "q.jsonl"):
        write_questions(questions, tmp_path / name)
        assert count_questions(tmp_path / name) == 8
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(UserError, match="torn"):
        count_questions(tmp_path / "torn.parquet")


def test_a_torn_jsonl_line_is_named_and_odd_line_ends_are_none(tmp_path):
    question = dataclasses.replace(make_questions("text", "test", 1)[0], question="first\u2028second\u0085third")
    write_questions([question, question], tmp_path / "q.jsonl")
    assert read_questions(tmp_path / "q.jsonl") == [question, question]
    with open(tmp_path / "q.jsonl", "a") as file:
        file.write('{"id": "half')
    with pytest.raises(UserError, match=r"q\.jsonl, line 3 is torn"):
        read_questions(tmp_path / "q.jsonl")
