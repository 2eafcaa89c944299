"""The report and the model card of a run: what they say, what they leave out, and that text of data does nothing."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import read_questions, write_questions
from medvlt_lib.core.results import paired
from medvlt_lib.core.runs import Run, open_run
from medvlt_lib.core.tables import plain_markdown, visible
from medvlt_lib.stages import report, verdict
from medvlt_lib.stages import report_parts as parts
from medvlt_lib.stages.answer_view import FALSE, TRUE, parted, shown_answer

REFERENCE = Path(report.__file__).parents[1] / "assets" / "reference"
ATTACK = (
    "</script></bdi></td><script>alert(1)</script><img src=x onerror=alert(2)> | [a](javascript:b) **b** `c` \u202egnol"
)


class Page(HTMLParser):
    """The tags and the text of a page; complains about tags that are closed in another order than opened."""

    VOID = ("meta", "img", "br", "use", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def copied(root: Path, *without: str) -> Run:
    """The reference run as a run of its own, without some of its stages."""
    shutil.copytree(REFERENCE, root / "copied", ignore=shutil.ignore_patterns("checkpoint", "best", *without))
    return open_run(None, "copied", root=root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = copied(tmp_path_factory.mktemp("report"))
    report.run(run)
    return run


def read(run: Run, name: str) -> str:
    return (run.folder / "06_analysis" / name).read_text(encoding="utf-8")


def test_the_page_begins_with_what_was_found_and_holds_everything(whole):
    page = Page(read(whole, "report.html"))
    for heading in ("Results", "Controls", "Steps that the answers state", "Three examples", "Training", "Data",
                    "Every setting", "What was not run", "Limits"):  # fmt: skip
        assert heading in page.text, heading
    rows = json.loads(read(whole, "tables/results.json"))
    first = verdict.headline(rows)[0]
    assert page.text.index(first) < page.text.index("Results")
    assert "for clinical use" in page.text and "controls of base (medvlt controls --arm base --run copied)" in page.text
    assert len([a for t, a in page.tags if t == "article"]) == 3
    assert len([a for t, a in page.tags if t == "div" and a.get("class") == "answer right"]) >= 1


def test_the_page_needs_nothing_but_itself(whole):
    page = Page(read(whole, "report.html"))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "form"), tag
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:80])
    style = read(whole, "report.html").partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style and "@media print" in style and "overflow-x: auto" in style


def test_every_table_scrolls_by_itself(whole):
    html = read(whole, "report.html")
    assert html.count("<table>") == len(re.findall(r'<div class="scroll"[^>]*><table>', html)) > 8


def test_ids_of_the_figures_differ(whole):
    ids = re.findall(r'\bid="([^"]+)"', read(whole, "report.html"))
    assert len(ids) == len(set(ids)) > 50


def row(arm, gain=None, macro=0.5):
    return {"arm": arm, "macro": macro, "interval": (0.4, 0.6), "questions": 200, "answers": 200, "gain": gain}


def gain(difference, p, interval):
    return {"difference": difference, "p": p, "interval": interval, "interval_kind": "x", "detectable": 0.09}


def test_the_headline_says_only_what_intervals_and_p_values_carry():
    say = lambda *gains: verdict.headline([row("base"), *(row(f"a{i}", g) for i, g in enumerate(gains))])  # noqa: E731
    clear = say(gain(0.2, 1e-6, (0.1, 0.3)))
    assert clear[0] == (
        "a0 answers better than the base: +20.0 points of macro accuracy (95 % paired interval +10.0 to +30.0; "
        "p < 0.001), on 200 test questions, of which the base has 50.0 % right."
    )
    assert "another training seed" in clear[-1]
    none = say(gain(0.02, 0.4, (-0.03, 0.07)), gain(-0.01, 0.8, (-0.06, 0.04)))
    assert none[0].startswith("No trained arm differs from the base by more than chance explains") and "9.0" in none[0]
    worse = say(gain(-0.2, 1e-6, (-0.3, -0.1)))
    assert worse[0].startswith("Worse than the base: a0, -20.0") and not any("better" in s for s in worse)
    # Five comparisons: what one alone would show at 5 % is not enough after the correction.
    many = say(gain(0.08, 0.03, (0.01, 0.15)), *(gain(0.0, 0.9, (-0.1, 0.1)) for _ in range(4)))
    assert many[0].startswith("No trained arm differs") and "corrected for 5 comparisons" in many[-1]
    # An interval that holds 0 is not clear, whatever the p-value.
    assert say(gain(0.08, 0.001, (-0.01, 0.15)))[0].startswith("No trained arm differs")
    assert "nothing can be said" in verdict.headline([])[0]
    assert (
        "Nothing can be said" in verdict.headline([row("base")])[1]
        and "no trained arm" in verdict.headline([row("base")])[1]
    )
    assert "the base was not evaluated" in verdict.headline([row("rl_text")])[1]


def test_a_paired_difference_has_its_p_value():
    def answers(right):
        return [{"id": i, "sample": 0, "correct": r, "dataset": "d", "cluster": str(i)} for i, r in enumerate(right)]

    from scipy.stats import ttest_rel

    before, after = [0, 1] * 50, [1, 1] * 40 + [0, 1] * 9 + [1, 0]
    found = paired(answers(before), answers(after))
    assert found["p"] == pytest.approx(ttest_rel(after, before).pvalue, rel=0.05)
    assert found["difference"] == pytest.approx((sum(after) - sum(before)) / 100)
    assert paired(answers(before), answers(before))["p"] == 1.0


@pytest.mark.parametrize(
    "without, said",
    [
        (("05_eval",), "No arm was evaluated, so nothing can be said"),
        (("03_sft", "04_grpo"), "Not run: no arm was trained"),
        (("01_data",), "Not run: the run has no data stage of its own"),
        (("01_data", "02_filtering", "03_sft", "04_grpo", "05_eval"), "filtering (medvlt filter --run copied)"),
    ],
)
def test_what_is_missing_is_named_and_the_rest_is_shown(tmp_path, without, said):
    run = copied(tmp_path, *without, "06_analysis")
    report.run(run)
    assert said in Page(read(run, "report.html")).text
    assert plain_markdown(said)[:30] in read(run, "model_card.md")


def test_an_example_whose_picture_is_gone_is_shown_without_it(tmp_path):
    run = copied(tmp_path)
    test = run.folder / "01_data" / "test.parquet"
    write_questions([replace(q, images=["gone.png"] * len(q.images)) for q in read_questions(test)], test)
    shown = parts.examples(run, [row("base"), row("rl_text")])["shown"]
    assert len(shown) == 3 and any(own["question"].images and not own["pictures"] for own in shown)


def test_a_folder_that_is_no_run_gets_no_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "--run", "misspelt"])
    assert isinstance(done.exception, UserError) and "misspelt is no run" in str(done.exception)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A run whose questions, options, completions, names and sources are full of marks."""
    run = copied(tmp_path_factory.mktemp("attacked"))
    test = run.folder / "01_data" / "test.parquet"
    questions = [
        replace(q, question=ATTACK, options=(o := {k: f"{v} {ATTACK}" for k, v in q.options.items()}),
                answer=o[q.answer_label], extra={}) for q in read_questions(test)
    ]  # fmt: skip
    write_questions(questions, test)
    for arm in ("base", "sft_text", "rl_text"):
        path = run.folder / "05_eval" / arm / "answers.parquet"
        rows = [
            {**r, "text": f"<think> {ATTACK} </think><answer>{ATTACK}", "dataset": f"{r['dataset']} {ATTACK}"}
            for r in pq.read_table(path).to_pylist()
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
        scores = json.loads((path.parent / "scores.json").read_text())
        scores["datasets"] = {f"{name} {ATTACK}": own for name, own in scores["datasets"].items()}
        (path.parent / "scores.json").write_text(json.dumps(scores))
    card = run.folder / "01_data" / "data_card.json"
    told = json.loads(card.read_text())
    told["test"]["licences"] = {ATTACK: 3}
    card.write_text(json.dumps(told))
    run.note(sources={ATTACK: ATTACK})
    run.manifest["versions"]["torch"] = ATTACK
    report.run(run)
    return run


def test_text_of_data_and_models_does_nothing_in_the_page(attacked):
    page = Page(read(attacked, "report.html"))
    assert not any(tag == "script" or any(a.startswith("on") for a in attributes) for tag, attributes in page.tags)
    assert all((a.get("src") or "data:").startswith("data:") for _, a in page.tags)
    assert "\u202e" not in read(attacked, "report.html") and "[U+202E]gnol" in page.text
    assert page.text.count("<script>alert(1)</script>") > 10  # it is shown as it is


def test_text_of_data_and_models_does_nothing_in_the_card(attacked):
    text = read(attacked, "model_card.md")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text.partition("\n---\n")[2])
    inline = [t for token in tokens for t in [token, *(token.children or [])]]
    assert {t.type for t in inline if "html" in t.type} == set()
    assert [t for t in inline if t.type in ("link_open", "image", "code_inline", "em_open")] == []
    assert "\u202e" not in text
    shown = [t.content for t in inline if t.type == "text"]
    assert any("<script>alert(1)</script>" in words for words in shown)
    heads = [t for t in tokens if t.type == "table_open"]
    assert len(heads) >= 5


def test_the_card_has_the_hubs_metadata_and_the_pages_headline(whole):
    import yaml

    text = read(whole, "model_card.md")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert {"medvlt", "sft_text", "rl_text"} <= set(metadata["tags"]) and metadata[
        "pipeline_tag"
    ] == "image-text-to-text"
    rows = json.loads(read(whole, "tables/results.json"))
    for sentence in verdict.headline(rows):
        assert plain_markdown(sentence) in text
    assert "Not for clinical use" in text and "## What was not run" in text and "## Limits" in text


def test_a_dollar_or_a_star_stays_what_it_is():
    told = "a_b *c* [d](e) <f> `g` $h$ \\ ~i~\u202e"
    rendered = MarkdownIt("commonmark", {"html": True}).parse(plain_markdown(told))
    [inline] = [t for t in rendered if t.type == "inline"]
    assert "".join(t.content for t in inline.children) == visible(told)
    assert visible("می‌خواهم\tx\n") == "می‌خواهم\tx\n" and visible("\x00\u2066") == "[U+0000][U+2066]"


def test_an_answer_in_parts_is_judged_by_the_facts():
    question = next(q for q in read_questions(REFERENCE / "01_data/test.parquet") if q.family == "nodule_count")
    first = question.extra["steps"][0]
    wrong = next(x for x in question.options if x != question.answer_label)
    text = f"<think> {first}. left lung 9. total 77. </think>\n<answer> {wrong} </answer>"
    said = shown_answer(text, wrong, False, question)
    assert said.thinking[0] == (first, TRUE) and said.thinking[1] == ("left lung 9", FALSE)
    assert said.first_error == "saw it wrong" and said.option == question.options[wrong] and said.answer == wrong
    plain = shown_answer(text, wrong, False, replace(question, extra={}))
    assert len(plain.thinking) == 1 and plain.thinking[0][1] == "" and plain.first_error is None
    assert parted("no tags") == ("", "no tags")
