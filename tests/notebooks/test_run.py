"""Every notebook runs by itself from the reference run, at smoke limits, and what it measures makes sense."""

import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pyarrow.parquet as pq
import pytest

from medvlt_lib.core.files import read_json, read_jsonl, write_json
from medvlt_lib.course.lesson import NOTEBOOKS, REFERENCE, RESULTS
from medvlt_lib.course.runner import run_course
from medvlt_lib.phantom.questions import make_questions
from tests.notebooks.claims import CLAIMS, Claim

# The stages before a notebook come from the reference run, so their settings stay as they are.
LIMITS = {
    "00_start_here": ({}, {"QUESTIONS": 8}),
    "01_data": (
        {"data.train_text_size": 40, "data.train_image_size": 20, "data.validation_size": 12, "data.test_size": 24},
        {"CHECKED": 200},
    ),
    "02_filtering": ({"filtering.samples": 2, "filtering.keep_from": 0, "filtering.keep_to": 1}, {}),
    "03_sft": ({"sft.max_steps": 2}, {"CHECKED": 8}),
    "04_grpo": ({"grpo.max_steps": 2}, {"CHECKED": 8}),
    "05_eval": ({"eval.max_new_tokens": 96}, {"CONTROLLED": ["base"]}),
    "06_analysis": ({}, {}),
}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """The metrics files of all notebooks, each run on its own, by name; `folder` is the run's."""
    found = {}
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("course"))
    try:
        for name, (settings, limits) in LIMITS.items():
            parameters = {"USE_REFERENCE": name not in ("00_start_here", "01_data"), "SETTINGS": settings, **limits}
            run = run_course("tiny", f"alone-{name[:2]}", name[:2], name[:2], parameters)
            metrics_file = run.folder / "notebooks" / f"{name}.metrics.json"
            found[name] = {**read_json(metrics_file), "folder": run.folder.resolve()}
            executed = nbformat.read(run.folder / "notebooks" / f"{name}.ipynb", as_version=4)
            assert "widgets" not in executed.metadata
            assert (run.folder / "notebooks" / f"{name}.stderr").is_file()
        yield found
    finally:
        os.chdir(before)


@pytest.mark.parametrize("claim", [c for c in CLAIMS if not c.whole], ids=lambda c: f"{c.notebook[:2]} {c.words[:60]}")
def test_the_output_is_as_the_text_says(metrics, claim: Claim):
    assert claim.holds(metrics[claim.notebook]), claim.words


@pytest.fixture(scope="module")
def whole_course(tmp_path_factory):
    """The folder of the metrics files of a whole course: of the run that MEDVLT_RUN names, or of one made here."""
    if named := os.environ.get("MEDVLT_RUN"):
        return Path(named) / "notebooks"
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("whole"))
    try:
        return run_course("tiny", "whole", "00", "06").folder.resolve() / "notebooks"
    finally:
        os.chdir(before)


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: f"{c.notebook[:2]} {c.words[:60]}")
def test_the_whole_course_is_as_the_text_says(whole_course, claim: Claim):
    assert claim.holds(read_json(whole_course / f"{claim.notebook}.metrics.json")), claim.words


def test_start_here(metrics):
    m = metrics["00_start_here"]
    assert len(m["pass_counts"]) == 5 and 0 < sum(m["pass_counts"]) < 5 * 16
    assert m["sft_loss"][1] < m["sft_loss"][0]
    assert m["log_probability_change"]["right"] > m["log_probability_change"]["wrong"]


def test_data(metrics):
    m = metrics["01_data"]
    assert m["questions"] == {"train_text": 40, "train_image": 20, "validation": 12, "test": 24}
    assert m["cleaning"] == {
        "read": 20,
        "kept": 16,
        "dropped": {"Choice B": 1, "Answer_label": 1, "Answer": 1, "images": 1},
    }
    assert max(m["above_chance"].values()) < 8  # 400 questions: twice the standard error is 5
    assert m["wrong_labels"] == 60


def test_filtering(metrics):
    m = metrics["02_filtering"]
    assert m["rollouts"] == 2 * sum(m["probed"].values())
    assert all(0 < m["kept"][kind] <= m["probed"][kind] for kind in ("text", "image"))
    rows = [row for part in (m["folder"] / "02_filtering" / "rollouts").iterdir() for row in read_jsonl(part)]
    assert m["truncated"] == pytest.approx(sum(row["truncated"] for row in rows) / len(rows), abs=1e-4)
    assert m["no_answer"] == pytest.approx(sum(row["letter"] is None for row in rows) / len(rows), abs=1e-4)
    assert all(0 <= saved < 1 and 0.5 <= agree <= 1 for saved, agree in m["adaptive"].values())
    assert all(values == sorted(values) for values in m["pass_at_k"].values())


def test_sft(metrics):
    m = metrics["03_sft"]
    assert m["steps"] == 2 and 0 < m["first_loss"] < math.log(512)
    assert m["loss_by_hand"][0] == pytest.approx(m["loss_by_hand"][1], abs=1e-4)


def test_what_notebook_03_says_of_memory():
    steps = read_json(RESULTS / "memory-tiny.json")["steps"]
    sft = {s["weights"]: s for s in steps if s["stage"] == "sft" and not s["checkpointing"]}
    saved = sft["full"]["parts_mb"]["weights"] - sft["nf4"]["parts_mb"]["weights"]
    assert round(saved) == 9 and round(sft["full"]["parts_mb"]["weights"]) == 15
    assert all(s["parts_mb"]["activations"] + s["parts_mb"]["logits"] > 1000 for s in sft.values())
    assert sft["nf4"]["counted_mb"] < sft["full"]["counted_mb"] and sft["nf4"]["seen_mb"] < sft["full"]["seen_mb"]
    assert sft["nf4"]["resident_mb"] > sft["full"]["resident_mb"]
    assert (4 + 4 + 8) * 3 == 48 and (4 + 4 + 8) * 7 == 112  # gigabytes for 3 and 7 billion weights
    small = [(0.5 + 4 / 64 + 0.01 * (4 + 4 + 8)) * n for n in (3, 7)]
    assert [round(gigabytes) for gigabytes in small] == [2, 5]


def test_what_notebook_03_says_of_the_teachers():
    recorded = read_json(RESULTS / "sft-styles-tiny.json")
    found, runs = recorded["summary"], recorded["runs"]
    assert found["own, clean"]["against_base"]["low"] > 0.15
    for name in ("foreign, clean", "foreign, noisy", "foreign, long", "terse, clean", "terse, noisy"):
        assert found[name]["against_base"]["high"] < -0.15 and abs(found[name]["accuracy"] - 0.3) < 0.06, name
        assert found[name]["accuracy_untruncated"] < 0.4, name
    noise = found["own, clean"]["accuracy"] - found["own, noisy"]["accuracy"]
    assert noise < 0.1 < 0.4 < found["own, clean"]["accuracy"] - found["foreign, clean"]["accuracy"]
    test = make_questions("curb65,apgar,cardiothoracic_ratio,nodule_count,cup_to_disc_ratio", "test", 400, seed=7)
    assert sum(1 / len(q.options) for q in test) / 400 == pytest.approx(0.3, abs=0.02)  # what guessing gives
    for seed in (0, 1):  # the short training is the first third of the long one
        short, long = (runs[f"foreign, {length}, {seed}"]["curve"] for length in ("clean", "long"))
        assert [row["accuracy"] for row in short] == [row["accuracy"] for row in long[: len(short)]]
        assert len(long) == 3 * len(short)
    for key, run in runs.items():
        assert run["last_loss"] < run["first_loss"], key
        if key.startswith("foreign, long"):
            last = run["curve"][-1]
            assert (
                last["styles"]["foreign"] > 0.95
                and last["accuracy"] < recorded["validation_at_start"]["accuracy"] - 0.15
            )


def test_grpo(metrics):
    m = metrics["04_grpo"]
    assert m["steps"] == 2
    assert m["rewards_shown"] == [1, 0, 0, 1, 0, 0, 1, 1]  # the published rule's own vectors
    assert abs(sum(m["advantages"])) < 0.05
    assert 2 * 128 * m["first_rewards"] == pytest.approx(round(2 * 128 * m["first_rewards"]))  # 0 or 1 each
    counts = pq.read_table(REFERENCE / "02_filtering" / "pass_counts.parquet").to_pylist()
    rates = {row["id"]: row["pass_count"] / row["samples"] for row in counts}
    kept = pq.read_table(REFERENCE / "02_filtering" / "kept_text.parquet", columns=["id"])["id"].to_pylist()
    # The policy has hardly moved: 16 prompts, 16 answers each, are within 4 standard errors of what filtering counted.
    assert m["first_rewards"] == pytest.approx(sum(rates[key] for key in kept) / len(kept), abs=0.22)


def test_by_hand_the_right_letter_gains_what_the_others_lose(metrics):
    m = metrics["04_grpo"]
    before, after = m["letters"]["before"], m["letters"]["after"]
    lost = {i: before[i] - after[i] for i in (0, 2, 3)}
    assert after[1] - before[1] > 0.2 and sum(lost.values()) > 0.2
    assert max(lost, key=lost.__getitem__) == max(lost, key=before.__getitem__)  # most where most was
    assert m["rewards_by_hand"][-1] > m["rewards_by_hand"][0] + 0.2


def test_what_notebook_04_says_of_its_ablations(metrics):
    runs = metrics["04_grpo"]["ablations"]
    healthy = runs["healthy"]
    assert healthy["end"] > healthy["rewards"][0] + 0.2 and healthy["without_signal"] < 0.25
    assert runs["rate too high"]["end"] < 0.1  # falls to 0, and no way leads back
    two, unfiltered = runs["groups of 2"], runs["unfiltered"]
    assert two["without_signal"] > healthy["without_signal"] + 0.2  # two answers often agree
    assert two["end"] > two["rewards"][0] + 0.15  # and learns all the same
    assert unfiltered["end"] > unfiltered["rewards"][0] + 0.1  # no clear effect: it learns, too
    assert runs["KL on"]["kl"] < 0.7 * healthy["kl"] and runs["KL on"]["end"] < healthy["end"] - 0.1


def checkpoint_cell(folder, log) -> None:
    """Run the cell of notebook 04 that says which checkpoint was kept."""
    notebook = nbformat.read(NOTEBOOKS / "04_grpo.ipynb", as_version=4)
    [source] = [c.source for c in notebook.cells if c.cell_type == "code" and "checkpoint_rule" in c.source]
    table = SimpleNamespace(show_table=lambda rows: print("\n".join(" | ".join(map(str, row)) for row in rows)))
    exec(source, {"folder": folder, "log": log, "lesson": table})


def test_which_checkpoint_is_told_where_validation_was_measured(tmp_path, capsys):
    write_json(tmp_path / "metrics.json", {"best_step": 10, "checkpoint_step": 20, "checkpoint_rule": "the last"})
    rows = [
        {"step": 10, "reward": 0.4},
        {"step": 10, "validation_accuracy": 0.625, "validation_low": 0.41, "validation_high": 0.8},
        {"step": 20, "validation_accuracy": 0.5, "validation_low": 0.3, "validation_high": 0.7},
    ]
    checkpoint_cell(tmp_path, rows)
    told = capsys.readouterr().out
    assert "10 | 62.5 | 41 to 80\n20 | 50.0 | 30 to 70\nbest at step 10; kept: step 20 (the last)" in told
    checkpoint_cell(tmp_path, rows[:1])
    assert "No validation accuracy was measured" in capsys.readouterr().out


def test_eval(metrics):
    m = metrics["05_eval"]
    assert set(m["macro"]) == {"base", "sft_text", "rl_text"}
    for arm, (low, high) in m["intervals"].items():
        assert 0 <= low <= m["macro"][arm] <= high <= 1
        if arm != "base":
            assert m["gains"][arm][0] == pytest.approx(m["macro"][arm] - m["macro"]["base"])
            pair = m["pairs"][f"{arm} − base"]
            assert m["gains"][arm][1:] == pytest.approx(
                [(pair["difference"] - pair["paired"]) / 100, (pair["difference"] + pair["paired"]) / 100], abs=0.01
            )  # drawn there, by its standard error here
    for names, pair in m["pairs"].items():
        after, before = (m["macro"][arm] for arm in names.split(" − "))
        assert pair["difference"] == pytest.approx(100 * (after - before))
    assert len(m["pairs"]) == 3


def right_answers(path) -> set[tuple]:
    """The (question, sample) of every right answer."""
    return {(row["id"], row["sample"]) for row in pq.read_table(path).to_pylist() if row["correct"]}


def answers_on(kind, path) -> list[str]:
    """The answers to questions of a modality, or to all."""
    return [row["text"] for row in pq.read_table(path).to_pylist() if kind in ("all", row["modality"])]


def test_analysis(metrics):
    m = metrics["06_analysis"]
    assert m["arms"] == ["base", "sft_text", "rl_text"]
    assert "rl_image" in m["not_run"]
    assert m["macro"]["rl_text"] > m["macro"]["base"]  # in the reference run, as in every recorded one
    answers = {arm: right_answers(REFERENCE / "05_eval" / arm / "answers.parquet") for arm in m["arms"]}
    for arm in m["arms"][1:]:
        better, worse = len(answers[arm] - answers["base"]), len(answers["base"] - answers[arm])
        tail = sum(math.comb(better + worse, k) for k in range(min(better, worse) + 1)) / 2 ** (better + worse)
        assert m["p_values"][arm] == pytest.approx(min(1.0, 2 * tail))  # the exact sign test
    stated = {(row["arm"], row["modality"]): row for row in m["steps"]}
    assert set(stated) == {(arm, kind) for arm in m["arms"] for kind in ("text", "image", "all")}
    for (arm, kind), row in stated.items():
        texts = answers_on(kind, REFERENCE / "05_eval" / arm / "answers.parquet")
        # a sum's total, or the first thing that is seen on one of the three kinds of picture
        works = sum(bool(re.search(r", total \d|chest \d|lung \d|disc \d", text)) for text in texts)
        assert (row["answers"], row["works"]["share"]) == (len(texts), pytest.approx(works / len(texts)))


def test_every_notebook_counts_its_time_and_memory(metrics):
    for m in metrics.values():
        assert m["seconds"] > 0 and 100 < m["peak_memory_mb"] < 20_000
