"""Pass-rate filtering: decisions against arithmetic, provenance, the adaptive mode against full sampling."""

import itertools
import json
import math
import shutil
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.config import Data, load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import read_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.data.sources import load_set
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import data as stage
from medvlt_lib.stages import filtering
from medvlt_lib.stages.filtering import Count, in_band, keep, posterior
from medvlt_lib.tools.export import export_data
from medvlt_lib.tools.sharing import push

SMALL = {
    "model.name": "phantom:small",
    "data.train_text_size": 48,
    "data.train_image_size": 48,
    "data.validation_size": 5,
    "data.test_size": 10,
    "filtering.samples": 8,
    "filtering.keep_from": 0,
    "filtering.keep_to": 6,
    "filtering.max_new_tokens": 48,
}


def test_in_band_is_the_beta_binomial():
    """Against the sum over every way in which the remaining samples can fall, by exact integrals of a uniform prior."""
    passed, asked, samples, low, high = 1, 3, 6, 2, 4
    # P(next outcomes have k successes | data) = C(r,k) B(passed+1+k, asked-passed+1+r-k) / B(passed+1, asked-passed+1)
    beta = lambda a, b: math.gamma(a) * math.gamma(b) / math.gamma(a + b)  # noqa: E731
    r = samples - asked
    chance = [
        math.comb(r, k) * beta(passed + 1 + k, asked - passed + 1 + r - k) / beta(passed + 1, asked - passed + 1)
        for k in range(r + 1)
    ]
    assert sum(chance) == pytest.approx(1)
    expected = sum(p for k, p in enumerate(chance) if low <= passed + k <= high)
    assert in_band(passed, asked, samples, low, high) == pytest.approx(expected)
    assert [in_band(c, 16, 16, 1, 7) for c in (0, 1, 7, 8)] == [0, 1, 1, 0]


def test_posterior_and_groups_without_variance():
    questions = make_questions("curb65", "train", 2)
    counts = {questions[0].id: Count(4, 16), questions[1].id: Count(0, 16)}
    figures = posterior(counts, 8)
    assert figures[questions[0].id]["pass_rate"] == pytest.approx(5 / 18)
    # E[p^8] + E[(1-p)^8] under Beta(5, 13), as products of rising factorials
    rising = lambda a: math.prod((a + i) / (18 + i) for i in range(8))  # noqa: E731
    assert figures[questions[0].id]["zero_variance"] == pytest.approx(rising(5) + rising(13))
    assert figures[questions[1].id]["zero_variance"] > 0.6
    assert 0.05 < figures[questions[0].id]["pass_rate_low"] < 5 / 18 < figures[questions[0].id]["pass_rate_high"] < 0.6


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, **settings):
        run = open_run("tiny", name, {**SMALL, **settings})
        stage.run(run)
        return run

    return make


def rollouts(run):
    return {p.name: p.read_bytes() for p in sorted((run.folder / "02_filtering/rollouts").glob("*.jsonl"))}


def unfinished(run):
    """A filter stage that was stopped after its last rollout, before anything was counted."""
    filtering.run(run)
    (run.folder / "02_filtering/metrics.json").unlink()
    return run


@pytest.mark.parametrize(
    ("key", "value"),
    [("weights", "another"), ("engine", "vllm 1"), ("prompt_style", "no-think"), ("grader", "tolerant")],
)
def test_rollouts_of_another_provenance_are_refused(run_of, key, value):
    run = unfinished(run_of("mixed"))
    part = run.folder / "02_filtering/rollouts/part-00001.jsonl"
    rows = [json.loads(line) for line in part.read_text().splitlines()]
    rows[-1][key] = value
    part.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(UserError, match=f'part-00001.jsonl holds rollouts with {key} = "{value}"'):
        filtering.run(run)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_a_sentence(run_of):
    with pytest.raises(UserError, match=r"engine\.kind is vllm, but vLLM does not load"):
        filtering.run(run_of("without", **{"engine.kind": "vllm"}))


def test_rollouts_of_other_questions_and_torn_parts_are_refused(run_of):
    run = unfinished(run_of("torn"))
    folder = run.folder / "02_filtering/rollouts"
    good = (folder / "part-00000.jsonl").read_bytes()
    (folder / "part-00000.jsonl").write_bytes((folder / "part-00001.jsonl").read_bytes())
    with pytest.raises(UserError, match="a question of another part or run"):
        filtering.run(run)
    (folder / "part-00000.jsonl").write_bytes(good[:-30])
    with pytest.raises(UserError, match=r"part-00000\.jsonl, line \d+ is torn"):
        filtering.run(run)


def test_adaptive_asks_less_and_takes_the_same_samples(run_of):
    band = {"filtering.keep_from": 1, "filtering.keep_to": 4}
    full, less = run_of("full", **band), run_of("less", **{"filtering.mode": "adaptive", **band})
    filtering.run(full)
    metrics = filtering.run(less)
    rows = {
        n: [json.loads(line) for part in rollouts(r).values() for line in part.decode().splitlines()]
        for n, r in (("full", full), ("less", less))
    }
    texts = {(r["id"], r["sample"]): r["text"] for r in rows["full"]}
    assert all(texts[r["id"], r["sample"]] == r["text"] for r in rows["less"])
    assert metrics["rollouts"] == len(rows["less"]) < len(rows["full"]) and metrics["saved"] == pytest.approx(
        1 - len(rows["less"]) / len(rows["full"]), abs=1e-4
    )
    for _, own in itertools.groupby(rows["less"], key=lambda r: r["id"]):
        own = list(own)
        assert [r["sample"] for r in own] == list(range(len(own)))
        for asked in [
            a for a in filtering.decisions(8)[1:] if a < len(own)
        ]:  # it was open before each further question
            assert 0.05 < in_band(sum(r["passed"] for r in own[:asked]), asked, 8, 1, 4) < 0.95
        assert len(own) == 8 or not 0.05 < in_band(sum(r["passed"] for r in own), len(own), 8, 1, 4) < 0.95
    counts = {r["id"]: r for r in pq.read_table(less.folder / "02_filtering/pass_counts.parquet").to_pylist()}
    assert sum(c["samples"] for c in counts.values()) == len(rows["less"])
    kept = read_questions(less.folder / "02_filtering/kept_text.parquet")
    rates = [counts[q.id]["pass_count"] / counts[q.id]["samples"] for q in kept]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(("low", "high", "error"), [(0, 3, 0.3), (0, 7, 0.05)])
def test_adaptive_never_decides_before_an_answer(run_of, low, high, error):
    """A wide error, or a band that holds nearly every count, is decided by the prior alone: something must be asked."""
    run = run_of(
        "wide",
        **{
            "filtering.mode": "adaptive",
            "filtering.error": error,
            "filtering.keep_from": low,
            "filtering.keep_to": high,
        },
    )
    assert filtering.decided(0, 0, run.profile.filtering) is False
    metrics = filtering.run(run)
    assert metrics["rollouts"] >= 2 * metrics["questions"]
    assert filtering.run(run) == metrics


def test_another_band_is_another_choice_only_in_full_mode(run_of):
    run = run_of("band")
    filtering.run(run)
    before = rollouts(run)
    again = open_run("tiny", "band", {"filtering.keep_to": 5})
    filtering.run(again)
    assert rollouts(again) == before
    counts = {
        r["id"]: r["pass_count"] for r in pq.read_table(run.folder / "02_filtering/pass_counts.parquet").to_pylist()
    }
    assert all(counts[q.id] <= 5 for q in read_questions(run.folder / "02_filtering/kept_text.parquet"))


def test_keep_orders_easy_to_hard_within_the_band():
    questions = make_questions("curb65", "train", 6)
    counts = {q.id: Count(c, 16) for q, c in zip(questions, (0, 3, 7, 8, 1, 16), strict=True)}
    settings = load_profile("tiny", {"filtering.keep_to": 7}).filtering
    ids = [q.id for q in questions]
    assert [counts[ids[i]].passed for i in keep(ids, counts, settings)] == [7, 3, 1]


def test_exported_sets_load_in_the_published_columns(run_of, tmp_path):
    import datasets

    run = run_of("export")
    filtering.run(run)
    done = CliRunner().invoke(app, ["export-data", "--run", "export", "--out", "out"])
    assert done.exit_code == 0, done.output
    image = datasets.load_dataset(str(tmp_path / "out"), "kept_image", split="train")
    questions = read_questions(run.folder / "02_filtering/kept_image.parquet")
    assert image["id"] == [q.id for q in questions]
    assert image[0]["images"][0].size == (112, 112) and json.loads(image[0]["options"]) == questions[0].options
    assert 0 <= image[0]["pass_count"] <= 6 and image[0]["samples"] == 8
    card = (tmp_path / "out/README.md").read_text()
    assert "not for clinical use" in card and "- grader: published" in card
    back = Data(train_image="hub:out", train_image_size=1000, mirror=str(tmp_path))
    (tmp_path / "out/train").mkdir()  # as one split, it is read like any published set
    for name in ("kept_text", "control_text", "control_image"):
        shutil.rmtree(tmp_path / "out" / name)
    (tmp_path / "out/README.md").unlink()
    again = list(load_set("train_image", back))
    assert {q.question for q in again} == {q.question for q in questions} and len(again) == len(questions)
    with pytest.raises(UserError, match="is not empty"):
        export_data(run, tmp_path / "out")


def test_pushing_without_a_network_is_a_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="the Hub did not take some/one"):
        push("out", "some/one", "dataset")
