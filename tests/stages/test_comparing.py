"""The comparison: what is asked with each picture, votes, saved answers, and both faces."""

import html
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medvlt_lib.core.control_rows import NO_PICTURE
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_json
from medvlt_lib.core.prompts import target
from medvlt_lib.core.records import Completion
from medvlt_lib.core.runs import open_run
from medvlt_lib.stages import compare_app, report
from medvlt_lib.stages.comparing import DRAWN, OFF, ON, SWAPPED, open_comparison, votes

REFERENCE = Path(report.__file__).parents[1] / "assets" / "reference"


class Echo:
    """An engine that says the letter A, and in its thinking how many pictures it saw."""

    def generate(self, prompts, sampling):
        for prompt in prompts:
            for sample in range(sampling.n):
                letter = "A" if sample % 4 else "B"
                text = target(f"{len(prompt.images)} pictures", letter)
                yield Completion(prompt.id, sample, text, [1, 2], None, "stop")


@pytest.fixture
def run(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "copied")
    return open_run(None, "copied", root=tmp_path)


@pytest.fixture
def live(run):
    comparison = open_comparison(run)
    comparison._engines.update({arm: Echo() for arm in comparison.arms})
    return comparison


def pictured(comparison):
    return next(q for q in comparison.questions.values() if q.family == "cardiothoracic_ratio")


def test_base_sft_and_grpo_stand_side_by_side(live):
    assert live.arms == ["base", "sft_text", "rl_text"] and live.live
    groups = {q.group for q in live.questions.values()}
    assert len(live.questions) == 60 and len(groups) == 5


def test_each_picture_is_asked_as_it_says(live):
    question = pictured(live)
    seen = {picture: live.view(question.id, picture, "60%") for picture in (ON, OFF, SWAPPED, DRAWN)}
    thoughts = {picture: view.columns[0].answers[0].thinking[0][0] for picture, view in seen.items()}
    assert thoughts == {ON: "1 pictures", OFF: "0 pictures", SWAPPED: "1 pictures", DRAWN: "1 pictures"}
    assert seen[ON].question == question and seen[OFF].pictures == []
    swapped, drawn = seen[SWAPPED].question, seen[DRAWN].question
    assert swapped.answer == question.answer and swapped.images != question.images
    assert drawn.answer == "60%" and drawn.images not in (question.images, swapped.images)


def test_votes_are_counted(live):
    question = pictured(live)
    [(first, text, share, right), (second, _, other, _)] = live.view(question.id, samples=8).columns[1].votes
    assert (first, share, second, other) == ("A", 0.75, "B", 0.25)
    assert text == question.options["A"] and right == (question.answer_label == "A")
    spread = votes([{"letter": x} for x in ("B", None, "B", "Z")], question)
    assert [(k, s) for k, _, s, _ in spread] == [("B", 0.5), (None, 0.5)]


def test_what_does_not_exist_is_a_sentence(live, run):
    question = pictured(live)
    text = next(q for q in live.questions.values() if not q.images)
    for arguments, said in (
        (("nobody",), "no question nobody"),
        ((question.id, "upside down"), "choose from on, off"),
        ((question.id, DRAWN, "61%"), "choose from 40%"),
        ((text.id, OFF), "has no picture"),
        ((question.id, ON, None, 99), "choose 1 to 16"),
    ):
        with pytest.raises(UserError, match=said):
            live.view(*arguments)
    with pytest.raises(UserError, match="is not finished"):
        open_comparison(run, ["rl_image"])


def test_saved_answers_are_those_of_the_run(run):
    saved = open_comparison(run, live=False)
    question = pictured(saved)
    view = saved.view(question.id)
    rows = pq.read_table(run.folder / "05_eval/sft_text/answers.parquet").to_pylist()
    [own] = [row for row in rows if row["id"] == question.id]
    assert view.columns[1].answers[0].letter == own["letter"] and not view.live
    assert "medvlt controls" in saved.view(question.id, OFF).columns[0].why_none
    folder = run.folder / "05b_controls" / "base"
    folder.mkdir(parents=True)
    answer = {**own, "text": "<think> grey </think><answer> C </answer>", "letter": "C", "control": NO_PICTURE}
    saved_rows = [{**answer, "question": question.id}]
    pq.write_table(pa.Table.from_pylist(saved_rows), folder / "answers.parquet")
    write_json(folder / "metrics.json", {"x": 1})
    assert saved.view(question.id, OFF).columns[0].answers[0].letter == "C"
    assert "not asked live" in saved.view(question.id, DRAWN, "60%").columns[0].why_none


ATTACK = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"


def test_text_of_data_and_models_does_nothing_on_the_page(live):
    question = pictured(live)
    options = {k: f"{v}{ATTACK}" for k, v in question.options.items()}
    live.questions[question.id] = replace(
        question, question=ATTACK, options=options, answer=options[question.answer_label], extra={}
    )

    class Attacking:
        def generate(self, prompts, sampling):
            for prompt in prompts:
                yield Completion(prompt.id, 0, f"<think>{ATTACK}</think><answer>{ATTACK}", [1], None, "stop")

    live._engines.update({arm: Attacking() for arm in live.arms})
    page = compare_app.page(live, {"question": question.id})
    assert page.count("<script") == 1 and "<img src=x" not in page and "\u202e" not in page
    assert page.count(html.escape("<script>alert(1)</script>")) > 8
    wrong = compare_app.page(live, {"question": ATTACK, "picture": ATTACK, "samples": ATTACK, "place": ATTACK})
    assert wrong.count("<script") == 1 and 'role="alert"' in wrong


@pytest.fixture
def served(live):
    running = compare_app.server(live, 0)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}", live
    running.shutdown()
    thread.join()
    running.server_close()


def test_the_page_is_served_to_this_machine_alone(served):
    address, live = served
    with urlopen(f"{address}/?question={quote(pictured(live).id)}&picture=drawn&place=4") as reply:
        text = reply.read().decode()
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "<output>60%</output>" in text and "60%</bdi> (right)" in text
    with urlopen(f"{address}/compare.js") as reply:
        assert "javascript" in reply.headers["Content-Type"]
    for path, host, status in (("/../manifest.json", None, 404), ("/", "evil.example:80", 403)):
        with pytest.raises(HTTPError) as caught:
            urlopen(Request(address + path, headers={"Host": host} if host else {}))
        assert caught.value.code == status
    with pytest.raises(UserError, match="choose another with --port"):
        compare_app.server(live, int(address.rpartition(":")[2]))
