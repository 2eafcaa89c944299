"""Distillation against a local server whose answers a test decides, and with the teacher of the embedded world."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, read_json, read_jsonl
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.core.records import count_questions, read_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.core.sections import Teacher
from medvlt_lib.grading.grade import grade
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.phantom.teacher import write_trace
from medvlt_lib.stages import data as data_stage
from medvlt_lib.stages import distill, sft
from medvlt_lib.stages.arms import arm_inputs
from medvlt_lib.stages.teachers import thinking_of
from tests.data.test_sources import put, unified_row
from tests.pipeline.conftest import medvlt, settings
from tests.serving import TOKENS, Teaching, right, teaching, wrong

SMALL = {
    "model.name": "phantom:small",
    "data.train_text_size": 8,
    "data.train_image_size": 4,
    "data.validation_size": 4,
    "data.test_size": 4,
}


@pytest.fixture
def url(monkeypatch, tmp_path):
    """The address of the server, which answers right until a test says otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    with teaching() as address:
        yield address


def run_with(teachers, name="run", **changes):
    """A run with its questions, which the server knows as well."""
    run = open_run("tiny", name, {**SMALL, "distill.teachers": teachers, **changes})
    data_stage.run(run)
    sets = [run.folder / "01_data" / f"train_{kind}.parquet" for kind in ("text", "image")]
    Teaching.questions = {q.id: q for path in sets for q in read_questions(path)}
    return run


def traces(run, kind="text"):
    return read_questions(run.folder / "02b_distill" / f"traces_{kind}.parquet")


def answers(run, label, kind="text"):
    return [row for p in sorted((run.folder / "02b_distill/answers" / label / kind).glob("*")) for row in read_jsonl(p)]


# --- what is kept ---


def test_what_is_kept_is_right_and_what_is_not_is_counted_by_reason(url):
    run = run_with({"mine": {"name": "m", "url": url, "asks": "text"}})
    first, second, *rest = read_questions(run.folder / "01_data/train_text.parquet")
    letter = first.answer_label
    spoiled = {
        first.id: [wrong(first), f"<answer>{letter}</answer>", right(first, 2)],
        second.id: [("<think> so the", "length"), "I would rather not say.", {"content": None, "refusal": "no"}],
        rest[0].id: [wrong(rest[0])] * 3,
        rest[1].id: [f"<think> a <think> b </think><answer>{rest[1].answer_label}</answer>"] * 2 + [right(rest[1], 2)],
        rest[2].id: [f"<think>  </think>\n<answer>{rest[2].answer_label}</answer>", right(rest[2], 1), wrong(rest[2])],
    }
    Teaching.reply = staticmethod(lambda q, sample: spoiled[q.id][sample] if q.id in spoiled else right(q, sample))
    metrics = distill.run(run)
    own = metrics["teachers"]["mine"]
    assert own["rejected"] == {
        "truncated": 1, "refused or empty": 1, "no answer": 1, "wrong": 5, "no thinking": 2, "marks in the thinking": 2,
    }  # fmt: skip
    assert (own["answers"], own["right"], own["solved"], own["questions"]) == (24, 12, 6, 8)
    assert sum(own["rejected"].values()) + own["right"] == own["answers"]
    found = {t.extra["trace"]["question"]: t for t in traces(run)}
    assert set(found) == {first.id, *(q.id for q in rest[1:])} and len(traces(run)) == 6
    samples = {q: t.extra["trace"]["sample"] for q, t in found.items()}
    assert samples == {first.id: 2, rest[1].id: 2, rest[2].id: 1, **{q.id: 0 for q in rest[3:]}}
    for key, trace in found.items():  # the thinking is the one that belongs to the question and the sample
        assert trace.reasoning == f"because {key} {samples[key]}"
        assert (trace.question, trace.answer, trace.extra["facts"]) == (
            Teaching.questions[key].question, Teaching.questions[key].answer, Teaching.questions[key].extra["facts"],
        )  # fmt: skip
    kept = {(t.extra["trace"]["question"], t.extra["trace"]["sample"]) for t in traces(run)}
    texts = [r["text"] for r in answers(run, "mine") if (r["id"], r["sample"]) in kept]
    assert len(texts) == 6
    for row in answers(run, "mine"):
        verdict = grade(row["text"], Teaching.questions[row["id"]])
        assert row["rejected"] or verdict.reward == 1.0  # by the reward that GRPO pays, which is stricter


def test_up_to_k_of_a_question_from_teachers_in_turn_and_another_k_asks_nothing(url):
    teachers = {
        "own": {"name": "phantom:own", "asks": "text"},
        "mine": {"name": "m", "url": url, "asks": "text"},
        "other": {"name": "n", "url": url, "asks": "image", "samples": 1},
    }
    run = run_with(teachers, **{"distill.keep": 3})
    metrics = distill.run(run)
    first = Teaching.questions[traces(run)[0].extra["trace"]["question"]]
    assert [t.id for t in traces(run)[:3]] == [f"{first.id}-own-0", f"{first.id}-mine-0", f"{first.id}-mine-1"]
    assert traces(run)[0].reasoning == write_trace(first, "own")
    assert len({t.id for t in traces(run)}) == len(traces(run)) == metrics["traces_text"] == 24
    assert Counter(t.extra["trace"]["question"] for t in traces(run)) == Counter(
        {q.id: 3 for q in Teaching.questions.values() if q.modality == "text"}
    )
    pictured = traces(run, "image")
    assert len(pictured) == 4 and all(
        t.images == Teaching.questions[t.extra["trace"]["question"]].images for t in pictured
    )
    asked = len(Teaching.asked)
    assert asked == 8 + 4
    again = run_with(teachers, **{"distill.keep": 1})
    assert distill.run(again)["traces_text"] == 8 and len(Teaching.asked) == asked
    with pytest.raises(UserError, match=r"was made with distill.seed = 42, now it is 1; .*--redo 02b"):
        distill.run(run_with(teachers, **{"distill.seed": 1}))
    redone = open_run("tiny", "run", {"distill.seed": 1}, redo=["02b"])
    assert distill.run(redone)["traces_text"] == 8 and len(Teaching.asked) == 2 * asked


def test_the_published_prompts_and_sampling(url):
    """m23k: DeepSeek-R1, an answer in a box, its thinking apart; PMC-VQA: GPT-4o with the prompt of training."""
    r1 = {"name": "R1", "url": url, "asks": "text", "prompt": "boxed", "samples": 1, "temperature": 0.0}
    teachers = {
        "r1": {**r1, "max_new_tokens": 8000, "grader": "tolerant"},
        "gpt": {"name": "gpt", "url": url, "asks": "image"},
    }
    run = run_with(teachers)

    def reply(q, sample):
        if q.modality == "image":
            return right(q, sample)
        return {"content": f"So it is \\boxed{{{q.answer_label}}}", "reasoning_content": f"Hmm {q.id}."}

    Teaching.reply = staticmethod(reply)
    distill.run(run)
    assert [t.reasoning for t in traces(run)] == [f"Hmm {t.extra['trace']['question']}." for t in traces(run)]
    assert len(traces(run)) == 8 and len(traces(run, "image")) == 4
    first, last = Teaching.questions[Teaching.asked[0]], Teaching.questions[Teaching.asked[-1]]
    assert Teaching.texts[0].startswith("Return your final response within \\boxed{}. ")
    assert Teaching.texts[0] == prompt_text(first, "boxed") and first.modality == "text"
    assert Teaching.texts[-1] == prompt_text(last, "medvlthinker") and last.modality == "image"
    default = Teacher(name="x")
    assert (default.samples, default.temperature, default.max_new_tokens) == (3, 1.0, 4096)


@pytest.mark.parametrize(
    ("text", "thinking"),
    [
        ("<think> a\nb </think>\n<answer> B </answer>", "a\nb"),
        ("a b</think>\\boxed{B}", "a b"),  # the chat template had opened it
        ("<think>long</think>\n<think>short</think><answer>B</answer>", "long"),
        ("<think>never closed", ""),
        ("<answer>B</answer>", ""),
    ],
)
def test_the_thinking_of_an_answer(text, thinking):
    assert thinking_of(text) == thinking


# --- teachers that do not answer ---


def test_a_request_that_is_refused_for_its_content_is_one_rejected_question(url):
    run = run_with({"mine": {"name": "m", "url": url}})
    refused = next(q.id for q in Teaching.questions.values() if q.modality == "text")
    Teaching.reply = staticmethod(lambda q, sample: (400, "content_filter") if q.id == refused else right(q, sample))
    own = distill.run(run)["teachers"]["mine"]
    assert own["rejected"]["refused or empty"] == 3 and own["right"] == 33 and own["solved"] == 11


def test_a_teacher_that_answers_nothing_is_a_sentence(url):
    run = run_with({"mine": {"name": "m", "url": url, "asks": "text"}})
    Teaching.reply = staticmethod(lambda q, sample: "")
    with pytest.raises(
        UserError, match=r"no teacher gave .* for train_text \(mine: refused or empty 24\); read the .*02b"
    ):
        distill.run(run)
    assert not (run.folder / "02b_distill/metrics.json").exists()
    many = run_with({"mine": {"name": "n", "url": url, "asks": "text"}}, "many", **{"data.train_text_size": 150})
    before = len(Teaching.asked)
    with pytest.raises(
        UserError, match=r"distill.teachers.mine: n refused, or answered with nothing, all 64 questions"
    ):
        distill.run(many)
    assert len(Teaching.asked) - before == 64  # and not the other 86


def test_a_teacher_that_cannot_be_reached_or_refuses_the_key_is_a_sentence(url, monkeypatch):
    monkeypatch.setattr("medvlt_lib.rollout.chat_client.time.sleep", lambda seconds: None)
    run = run_with({"far": {"name": "m", "url": "http://127.0.0.1:9/v1", "asks": "text"}}, "far")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/v1 cannot be reached \(.*\); check the address"):
        distill.run(run)
    monkeypatch.setenv("OPENAI_API_KEY", "for-another-house")
    monkeypatch.setenv("MY_KEY", "mine")
    run = run_with({"mine": {"name": "m", "url": url, "asks": "text", "key": "MY_KEY"}})
    Teaching.reply = staticmethod(lambda q, sample: (401, "invalid_api_key"))
    with pytest.raises(UserError, match="refuses the key; set MY_KEY"):
        distill.run(run)
    assert Teaching.keys == {"Bearer mine"}
    Teaching.reply = staticmethod(right)
    assert distill.run(run)["traces_text"] == 8


def test_the_phantom_teacher_knows_its_own_questions_only(url, tmp_path):
    name = "UCSC-VLAA/MedVLThinker-m23k-tokenized"
    put(tmp_path, name, [unified_row(i) for i in range(6)])
    changes = {"data.train_text": f"hub:{name}", "data.mirror": str(tmp_path), "data.train_text_size": 6}
    run = run_with({"own": {"name": "phantom:own"}}, **changes)
    with pytest.raises(UserError, match="has no steps, which the phantom teacher writes down"):
        distill.run(run)
    with pytest.raises(UserError, match="unknown style of the phantom teacher 'base'"):
        distill.run(run_with({"own": {"name": "phantom:base"}}, "base"))
    with pytest.raises(UserError, match=r"distill.teachers.gpt: cannot load a model from ./nowhere .* give its url"):
        distill.run(run_with({"gpt": {"name": "./nowhere"}}, "nowhere"))


# --- money, kills, clusters ---


def test_the_cost_is_told_before_and_the_cap_stops_in_one_sentence_and_goes_on(url, capsys):
    priced = {"name": "m", "url": url, "asks": "text", "samples": 2, "max_new_tokens": 50, "concurrency": 2}
    priced |= {"prompt_price": 100.0, "completion_price": 200.0}
    seen = []
    Teaching.reply = staticmethod(lambda q, sample: seen.append(capsys.readouterr().err) or right(q, sample))
    with pytest.raises(
        UserError, match=r"the cap is distill.teachers.mine.max_cost = 0.2; raise it, and the same command"
    ):
        distill.run(run_with({"mine": {**priced, "max_cost": 0.2}}))
    told = next(text for text in seen if text)  # before the first answer
    assert "teacher mine: 2 answers to each of 8 text questions are missing; they cost up to about " in told
    assert "distill.teachers.mine.max_cost = 0.2 leaves 0.20 dollars" in told
    most = float(told.partition("up to about ")[2].partition(" dollars")[0])
    prompts = [len(prompt_text(q).encode()) + 64 for q in Teaching.questions.values() if q.modality == "text"]
    assert most == pytest.approx((2 * sum(prompts) * 100 + 8 * 2 * 50 * 200) / 1e6, abs=0.006)
    enough = int(told.partition("at least ")[2].partition(" ")[0])
    first = list(Teaching.asked)
    assert enough <= len(first) < 8
    cost = sum(len(text) * 100 + 2 * TOKENS * 200 for text in Teaching.texts) / 1e6
    assert cost <= 0.2
    metrics = distill.run(run_with({"mine": {**priced, "max_cost": 5.0}}))
    assert metrics["traces_text"] == 8 and len(Teaching.asked) == len(set(Teaching.asked)) == 8
    spent = sum(len(text) * 100 + 2 * TOKENS * 200 for text in Teaching.texts) / 1e6
    [ledger] = [read_json(p)["dollars"] for p in (run_with({}).folder.parents[1] / "cache/openai").glob("spent-*.json")]
    assert ledger == pytest.approx(spent)


def test_without_prices_tokens_are_told(url, capsys):
    distill.run(run_with({"mine": {"name": "m", "url": url, "asks": "text", "samples": 1, "max_new_tokens": 50}}))
    assert "tokens of prompts and 400 of answers, whose price is not known (prompt_price" in capsys.readouterr().err


def test_killed_in_the_middle_it_asks_nothing_twice_and_ends_the_same(url, tmp_path):
    concurrency = 4
    teachers = {"mine": {"name": "m", "url": url, "asks": "text", "samples": 2, "concurrency": concurrency}}
    run = run_with(teachers, **{"data.train_text_size": 150})
    Teaching.stall_after = 100
    command = [sys.executable, "-m", "medvlt_lib", "distill", "--run", "run"]
    killed = subprocess.Popen(command, env={**os.environ, "TQDM_DISABLE": "1"}, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(concurrency):  # once all of them wait, every answer before is in the cache
            assert Teaching.stalled.acquire(timeout=120), killed.communicate(timeout=5)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
    assert len(list((run.folder / "02b_distill/answers").rglob("part-*.jsonl"))) == 1  # of three
    Teaching.stall_after = None
    assert medvlt(tmp_path, "distill", "--run", "run").returncode == 0
    assert Counter(Teaching.asked) == Counter({q.id: 1 for q in Teaching.questions.values() if q.modality == "text"})
    whole = run_with(teachers, "whole", **{"data.train_text_size": 150})
    distill.run(whole)
    ours, theirs = run.folder / "02b_distill", whole.folder / "02b_distill"
    for name in ("traces_text.parquet", "metrics.json", *(f"answers/mine/text/part-0000{i}.jsonl" for i in range(3))):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_a_cluster_asks_no_server(url):
    with pytest.raises(UserError, match=r"distill.teachers.mine is asked at a server, from one machine"):
        distill.run(run_with({"mine": {"name": "m", "url": url}}), ray="local:2")


# --- settings ---


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        ({"name": "m", "url": "u", "prompt": "boxed"}, "distill.teachers.a is asked for answers in a box, which"),
        ({"name": "m", "url": "u", "max_cost": 1.0}, "distill.teachers.a.max_cost needs its prompt_price"),
        ({"name": "m", "sample": 1}, "distill.teachers.a.sample is not a setting"),
        ({"url": "u"}, "distill.teachers.a.name: field required"),
    ],
)
def test_teachers_that_cannot_work_are_refused_before_anything(teacher, sentence):
    with pytest.raises(UserError, match=sentence):
        load_profile("tiny", {"distill.teachers": {"a": teacher}})


def test_a_teacher_without_url_beside_a_served_model_and_a_name_that_is_no_folder_are_refused():
    served = {"engine.kind": "openai", "engine.url": "http://h/v1", "distill.teachers": {"a": {"name": "m"}}}
    with pytest.raises(UserError, match=r"distill.teachers.a has no url, and engine.kind openai loads no model"):
        load_profile("tiny", served)
    with pytest.raises(UserError, match=r"distill.teachers.\.\./a"):
        load_profile("tiny", {"distill.teachers": {"../a": {"name": "m"}}})


def test_one_key_of_a_teacher_can_be_changed_and_all_be_replaced(url):
    """As --set gives them, as text, and from one command to the next."""
    run = run_with(f"{{mine: {{name: m, url: '{url}', asks: text}}}}")
    changed = {"distill.teachers.mine.max_cost": "100", "distill.teachers.mine.prompt_price": "2.5"}
    changed["distill.teachers.mine.completion_price"] = "10"
    raised = open_run("tiny", "run", changed)
    mine = raised.profile.distill.teachers["mine"]
    assert (mine.url, mine.max_cost, mine.prompt_price) == (url, 100.0, 2.5)
    distill.run(raised)
    assert open_run("tiny", "run").profile.distill.teachers["mine"].max_cost == 100.0
    other = open_run("tiny", "run", {"distill.teachers": "{own: {name: phantom:own}}"})
    assert list(other.profile.distill.teachers) == ["own"] and run.profile.distill.teachers["mine"].max_cost is None


def test_without_a_teacher_a_sentence_names_one(url):
    with pytest.raises(
        UserError, match=r"distill.teachers names no teacher, and published chains of thought need none"
    ):
        distill.run(run_with({}))


# --- on to SFT ---


def test_the_phantom_teacher_offline_and_sft_on_what_it_wrote(tmp_path):
    foreign = "distill.teachers={foreign: {name: phantom:foreign}}"
    assert medvlt(tmp_path, "data", "--profile", "tiny", *settings()).returncode == 0
    for command in (["distill", "--set", foreign], ["sft", "--set", "sft.data=distilled", "--set", "sft.max_steps=2"]):
        done = medvlt(tmp_path, *command)
        assert done.returncode == 0, done.stderr[-2000:]
    run = tmp_path / "runs/tiny"
    questions, found = (
        read_questions(run / path) for path in ("01_data/train_text.parquet", "02b_distill/traces_text.parquet")
    )
    assert [t.reasoning for t in found] == [write_trace(q, "foreign") for q in questions]
    assert all(t.reasoning != q.reasoning for t, q in zip(found, questions, strict=True))
    made_with = read_json(run / "03_sft/sft_text/stage.json")
    assert made_with["inputs"]["data"] == file_hash(run / "02b_distill/traces_text.parquet")
    assert made_with["settings"]["sft.data"] == "distilled"
    assert read_json(run / "manifest.json")["stages"]["02b_distill"]["state"] == "finished"


def test_sft_on_distilled_data_says_what_is_missing(url):
    run = run_with({"mine": {"name": "phantom:terse", "asks": "text"}})
    with pytest.raises(UserError, match=r"02b_distill is missing or unfinished; run `medvlt distill --run run` first"):
        arm_inputs(run, "03", "sft_text", "distilled", None, None)
    distill.run(run)
    assert count_questions(arm_inputs(run, "03", "sft_text", "distilled", None, None)["data"]) == 8
    with pytest.raises(UserError, match="no chains of thought for image questions, about which no teacher was asked"):
        arm_inputs(run, "03", "sft_image", "distilled", None, None)


def test_published_chains_of_thought_need_no_teacher(url, tmp_path):
    """They come with the rows of the published set, and SFT trains on the rows that have one."""
    name = "UCSC-VLAA/MedVLThinker-m23k-tokenized"
    put(tmp_path, name, [unified_row(i, **({"reasoning": None} if i == 3 else {})) for i in range(6)])
    changes = {"data.train_text": f"hub:{name}", "data.mirror": str(tmp_path), "data.train_text_size": 6}
    few = {"sft.batch": 4, "sft.micro_batch": 4, "sft.max_steps": 1, "sft.validate_every": None}
    run = run_with({}, **changes, **few)
    file = arm_inputs(run, "03", "sft_text", "train", None, None)["data"]
    assert sorted(q.reasoning or "" for q in read_questions(file)) == ["", *(f"Think {i}." for i in (0, 1, 2, 4, 5))]
    assert sft.run(run)["steps"] == 1


def test_traces_without_gold_are_a_sentence(url, tmp_path):
    run = run_with({})
    row = {
        "id": "q1",
        "dataset": "d",
        "split": "train",
        "modality": "text",
        "question": "?",
        "options": '{"A": "1", "B": "2"}',
    }
    (tmp_path / "bare.jsonl").write_text(json.dumps({**row, "reasoning": "because"}) + "\n")
    with pytest.raises(UserError, match=r"row q1 is not a question: .*answer_label.*; see Question"):
        sft.run(run, "mine", tmp_path / "bare.jsonl")


def test_noise_in_the_steps_reaches_the_trace_and_is_not_seen_by_the_grade():
    [question] = make_questions("curb65", "train", 1, trace_noise=1.0)
    assert question.noise["trace"] and write_trace(question, "own") == question.reasoning
