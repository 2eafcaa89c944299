"""medvlt import: anybody's files become questions; what cannot is named with file, row and column."""

import gzip
import io
import json
import os
from pathlib import Path

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


def imported(file, tmp_path, *maps, name="out", index_from=None):
    counts = import_files([file], tmp_path / name, list(maps), None, "CC0", index_from)
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
    questions, refused, counts = imported(jsonl(tmp_path / "q.jsonl", rows), tmp_path, index_from=0)
    assert refused == [] and counts == {"read": 5, "kept": 5, "refused": 0}
    assert [q.answer for q in questions] == ["Lung", "Lung", "Liver", "Yes", "z"]
    assert (questions[1].id, questions[1].dataset, questions[0].dataset) == ("mine", "exam", "q")
    assert questions[2].reasoning == "Because." and questions[0].source["licence"] == "CC0"
    with gzip.open(tmp_path / "q.jsonl.gz", "wt") as file:
        file.write((tmp_path / "q.jsonl").read_text())
    again, _, _ = imported(tmp_path / "q.jsonl.gz", tmp_path, name="zipped", index_from=0)
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
    questions, refused, _ = imported(jsonl(tmp_path / "q.jsonl", rows), tmp_path, index_from=0)
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
    done = CliRunner().invoke(app, ["import", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out"), "--yes"])
    assert done.exit_code == 1
    with pytest.raises(UserError, match="exists; choose another --out"):
        import_files([tmp_path / "q.jsonl"], tmp_path / "out", [], None, None)


MEDMCQA = [  # in the columns of its files, keys counted from 1
    {"id": f"m{i}", "question": f"Which organ {i}?", "opa": "Heart", "opb": "Lung", "opc": "Liver", "opd": "Skin"}
    | {"cop": i % 4 + 1, "choice_type": "single", "exp": "Known.", "subject_name": "Anatomy", "topic_name": None}
    for i in range(8)
]


def test_a_key_counted_from_1_is_never_read_from_0(tmp_path):
    file = jsonl(tmp_path / "train.json", MEDMCQA)
    with pytest.raises(UserError, match=r"column cop .*counted from 1.*--index-from 1"):
        import_files([file], tmp_path / "out", [], None, None)
    with pytest.raises(UserError, match="counted from 1"):
        import_files([file], tmp_path / "out", [], None, None, index_from=0)
    assert not (tmp_path / "out").exists()
    counts = import_files([file], tmp_path / "out", [], None, None, index_from=1)
    questions = read_questions(tmp_path / "out" / "questions.parquet")
    assert counts["refused"] == 0 and [q.answer_label for q in questions] == [*"ABCDABCD"]
    assert json.loads((tmp_path / "out" / "import.json").read_text())["index_from"] == 1
    other = jsonl(tmp_path / "zero.jsonl", [{**row, "cop": row["cop"] - 1} for row in MEDMCQA])
    with pytest.raises(UserError, match=r"counted from 0.*leave --index-from 1 out"):
        import_files([other], tmp_path / "zero", [], None, None, index_from=1)
    import_files([other], tmp_path / "zero", [], None, None)
    assert [q.answer_label for q in read_questions(tmp_path / "zero" / "questions.parquet")] == [*"ABCDABCD"]


@pytest.mark.parametrize(
    ("rows", "more", "labels", "options"),
    [
        # MedQA: options as an object, the answer as text and as a letter
        (
            [{**GOOD, "answer": "Lung", "answer_idx": "B", "meta_info": "step1"}],
            {},
            "B",
            ["Heart", "Lung"],
        ),
        # MMLU on the Hub: choices as a list, the answer counted from 0
        (
            [{"question": "?", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": i} for i in range(4)],
            {},
            "ABCD",
            ["w", "x", "y", "z"],
        ),
        # MMMU-Pro: options as Python writes a list (its pictures have a test of their own)
        (
            [{"id": "t1", "question": "Which?", "options": "['it\\'s x', 'y', \"z\"]", "answer": "C"}],
            {},
            "C",
            ["it's x", "y", "z"],
        ),
        # MedVLM-R1: options in the question's text, the answer in a tag
        (
            [{"problem": "Which organ is this? A) Heart, B) Lung, C) Liver", "solution": "<answer> B </answer>"}],
            {"options_in_question": True},
            "B",
            ["Heart", "Lung", "Liver"],
        ),
        ([{**GOOD, "options": ["A. Heart", "B. Lung"]}], {}, "B", ["Heart", "Lung"]),
        ([{**GOOD, "options": ["A. Heart", "Lung"]}], {}, "B", ["A. Heart", "Lung"]),
    ],
)
def test_known_columns_need_no_mapping(tmp_path, rows, more, labels, options):
    import_files([jsonl(tmp_path / "q.jsonl", rows)], tmp_path / "out", [], None, None, **more)
    questions = read_questions(tmp_path / "out" / "questions.parquet")
    assert "".join(q.answer_label for q in questions) == labels
    assert all(list(q.options.values()) == options for q in questions)
    assert not more or questions[0].question == "Which organ is this?"


def test_mmmu_pro_s_pictures_keep_their_order(tmp_path):
    colours = []
    for i, colour in enumerate(("red", "blue"), 1):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
        colours.append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
    row = {"id": "t", "question": "<image 1> or <image 2>?", "options": "['x', 'y']", "answer": "A"}
    row |= {"image_1": colours[0], "image_2": colours[1], "image_3": None, "explanation": ""}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "q.parquet")
    [question], _, _ = imported(tmp_path / "q.parquet", tmp_path)
    assert [load_image(image).getpixel((0, 0))[0] for image in question.images] == [255, 0]


def test_a_file_without_header_says_so_and_is_read_with_its_columns_named(tmp_path):
    (tmp_path / "anatomy_test.csv").write_text('"Which, of these?",heart,lung,liver,skin,B\nAnother?,w,x,y,z,D\n')
    with pytest.raises(UserError, match=r"Which, of these.*no header.*--columns question,A,B,C,D,answer"):
        import_files([tmp_path / "anatomy_test.csv"], tmp_path / "out", [], None, None)
    names = ["question", "A", "B", "C", "D", "answer"]
    import_files([tmp_path / "anatomy_test.csv"], tmp_path / "out", [], None, None, names=names)
    questions = read_questions(tmp_path / "out" / "questions.parquet")
    assert [(q.question, q.answer) for q in questions] == [("Which, of these?", "lung"), ("Another?", "z")]


def test_json_as_an_array_as_lines_and_by_id(tmp_path):
    decided = {
        f"{i}": {"QUESTION": f"Does {word} help?", "CONTEXTS": ["One.", "Two."], "final_decision": word}
        for i, word in enumerate(("yes", "no", "maybe"))
    }
    for name, text in {
        "id.json": json.dumps(decided, indent=1),
        "array.json": json.dumps([{"pubid": key, **row} for key, row in decided.items()]),
        "lines.json": "".join(json.dumps({"pubid": key, **row}) + "\n" for key, row in decided.items()),
        "held.json": json.dumps({"questions": list(decided.values())}),
    }.items():
        (tmp_path / name).write_text(text)
        questions, refused, _ = imported(tmp_path / name, tmp_path, name=name.split(".")[0])
        assert refused == [] and [q.answer for q in questions] == ["yes", "no", "maybe"]
        assert all(list(q.options.values()) == ["yes", "no", "maybe"] for q in questions)
        assert questions[1].question == "One.\nTwo.\n\nDoes no help?"
    assert {q.id for q in read_questions(tmp_path / "id" / "questions.parquet")} == {"0", "1", "2"}
    (tmp_path / "torn.json").write_text('[{"question": "Which')
    with pytest.raises(UserError, match=r"torn.json cannot be read"):
        import_files([tmp_path / "torn.json"], tmp_path / "torn", [], None, None)


def test_numbers_that_could_be_texts_or_count_options_are_asked_about(tmp_path):
    rows = [{"question": f"How many {i}?", "options": [0, 1, 2], "answer": i} for i in range(3)]
    with pytest.raises(UserError, match="column answer could count options or be their texts"):
        import_files([jsonl(tmp_path / "q.jsonl", rows)], tmp_path / "out", [], None, None)
    import_files([tmp_path / "q.jsonl"], tmp_path / "out", ["answer_index=answer"], None, None)
    assert [q.answer for q in read_questions(tmp_path / "out" / "questions.parquet")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("row", "column", "why"),
    [
        ({"question": "?", "opa": "x", "opb": "", "opc": "z", "cop": 0}, "opb", "letters would move"),
        ({"question": "?", "opa": "x", "opb": "y", "cop": -1}, "cop", "no number from 0 to 1"),
        ({"question": "?", "options": "['x', __import__('os')]", "answer": "A"}, "options", "not JSON"),
        ({**GOOD, "answer_index": 0, "answer": "Lung"}, "answer", "is not option A"),
        ({**GOOD, "CONTEXTS": 5}, "CONTEXTS", "is not text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_column(tmp_path, row, column, why):
    _, [refused], _ = imported(jsonl(tmp_path / "q.jsonl", [{**GOOD, "answer": "B"}, row]), tmp_path)
    assert (refused["row"], refused["column"]) == (2, column) and why in refused["why"]


def test_options_that_are_not_in_the_question_are_refused(tmp_path):
    rows = [{"question": "Which? A) x B) y", "answer": "A"}, {"question": "Which? B) x", "answer": "A"}]
    import_files([jsonl(tmp_path / "q.jsonl", rows)], tmp_path / "out", [], None, None, options_in_question=True)
    [refused] = [json.loads(line) for line in (tmp_path / "out" / "refused.jsonl").read_text().splitlines()]
    assert refused["row"] == 2 and "no options A, B" in refused["why"]


def test_a_preview_asks_before_anything_is_written(tmp_path):
    jsonl(tmp_path / "q.jsonl", [{**GOOD, "question": f"Which organ {i}?"} for i in range(5)])
    command = ["import", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out")]
    for answer in ("n\n", ""):
        done = CliRunner().invoke(app, command, input=answer)
        assert isinstance(done.exception, UserError) and "nothing was written" in str(done.exception)
        assert done.output.count("<- the key") == 3 and "B. Lung   <- the key" in done.output
        assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, command, input="y\n").exit_code == 0
    assert len(read_questions(tmp_path / "out" / "questions.parquet")) == 5


@pytest.mark.skipif("MEDVLT_REAL_DATA" not in os.environ, reason="not run: MEDVLT_REAL_DATA names no folder")
def test_pubmedqa_as_released_has_every_key_right(tmp_path):
    source = Path(os.environ["MEDVLT_REAL_DATA"]) / "pubmedqa/data/ori_pqal.json"
    rows = json.loads(source.read_text())
    questions, refused, _ = imported(source.resolve(), tmp_path)
    assert refused == [] and {q.id: q.answer for q in questions} == {k: r["final_decision"] for k, r in rows.items()}
