"""medvlt import: anybody's files become questions; what cannot is named with file, row and column."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import read_questions
from medvlt_lib.tools.import_file import import_files

GOOD = {"question": "Which organ?", "options": {"A": "Heart", "B": "Lung"}, "answer": "B"}


def jsonl(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def imported(file, tmp_path, *maps, name="out"):
    counts = import_files([file], tmp_path / name, list(maps), None, "CC0")
    refused = tmp_path / name / "refused.jsonl"
    rows = [json.loads(line) for line in refused.read_text().splitlines()] if refused.exists() else []
    return read_questions(tmp_path / name / "questions.parquet"), rows, counts


def test_jsonl_in_many_forms(tmp_path):
    rows = [
        GOOD,
        {**GOOD, "options": '{"A": "Heart", "B": "Lung"}', "answer": "lung", "id": "mine", "dataset": "exam"},
        {**GOOD, "options": ["Heart", "Lung", "Liver"], "answer": "C", "reasoning": "Because."},
        {"stem": "Is the heart large?", "answer": "yes"},
        {"question": "Which?", "A": "x", "B": "y", "C": "z", "answer_index": 2},
    ]
    questions, refused, counts = imported(jsonl(tmp_path / "q.jsonl", rows), tmp_path)
    assert refused == [] and counts == {"read": 5, "kept": 5, "refused": 0}
    assert [q.answer for q in questions] == ["Lung", "Lung", "Liver", "Yes", "z"]
    assert (questions[1].id, questions[1].dataset, questions[0].dataset) == ("mine", "exam", "q")
    assert questions[2].reasoning == "Because." and questions[0].source["licence"] == "CC0"
    with gzip.open(tmp_path / "q.jsonl.gz", "wt") as file:
        file.write((tmp_path / "q.jsonl").read_text())
    again, _, _ = imported(tmp_path / "q.jsonl.gz", tmp_path, name="zipped")
    assert [q.question for q in again] == [q.question for q in questions]


def test_csv_with_a_mapping_and_image_paths(tmp_path):
    Image.new("RGB", (2000, 500)).save(tmp_path / "wide.png")
    (tmp_path / "q.csv").write_text(
        'nr,stem,opa,opb,right,file\n1,"Big, or small?",big,small,big,wide.png\n2,Other?,x,y,y,\n'
    )
    maps = ("id=nr", "question=stem", "options=opa,opb", "answer=right", "images=file")
    questions, refused, _ = imported(tmp_path / "q.csv", tmp_path, *maps)
    assert refused == []
    assert questions[0].question == "Big, or small?" and questions[0].answer_label == "A"
    assert load_image(questions[0].images[0]).size == (1024, 256)
    assert (questions[0].modality, questions[1].modality) == ("image", "text")


def test_parquet_with_image_bytes(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    rows = [{**GOOD, "options": json.dumps(GOOD["options"]), "images": [{"bytes": buffer.getvalue(), "path": None}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    [question], _, _ = imported(tmp_path / "q.parquet", tmp_path)
    assert question.images == [buffer.getvalue()]  # within the limits: the very bytes


def test_every_refused_row_is_named_and_the_good_ones_are_kept(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    Image.new("1", (10000, 10000)).save(tmp_path / "bomb.png")
    bad = [
        ("{torn", "(all)", "not JSON"),
        ({**GOOD, "question": " "}, "question", "no question"),
        ({**GOOD, "answer": "E"}, "answer", "'E' names no option"),
        ({**GOOD, "options": {"A": "x", "C": "y"}}, "options", "letters are"),
        ({**GOOD, "options": None}, "options", "no options"),
        ({**GOOD, "answer_index": 7}, "answer_index", "no number from 0 to 1"),
        ({**GOOD, "image": "nowhere.png"}, "image", "nowhere.png cannot be read"),
        ({**GOOD, "image": "torn.png"}, "image", "cannot read the image"),
        ({**GOOD, "image": "bomb.png"}, "image", "too many pixels"),
        ({**GOOD, "id": "q-1"}, "id", "given before"),
        ({**GOOD, "reasoning": 5}, "reasoning", "is not text"),
        ({**GOOD, "question": "half \ud83d"}, "question", "no UTF-8"),
        ({**GOOD, "image": "nul\u0000.png"}, "image", "cannot be read"),
        ({**GOOD, "options": {"A": "Heart", "B": ""}}, "options", "option B is ''"),
        ({**GOOD, "options": [{"letter": "A"}, {"letter": "B"}]}, "options", "give it a text"),
        ({**GOOD, "answer": None}, "answer_label", "the answer is missing"),
        ({**GOOD, "answer_label": "A", "answer": "Lung"}, "answer", "is not option A"),
        ("[" * 100_000, "(all)", "not JSON"),
    ]
    questions, refused, counts = imported(jsonl(tmp_path / "q.jsonl", [GOOD, *(b for b, _, _ in bad), GOOD]), tmp_path)
    assert [q.id for q in questions] == ["q-1", "q-20"]
    assert [(r["row"], r["column"]) for r in refused] == [(i + 2, column) for i, (_, column, _) in enumerate(bad)]
    assert all(why in r["why"] for r, (_, _, why) in zip(refused, bad, strict=True))
    assert counts == {"read": 20, "kept": 2, "refused": 18}


def test_labels_as_people_write_them(tmp_path):
    rows = [{**GOOD, "answer": a} for a in ("b", "B.", "(B)", "lung")] + [
        {"question": "?", "options": ["x", "y"], "answer_index": 1.0}
    ]
    questions, refused, _ = imported(jsonl(tmp_path / "q.jsonl", rows), tmp_path)
    assert refused == [] and {q.answer_label for q in questions} == {"B"}


def test_rows_of_two_files_of_one_name_keep_apart(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        jsonl(tmp_path / folder / "q.jsonl", [GOOD, GOOD])
    counts = import_files([tmp_path / "a/q.jsonl", tmp_path / "b/q.jsonl"], tmp_path / "out", [], None, None)
    assert counts == {"read": 4, "kept": 4, "refused": 0}


def test_quotes_left_open_in_a_csv_are_not_swallowed_silently(tmp_path):
    (tmp_path / "q.csv").write_text('question,A,B,answer\nq1,x,y,A\nq2,"x,y,A\nq3,x,y,A\nq4,"x,y,A\nq5,x,y,A\n')
    questions, refused, counts = imported(tmp_path / "q.csv", tmp_path)
    assert counts["refused"] and all("\n" not in text for q in questions for text in q.options.values())
    (tmp_path / "latin.csv").write_bytes("question,A,B,answer\nq1,x,y,A\nq\xe9,x,y,A\nq3,x,y,A\n".encode("latin-1"))
    questions, [refused], _ = imported(tmp_path / "latin.csv", tmp_path, name="latin")
    assert [q.question for q in questions] == ["q1", "q3"] and refused["row"] == 2


def test_a_file_that_tears_half_way_keeps_its_good_rows(tmp_path):
    packed = gzip.compress(
        "".join(
            json.dumps({**GOOD, "question": f"Which organ {i * 7919 % 1000}?"}) + "\n" for i in range(3000)
        ).encode()
    )
    (tmp_path / "q.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    questions, refused, _ = imported(tmp_path / "q.jsonl.gz", tmp_path)
    assert 100 < len(questions) < 3000
    assert "torn here" in refused[-1]["why"]


@pytest.mark.parametrize(
    ("make", "maps", "message"),
    [
        (lambda p: p / "none.jsonl", [], "there is no file"),
        (lambda p: jsonl(p / "q.txt", [GOOD]), [], "is not a .jsonl"),
        (
            lambda p: jsonl(p / "q.jsonl", [{"x": 1}]),
            [],
            "no row .* could be imported; the first: .*row 1, column question",
        ),
        (lambda p: jsonl(p / "q.jsonl", [GOOD]), ["stem"], "FIELD=COLUMN"),
        (lambda p: jsonl(p / "q.parquet", ["no parquet"]), [], "q.parquet cannot be read"),
    ],
)
def test_what_stops_everything_is_a_sentence(tmp_path, make, maps, message):
    with pytest.raises(UserError, match=message):
        import_files([make(tmp_path)], tmp_path / "out", maps, None, None)
    assert not (tmp_path / "out" / "questions.parquet").exists()


def test_the_exit_code_tells(tmp_path):
    jsonl(tmp_path / "q.jsonl", [GOOD, {**GOOD, "answer": "E"}])
    done = CliRunner().invoke(app, ["import", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    with pytest.raises(UserError, match="exists; choose another --out"):
        import_files([tmp_path / "q.jsonl"], tmp_path / "out", [], None, None)
