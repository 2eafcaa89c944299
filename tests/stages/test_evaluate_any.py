"""Any model on any benchmark: what a server's failures count as, what is asked twice, and what is refused."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.records import write_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.known import known_models
from medvlt_lib.models.loading import shipped
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout import chat_client
from medvlt_lib.rollout.chat_client import default_cache
from medvlt_lib.stages import evaluate_any as stage
from medvlt_lib.stages.evaluate import notes
from medvlt_lib.stages.evaluate_any import evaluate_any, other_model
from tests.data.test_sources import put, unified_row
from tests.serving import TOKENS, Teaching, right, teaching, wrong

QUESTIONS = 12


@pytest.fixture
def url(monkeypatch, tmp_path):
    """A server that answers the questions of q.parquet right until a test says otherwise; no pause between tries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chat_client, "_pause", lambda *_: 0.0)
    questions = make_questions("curb65,apgar", "test", QUESTIONS)
    write_questions(questions, "q.parquet")
    Teaching.questions = {q.id: q for q in questions}
    with teaching() as address:
        yield address


def served(url, out="out", model="m", benchmarks=("q.parquet",), **settings):
    """(scores, rows by id) of a served model."""
    settings = {"engine.kind": "openai", "engine.url": url, **settings}
    run = open_run("tiny", None, settings, make=False)
    scores = evaluate_any(run, Path(out), model=model, benchmarks=list(benchmarks))[model]
    return scores, pq.read_table(Path(out) / "answers.parquet").to_pylist()


def ids():
    return list(Teaching.questions)


# --- answers that do not come ---


def test_failures_of_a_server_are_tried_again_and_then_count_as_no_answer(url):
    broken, unread = ids()[2], ids()[7]

    def reply(question, sample):
        return {broken: (500, "broken"), unread: (400, "too_long")}.get(question.id) or right(question, sample)

    Teaching.reply = staticmethod(reply)
    scores, rows = served(url)
    assert Counter(Teaching.asked) == {**dict.fromkeys(ids(), 1), broken: 6}
    assert (scores["answers"], scores["without_a_word"]) == (QUESTIONS, {"error": 2})
    assert {r["id"] for r in rows if r["finish_reason"] == "error"} == {broken, unread}
    assert all((r["letter"], r["correct"], r["tokens"]) == (None, False, 0) for r in rows if not r["text"])
    assert sum(r["correct"] for r in rows) == QUESTIONS - 2
    assert "m, counted as no answer: 2 that the server failed to give" in notes({"m": scores})


def test_refused_and_empty_answers_are_counted_each(url):
    refused, empty = ids()[0], ids()[1:4]

    def reply(question, sample):
        if question.id == refused:
            return 400, "content_filter"
        return "" if question.id in empty else right(question, sample)

    Teaching.reply = staticmethod(reply)
    scores, rows = served(url)
    assert scores["without_a_word"] == {"empty": 3, "refused": 1}
    assert sum(r["correct"] for r in rows) == QUESTIONS - 4


def test_a_server_that_fails_again_and_again_stops_the_evaluation(url):
    Teaching.reply = staticmethod(lambda question, sample: (500, "broken"))
    with pytest.raises(UserError, match=r"answers 500 .*; try again later"):
        served(url, **{"engine.concurrency": 1})
    assert 8 <= len(set(Teaching.asked)) <= 9  # one more is under way
    write_questions(list(Teaching.questions.values())[:3], "few.parquet")
    with pytest.raises(UserError, match="m answered none of 3 questions"):
        served(url, "few", benchmarks=["few.parquet"])
    assert not list(Path().glob("*/scores.json")) and not list(Path().glob("*/parts/*"))
    Teaching.reply = staticmethod(right)
    assert served(url)[0]["macro"] == 1.0  # the same command goes on


def test_a_cached_answer_that_is_empty_or_torn(url):
    """An empty answer is one, and stays; a file that holds no answer is asked for again."""
    Teaching.reply = staticmethod(lambda question, sample: "" if question.id == ids()[4] else right(question, sample))
    first, rows = served(url)
    torn, hollow = [p for p in sorted(default_cache().glob("*.json")) if not p.name.startswith("spent")][:2]
    torn.write_bytes(b"")
    hollow.write_text(json.dumps({**json.loads(hollow.read_text()), "choices": []}))
    Teaching.asked.clear()
    again, same = served(url, "again")
    assert len(Teaching.asked) == 2 and same == rows
    assert first["without_a_word"] == again["without_a_word"] == {"empty": 1}


# --- several answers, and what they cost ---


@pytest.mark.parametrize("at_once", [True, False])
def test_samples_stay_apart_in_the_cache_and_in_another_run(url, at_once):
    """Every answer that the server gives is another one; whether it gives n a request or one."""
    number = itertools.count()
    Teaching.reply = staticmethod(lambda question, sample: right(question, sample, thought=f"number {next(number)}"))
    Teaching.at_once = at_once
    sampled = {"eval.samples": 3, "eval.temperature": 1.0}
    scores, rows = served(url, **sampled)
    assert (scores["questions"], scores["answers"]) == (QUESTIONS, 3 * QUESTIONS) == (QUESTIONS, len(rows))
    assert len({r["text"] for r in rows}) == 3 * QUESTIONS
    assert [r["sample"] for r in rows] == [0, 1, 2] * QUESTIONS
    asked = len(Teaching.asked)
    assert asked == QUESTIONS * (1 if at_once else 3)
    assert served(url, "again", **sampled)[1] == rows and len(Teaching.asked) == asked
    other = served(url, "other", **sampled, **{"eval.seed": 7})[1]
    assert {r["text"] for r in other}.isdisjoint(r["text"] for r in rows)
    assert read_json(Path("other/stage.json"))["settings"]["eval.seed"] == 7


def test_tokens_and_costs_add_up_to_what_the_server_counted(url):
    """Three dollars a million prompt tokens (a letter is one here), ten a million tokens of answers."""
    priced = {"engine.prompt_price": 3.0, "engine.completion_price": 10.0, "eval.samples": 2}
    scores, rows = served(url, **priced)
    prompts = sum(map(len, Teaching.texts))
    assert scores["tokens"] == sum(r["tokens"] for r in rows) == 2 * TOKENS * QUESTIONS
    assert scores["dollars"] == pytest.approx((3 * prompts + 10 * 2 * TOKENS * QUESTIONS) / 1e6)
    assert sum(r["cost"] for r in rows) == pytest.approx(scores["dollars"])
    unpriced = served(url, "unpriced", **{"eval.samples": 2})[0]
    assert unpriced["dollars"] is None


# --- kills ---

KILLED = """
import os, signal, sys
from medvlt_lib.stages import answers
if sys.argv.pop(1) == "before grading":
    answers.grade = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from medvlt_lib.__main__ import main
main()
"""


@pytest.mark.processes
@pytest.mark.parametrize("place", ["before grading", "while asking"])
def test_killed_and_started_again_nothing_is_asked_twice(place, url, tmp_path):
    priced = {"engine.prompt_price": 3.0, "engine.completion_price": 10.0, "engine.concurrency": 1}
    settings = {"engine.kind": "openai", "engine.url": url, **priced}
    command = ["eval", "--model", "m", "--benchmarks", "q.parquet", "--out", "out"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    Teaching.stall_after = 5 if place == "while asking" else None
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    with subprocess.Popen([sys.executable, "-c", KILLED, place, *command], env=environment) as process:
        if place == "while asking":
            assert Teaching.stalled.acquire(timeout=60)
            process.kill()
    assert process.returncode == -signal.SIGKILL and not Path("out/scores.json").exists()
    answered = len(Teaching.asked)
    assert answered == (5 if place == "while asking" else QUESTIONS)
    Teaching.stall_after = None
    scores, rows = served(url, **priced)
    assert Counter(Teaching.asked) == dict.fromkeys(ids(), 1)
    assert scores["tokens"] == TOKENS * QUESTIONS and {r["id"] for r in rows} == set(ids())
    assert scores["dollars"] == pytest.approx((3 * sum(map(len, Teaching.texts)) + 10 * TOKENS * QUESTIONS) / 1e6)
    unbroken, _ = served(url, "unbroken", **priced)
    assert Path("out/answers.parquet").read_bytes() == Path("unbroken/answers.parquet").read_bytes()
    assert unbroken == scores


# --- one evaluation, one folder ---


@pytest.fixture
def unasked(url, monkeypatch):
    """Evaluations whose model is not asked: what is refused is refused before."""

    def evaluate(folder, *_):
        write_json(folder / "scores.json", {})
        write_json(folder / "answers.json", [])
        return {"macro": 0.5}

    monkeypatch.setattr(stage, "evaluate", evaluate)

    def work(out="out", model="m", benchmarks=("q.parquet",), **settings):
        run = open_run("tiny", None, {"engine.kind": "openai", "engine.url": url, **settings}, make=False)
        evaluate_any(run, Path(out), model=model, benchmarks=list(benchmarks))

    return work


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "other"}, "model.name"),
        ({"benchmarks": ["phantom:curb65"]}, "questions of"),
        ({"eval.seed": 1}, "eval.seed"),
        ({"eval.samples": 2}, "eval.samples"),
        ({"model.prompt_style": "no-think"}, "model.prompt_style"),
    ],
)
def test_two_evaluations_in_one_folder_are_refused(unasked, changes, words):
    unasked()
    unasked()
    with pytest.raises(UserError, match=rf"^out was made with .*{words}.*; choose another --out, or .*--redo 05"):
        unasked(**changes)


def test_a_changed_revision_is_refused(unasked, tmp_path):
    name = "UCSC-VLAA/MedVLThinker-Eval"
    rows = [unified_row(i, "pmc_vqa") for i in range(4)]
    file = "data/test-00000-of-00001.parquet"
    put(tmp_path, name, rows, file)
    copy = {"benchmarks": [f"hub:{name}"], "data.mirror": str(tmp_path)}
    unasked(**copy)
    kept = read_json(Path("out/stage.json"))["settings"][f"revision of {name}"]
    assert kept.startswith("local copy ")
    put(tmp_path, name, [*rows[:3], unified_row(9, "pmc_vqa")], file)
    with pytest.raises(UserError, match=rf"^runs/benchmarks/\S+ was made with revision of {name} = .*@REVISION"):
        unasked(**copy)
    shutil.rmtree("runs/benchmarks")
    with pytest.raises(UserError, match=r"^out was made with .*; choose another --out"):
        unasked(**copy)


def test_the_commit_that_was_read_is_the_revision(unasked, tmp_path, monkeypatch):
    """The newest commit is asked for; where the Hub is silent, the commit of the file that is there stays."""
    from medvlt_lib.data import benchmarks, hub

    commit = {"newest": "a" * 40}
    monkeypatch.setattr(benchmarks, "revision_of", lambda source, mirror: source.revision or commit["newest"])
    monkeypatch.setattr(hub, "revision_of", lambda source, mirror: source.revision or commit["newest"])
    rows = [unified_row(i) for i in range(3)]
    monkeypatch.setattr(hub, "_stream", lambda *_: iter(rows))
    unasked(benchmarks=["hub:SOME/set"])
    commit["newest"] = None
    unasked(benchmarks=["hub:SOME/set"])
    commit["newest"] = "b" * 40
    with pytest.raises(UserError, match=r'revision of SOME/set = "a{40}", now it is "b{40}"'):
        unasked(benchmarks=["hub:SOME/set"])
    commit["newest"] = None
    with pytest.raises(UserError, match="does not say which commit of OTHER/set is the newest"):
        unasked(benchmarks=["hub:OTHER/set"])


@pytest.mark.parametrize(
    ("benchmarks", "words"),
    [
        (["sevn"], "--benchmarks sevn: it is no benchmark and no file; choose six, pmc_vqa,"),
        (["phantom:zebra"], "unknown family 'zebra'"),
        (["nowhere/q.parquet"], "it is no benchmark and no file"),
        (["q.parquet", "q.parquet"], "--benchmarks names q.parquet twice"),
        (["six,six"], "--benchmarks names six twice"),
        (["phantom:curb65", "phantom:text"], "is in two of the benchmarks"),
    ],
)
def test_a_benchmark_that_cannot_be_asked_is_a_sentence(benchmarks, words, url):
    with pytest.raises(UserError, match=words):
        served(url, benchmarks=benchmarks)
    assert not Path("out/scores.json").exists() and not Teaching.asked


def test_several_benchmarks_are_one_evaluation(url):
    more = make_questions("qsofa", "test", 5)
    write_questions(more, "more.parquet")
    Teaching.questions |= {q.id: q for q in more}
    Teaching.reply = staticmethod(lambda q, sample: wrong(q) if q.family == "qsofa" else right(q, sample))
    scores, _ = served(url, benchmarks=["q.parquet", "more.parquet"])
    assert {name: own["accuracy"] for name, own in scores["datasets"].items()} == {"curb65": 1, "apgar": 1, "qsofa": 0}
    assert scores["macro"] == pytest.approx(2 / 3)


# --- models ---


def test_released_models_are_known_with_their_prompts():
    """The names are spelt out again from the paper's table of released checkpoints."""
    kinds = ("SFT_m23k", "SFT_PMC", "RL_m23k", "RL_PMC", "SFT_m23k-RL_PMC", "RL_m23k-RL_PMC")
    names = [f"UCSC-VLAA/MedVLThinker-{size}-{kind}" for size in ("3B", "7B") for kind in kinds]
    names.append("UCSC-VLAA/MedVLThinker-32B-RL_m23k")
    released = known_models()[0]
    assert sorted(released.names) == sorted(names) and len(names) == 13
    profile = load_profile("qlora-7b", {"model.prompt_style": "no-think"})
    for name in released.names:
        for written in (name, name.partition("/")[2]):
            own = other_model(profile, written, ()).profile
            assert (own.model.name, own.model.prompt_style, own.model.revision) == (name, "medvlthinker", None)
            assert (own.eval.grader, own.eval.max_new_tokens) == ("published", 4096)
    assert other_model(profile, names[0], ("model.prompt_style",)).profile.model.prompt_style == "no-think"


@pytest.mark.parametrize(
    ("name", "style", "grader", "doubt"),
    [
        ("JZPeterPan/MedVLM-R1", "medvlm-r1", "published-medvlm-r1", "its name on the Hub"),
        ("gpt-4o-2024-11-20", "medvlthinker", "published", "the same instruction"),
        ("FreedomIntelligence/HuatuoGPT-Vision-7B", "medvlthinker", "tolerant", "in other words"),
        ("google/medgemma-4b-it", "medvlthinker", "published", None),
        ("lingshu-medical-mllm/Lingshu-7B", "medvlthinker", "tolerant", "not comparable"),
        ("Hulu-Med-7B", "medvlthinker", "tolerant", "not comparable"),
        ("somebody/else", "no-think", "published", None),
    ],
)
def test_served_models_are_asked_as_their_family_is(name, style, grader, doubt, capsys):
    values = {"engine.kind": "openai", "engine.url": "http://x/v1", "model.prompt_style": "no-think"}
    own = other_model(load_profile("tiny", values), name, ()).profile
    assert (own.model.name, own.model.prompt_style, own.eval.grader) == (name, style, grader)
    said = capsys.readouterr().err
    assert (doubt in said and "not verified" in said) if doubt else "not verified" not in said


def test_every_setting_of_a_known_model_is_a_profile_s():
    """Each is set by itself on the profile that fits its grader, which refuses an unknown key or another type."""
    for known in known_models():
        profile = "medvlm-r1-2b" if known.settings["eval.grader"] == "published-medvlm-r1" else "full-7b"
        load_profile(profile, known.settings)


def test_an_adapter_is_put_on_the_base_that_it_names(tmp_path):
    (tmp_path / "adapter").mkdir()
    write_json(tmp_path / "adapter/adapter_config.json", {"base_model_name_or_path": str(shipped("small"))})
    own = other_model(load_profile("tiny"), str(tmp_path / "adapter"), ())
    assert (own.profile.model.name, own.checkpoint) == (str(shipped("small")), tmp_path / "adapter")
    same = other_model(load_profile("tiny", {"model.name": "phantom:small"}), str(tmp_path / "adapter"), ())
    assert same.profile.model.name == "phantom:small"
    given = other_model(load_profile("tiny"), str(tmp_path / "adapter"), ("model.name",))
    assert given.profile.model.name == "phantom:base"  # loading then says that they do not fit


def test_the_readme_has_the_recorded_figures_of_real_weights():
    root = Path(__file__).parents[2]
    scores = read_json(root / "benchmarks/real_weights.json")["scores"]
    readme = " ".join((root / "README.md").read_text().split())
    share, low, high = (f"{100 * value:.1f}" for value in (scores["accuracy"], *scores["interval"]))
    asked = f"of {scores['questions']} of PubMedQA's questions, three options each"
    assert f"{asked}, it answers {share} % [{low}, {high}] rightly" in readme
    assert f"would be right on {100 * scores['by_guessing']:.1f} %" in readme
    assert 0.45 < scores["letters"]["C"] / 200 < 0.5 and scores["keys"]["C"] < 30  # "maybe"
    guessed = sum(scores["letters"][key] * count for key, count in scores["keys"].items()) / 200**2
    assert scores["by_guessing"] == pytest.approx(guessed, abs=1e-4)
