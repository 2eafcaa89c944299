"""medvlt import never guesses a key: what a column holds is seen from its rows, or the file is refused.

Every right letter below is counted by hand beside its row.
"""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import read_questions
from medvlt_lib.data.rows import label_of
from medvlt_lib.tools.commands import IMPORT_HELP
from medvlt_lib.tools.import_file import KINDS, import_files
from medvlt_lib.tools.import_question import COLUMNS, OPTION_COLUMNS, SUBJECTS


def row(answer, *options, **more):
    return {"question": "Which?", "options": dict(zip("ABCDE", options, strict=False)), "answer": answer, **more}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def keys(out, files, *maps, **more):
    """The gold letters of files in a row, what was refused, and import.json."""
    import_files(files, out, list(maps), None, None, **more)
    refused = out / "refused.jsonl"
    rows = [json.loads(line) for line in refused.read_text().splitlines()] if refused.exists() else []
    labels = "".join(q.answer_label for q in read_questions(out / "questions.parquet"))
    return labels, rows, json.loads((out / "import.json").read_text())


VITAMIN = row("A", "D", "A", "K", "E")  # the text A is option B
CLOTTING = row("K", "D", "A", "K", "E")  # K is no letter of four options, and the text of option C
BLOOD = row("C", "B", "A", "O", "AB")  # C is no option's text, and the third letter


@pytest.mark.parametrize(
    ("rows", "labels", "said"),
    [
        ([VITAMIN, CLOTTING], "BC", "texts of options"),
        ([CLOTTING, VITAMIN, row("e", "D", "A", "K", "E")], "CBD", "texts of options"),
        # MMLU's blood groups: in a column of letters B is the second one, whose text is A
        ([row("B", "B", "A", "O", "AB"), BLOOD], "BC", "letters"),
        # the same letter either way says nothing, and needs nothing
        ([row("B", "A", "B"), row("Lung", "Heart", "Lung"), row("A", "x", "y")], "BBA", "letters or texts of options"),
    ],
)
def test_a_column_says_whether_a_letter_is_a_text(tmp_path, rows, labels, said):
    found, refused, record = keys(tmp_path / "out", [jsonl(tmp_path / "q.jsonl", rows)])
    assert (found, refused, record["keys"]) == (labels, [], [{"answer": said}])


@pytest.mark.parametrize("rows", [[VITAMIN], [VITAMIN, row("A", "A", "B")], [VITAMIN, CLOTTING, BLOOD]])
def test_where_no_row_says_it_the_file_is_refused_and_both_remedies_work(tmp_path, rows):
    file = jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(UserError, match=r"q.jsonl: 'A' in row 1, column answer, is a letter and also") as refusal:
        import_files([file], tmp_path / "out", [], None, None)
    assert "--map answer_letter=answer or --map answer_text=answer" in str(refusal.value)
    assert not (tmp_path / "out").exists()
    letters, _, record = keys(tmp_path / "letters", [file], "answer_letter=answer")
    assert letters[0] == "A" and record["keys"] == [{"answer": "letters"}]
    texts, _, record = keys(tmp_path / "texts", [file], "answer_text=answer")
    assert texts[0] == "B" and record["keys"] == [{"answer": "texts of options"}]


def test_one_file_does_not_say_for_another_what_its_letters_are(tmp_path):
    files = [
        jsonl(tmp_path / "texts.jsonl", [VITAMIN, CLOTTING]),
        jsonl(tmp_path / "letters.jsonl", [row("A", "D", "A", "K", "E"), BLOOD]),
    ]
    assert keys(tmp_path / "out", files)[0] == "BC" + "AC"
    with pytest.raises(UserError, match=r"one.jsonl: 'A' in row 1"):
        import_files([files[0], jsonl(tmp_path / "one.jsonl", [VITAMIN])], tmp_path / "two", [], None, None)


def test_what_is_named_comes_before_columns_of_known_names(tmp_path):
    rows = [row("A", "D", "A", "K", "E", cop=3, right="E"), row("E", "D", "A", "K", "E", cop=1, right="D")]
    file = jsonl(tmp_path / "q.jsonl", rows)
    labels, refused, _ = keys(tmp_path / "out", [file], "answer_text=right")
    assert (labels, refused) == ("DA", [])  # E is option D, D is option A


@pytest.mark.parametrize(
    ("answer", "index", "options", "label"),
    [
        ("A", "B", ("B", "A"), "B"),  # the text A is option B
        ("B", "B", ("B", "A"), "B"),  # the letter again
        ("na", "C", ("K", "Na", "NA"), "C"),  # spelt as neither, so it may be either
        ("NA", "C", ("K", "Na", "NA"), "C"),
        ("NA", "B", ("K", "Na", "NA"), None),  # spelt as option C
        ("C", "B", ("B", "A", "O"), None),  # the third letter, and no text
    ],
)
def test_an_answer_beside_an_index_repeats_it_as_text_or_as_letter(tmp_path, answer, index, options, label):
    rows = [row("Lung", "Heart", "Lung", answer_idx="B"), row(answer, *options, answer_idx=index)]
    labels, refused, _ = keys(tmp_path / "out", [jsonl(tmp_path / "q.jsonl", rows)])
    assert labels == "B" + (label or "")
    assert [(r["row"], r["column"]) for r in refused] == ([] if label else [(2, "answer")])


def test_an_option_s_text_is_compared_with_its_capitals_first():
    options = {"A": "Na", "B": "NA", "C": "Lung"}
    assert [label_of(text, options, "answer") for text in ("NA", "Na", "lung")] == ["B", "A", "C"]


def mcq(cop, **more):
    return {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": cop, **more}


def test_numbers_that_fit_both_ways_of_counting_are_asked_about(tmp_path):
    file = jsonl(tmp_path / "q.jsonl", [mcq(1), mcq(3), mcq(2)])
    with pytest.raises(UserError, match=r"q.jsonl: no row shows .*column cop.*--index-from 0 or --index-from 1\."):
        import_files([file], tmp_path / "out", [], None, None)
    assert not (tmp_path / "out").exists()
    assert keys(tmp_path / "zero", [file], index_from=0)[0] == "BDC"  # 1 is the second option
    assert keys(tmp_path / "one", [file], index_from=1)[0] == "ACB"  # 1 is the first option


def test_one_0_or_one_last_number_shows_what_is_counted_from(tmp_path):
    zero = jsonl(tmp_path / "zero.jsonl", [mcq(1), mcq(0)])
    labels, _, record = keys(tmp_path / "out", [zero])
    assert labels == "BA" and record["keys"] == [{"cop": "numbers of options, counted from 0"}]
    # 3 of three options is the last one, whatever others have
    short = {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "cop": 3}
    one = jsonl(tmp_path / "one.jsonl", [mcq(3), short])
    with pytest.raises(UserError, match=r"counted from 1 only in 1 rows.*add --index-from 1\."):
        import_files([one], tmp_path / "x", [], None, None)
    assert keys(tmp_path / "one", [one], index_from=1)[0] == "CC"


def test_numbers_that_contradict_each_other_are_asked_about(tmp_path):
    file = jsonl(tmp_path / "q.jsonl", [mcq(0), mcq(4), mcq(2)])  # 0 for "no key", as some write it
    with pytest.raises(UserError, match=r"from 0 only in 1 rows.*from 1 only in 1 rows.*--index-from 0 or --index"):
        import_files([file], tmp_path / "out", [], None, None)
    labels, refused, _ = keys(tmp_path / "one", [file], index_from=1)
    assert labels == "DB" and [r["why"] for r in refused] == ["0 is no number from 1 to 4"]


def test_a_text_beside_the_number_shows_what_it_counts_from(tmp_path):
    """The second of w, x, y, z is x, and the third from 0 is y: each denies one way of counting."""
    assert keys(tmp_path / "zero", [jsonl(tmp_path / "0.jsonl", [mcq(2, answer="y")])])[0] == "C"
    one = jsonl(tmp_path / "1.jsonl", [mcq(2, answer="x")])
    with pytest.raises(UserError, match="add --index-from 1"):
        import_files([one], tmp_path / "out", [], None, None)
    assert keys(tmp_path / "one", [one], index_from=1)[0] == "B"


def test_two_files_that_count_from_different_numbers_do_not_hide_each_other(tmp_path):
    zero = jsonl(tmp_path / "zero.jsonl", [mcq(0), mcq(3)])
    one = jsonl(tmp_path / "one.jsonl", [mcq(4), mcq(1)])
    small = jsonl(tmp_path / "small.jsonl", [mcq(2)])
    for files, index_from, message in [
        ([zero, one], None, r"one.jsonl: column cop .*add --index-from 1; import files .* one at a time"),
        ([zero, one], 1, r"zero.jsonl: column cop .*leave --index-from 1 out; import files .* one at a time"),
        ([zero, small], None, r"small.jsonl: no row shows"),
    ]:
        with pytest.raises(UserError, match=message):
            import_files(files, tmp_path / "out", [], None, None, index_from)
    assert keys(tmp_path / "out", [zero, small], index_from=0)[0] == "AD" + "C"


def count(answer, *choices):
    return {"question": "How many?", "choices": list(choices), "answer": answer}


def test_whole_numbers_in_parquet_have_a_remedy_for_each_meaning(tmp_path):
    file = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist([count(1, "3", "2", "1", "0"), count(2, "2", "4", "6", "8")]), file)
    with pytest.raises(UserError, match="could count options or be their texts") as refusal:
        import_files([file], tmp_path / "out", [], None, None)
    message = str(refusal.value)
    assert "--map answer_index=answer --index-from 0 (or 1" in message and "--map answer_text=answer" in message
    assert keys(tmp_path / "0", [file], "answer_index=answer", index_from=0)[0] == "BC"  # the second, the third
    assert keys(tmp_path / "1", [file], "answer_index=answer", index_from=1)[0] == "AB"  # the first, the second
    assert keys(tmp_path / "t", [file], "answer_text=answer")[0] == "CA"  # the text 1, the text 2


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([count("24", "12", "24"), count("1", "0", "1")], "BB"),  # 24 counts no options, so all are texts
        ([count(24, 12, 24), count(36, 36, 48)], "BA"),
        ([count(0, "w", "x"), count("1", "y", "z")], "AB"),  # no number is a text: all count
        ([count("Lung", "Heart", "Lung"), count("1", "0", "1")], "BB"),  # a word beside them: texts
    ],
)
def test_numbers_that_can_be_read_in_one_way_need_nothing(tmp_path, rows, labels):
    assert keys(tmp_path / "out", [jsonl(tmp_path / "q.jsonl", rows)])[:2] == (labels, [])


@pytest.mark.parametrize(
    "rows",
    [
        [count("1", "0", "1", "2")],  # in quotes they are no surer
        [count(0, "w", "x"), count(1, "0", "1")],
        [count(24, 12, 24), count(0, "w", "x")],  # one only a text, one only a count
        [count("B", "w", "x"), count(1, "0", "1")],  # among letters
    ],
)
def test_numbers_that_can_be_read_in_two_ways_are_never_guessed(tmp_path, rows):
    with pytest.raises(UserError, match="column answer could count options or be their texts"):
        import_files([jsonl(tmp_path / "q.jsonl", rows)], tmp_path / "out", [], None, None)


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 30), colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def mmmu(question, one, two, options="['x', 'y']"):
    return {"question": question, "options": options, "answer": "A", "image_1": one, "image_2": two}


def test_a_picture_that_is_named_and_missing_refuses_its_row(tmp_path):
    """image_1 empty would make picture 2 the first one, and <image 2> name nothing."""
    red, clear = picture((255, 0, 0, 255)), picture((0, 0, 0, 0))
    rows = [
        mmmu("<image 1> or <image 2>?", red, clear),
        mmmu("<image 1> or <image 2>?", red, None),
        mmmu("What is <image 2>?", None, red),
        mmmu("Which?", None, None, "['<image 1>', '<image 2>']"),
        mmmu("No picture is named, one is there.", None, red),
        mmmu("No picture is named.", None, None),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    _, refused, record = keys(tmp_path / "out", [tmp_path / "q.parquet"])
    assert [(r["row"], r["column"]) for r in refused] == [(2, "image_2"), (3, "image_1"), (4, "image_1")]
    assert "names <image 2>, and picture 1 is missing" in refused[1]["why"]
    questions = read_questions(tmp_path / "out" / "questions.parquet")
    assert [(q.id, len(q.images)) for q in questions] == [("q-1", 2), ("q-5", 1), ("q-6", 0)]
    assert record["picture_changes"] == {"transparency": 1}


def test_a_list_of_pictures_holds_every_one_that_is_named(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "one.png")
    rows = [row("A", "x", "y", question=f"Look at <image {n}>.", images=["one.png"]) for n in (1, 2)]
    _, refused, _ = keys(tmp_path / "out", [jsonl(tmp_path / "q.jsonl", rows)])
    assert [(r["row"], r["column"]) for r in refused] == [(2, "images")]


def test_subjects_are_kept_and_import_json_says_whether_there_was_a_maybe(tmp_path):
    rows = [
        row("A", "x", "y", subject_name="Anatomy", topic_name=None),
        {"question": "Does it help?", "final_decision": "no", "subject": "biology"},
    ]
    _, _, record = keys(tmp_path / "out", [jsonl(tmp_path / "q.jsonl", rows)])
    first, second = read_questions(tmp_path / "out" / "questions.parquet")
    assert (first.extra, second.extra) == ({"subject_name": "Anatomy"}, {"subject": "biology"})
    assert list(second.options.values()) == ["Yes", "No"] and record["maybe"] is False
    more = jsonl(tmp_path / "more.jsonl", [{"question": "Does it help?", "final_decision": "maybe"}])
    labels, _, record = keys(tmp_path / "both", [tmp_path / "q.jsonl", more])
    assert labels == "ABC" and record["maybe"] is True  # yes, no, maybe in all files


def test_options_as_numpy_prints_them_are_shown_in_the_refusal(tmp_path):
    lines = ["question,choices,answer", "Which?,['Heart' 'Lung'],B", "Other?,\"['x', 'y']\",B"]
    (tmp_path / "q.csv").write_text("\n".join(lines))
    _, [refused], _ = keys(tmp_path / "out", [tmp_path / "q.csv"])
    assert refused["row"] == 1 and "['Heart' 'Lung']" in refused["why"] and "commas" in refused["why"]


def test_the_help_names_every_column_and_breaks_no_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["import", "--help"]).output
    lines = [line.strip() for line in shown.splitlines()]
    assert [line for line in IMPORT_HELP.splitlines() if line.strip() not in lines] == []
    words = set(shown.replace(",", " ").replace(":", " ").replace(";", " ").replace("=", " ").split())
    columns = {column for columns in COLUMNS.values() for column in columns}
    firsts = {column for columns in OPTION_COLUMNS for column in columns[:2]}
    assert (columns | firsts | set(COLUMNS) | set(KINDS) | set(SUBJECTS)) - words == set()


@pytest.mark.parametrize(("number", "said"), [(1, "(1 picture)"), (2, "(2 pictures)")])
def test_the_preview_counts_pictures(tmp_path, number, said):
    Image.new("RGB", (40, 30)).save(tmp_path / "one.png")
    jsonl(tmp_path / "q.jsonl", [row("A", "x", "y", images=["one.png"] * number)])
    done = CliRunner().invoke(app, ["import", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out"), "--yes"])
    assert done.exit_code == 0 and said in done.output
