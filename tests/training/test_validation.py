"""Validation while GRPO trains: a fixed slice, one rule for the checkpoint, and not one random number of training."""

from collections import Counter

import numpy as np
import pytest
from safetensors.torch import load_file

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, read_jsonl, write_jsonl
from medvlt_lib.core.records import to_row, write_questions
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_policy, profile_processor, shipped
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.stages import grpo
from medvlt_lib.training.validation import Validation, validation_slice

SHORT = {
    "model.name": "phantom:small", "grpo.prompts": 2, "grpo.group_size": 4, "grpo.micro_batch": 8, "grpo.max_steps": 6,
    "grpo.save_every": 2, "grpo.validate_every": 2, "grpo.validation_questions": 20, "grpo.max_completion_length": 48,
}  # fmt: skip
FAMILIES = "curb65,apgar,nodule_count"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """train.parquet and validation.parquet, the latter with three families of unlike size."""
    folder = tmp_path_factory.mktemp("files")
    write_questions(make_questions("curb65,nodule_count", "train", 24, seed=4), folder / "train.parquet")
    asked = make_questions("curb65", "validation", 30, seed=4) + make_questions(FAMILIES, "validation", 12, seed=5)
    write_questions(asked, folder / "validation.parquet")
    write_questions(make_questions(FAMILIES, "validation", 120, seed=5), folder / "large.parquet")
    return folder


def trained(files, folder, validated=True, asked="validation", **changes):
    """The metrics of a short training into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {"data": files / "train.parquet"} | ({"validation": files / f"{asked}.parquet"} if validated else {})
    return grpo.train(load_profile("tiny", {**SHORT, **changes}), inputs, folder)


def weights(folder):
    [path] = folder.glob("*.safetensors")
    return load_file(path)


# --- the slice ---


def test_the_slice_is_fixed_and_even(files):
    path = files / "validation.parquet"
    chosen = validation_slice(path, 9, seed=1)
    assert Counter(q.group for q in chosen) == {"curb65": 3, "apgar": 3, "nodule_count": 3}
    assert [q.id for q in chosen] == [q.id for q in validation_slice(path, 9, seed=1)]
    assert {q.id for q in chosen} != {q.id for q in validation_slice(path, 9, seed=2)}
    assert {q.id for q in chosen} < {q.id for q in validation_slice(path, 12, seed=1)}  # a larger one adds to it
    whole = validation_slice(path, 1000, seed=1)
    assert len(whole) == 42 and Counter(q.group for q in validation_slice(path, 40, 1))["apgar"] == 4


def test_a_validation_file_that_cannot_be_used_is_a_sentence(files, tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.parquet"):
        validation_slice(tmp_path / "none.parquet", 5, 0)
    rows = [to_row(q) for q in make_questions("curb65", "validation", 3)]
    rows[2] |= {"answer_label": None, "answer": None}
    (tmp_path / "torn.parquet").write_bytes((files / "validation.parquet").read_bytes()[:500])
    with pytest.raises(UserError, match=r"torn\.parquet cannot be read"):
        validation_slice(tmp_path / "torn.parquet", 5, 0)
    write_jsonl(tmp_path / "open.jsonl", [{k: v for k, v in row.items() if k != "images"} for row in rows])
    with pytest.raises(UserError, match=r"open\.jsonl: question .* has no answer to reward"):
        validation_slice(tmp_path / "open.jsonl", 1, 0)


# --- the rule ---


@pytest.fixture
def judged(files, tmp_path):
    """A validation of 40 questions in four equal families, whose history is whatever a test writes into it."""
    questions = make_questions("curb65,apgar,nodule_count,cup_to_disc_ratio", "validation", 40, seed=3)
    write_questions(questions, tmp_path / "v.parquet")
    changes = {**SHORT, "grpo.validation_questions": 40}
    return Validation(load_profile("tiny", changes), "grpo", tmp_path / "v.parquet", tmp_path)


def test_a_collapsed_run_is_rescued_and_a_healthy_one_keeps_its_last_step(judged):
    good, bad = [1] * 30 + [0] * 10, [0] * 36 + [1] * 4
    judged.right = {0: [i % 2 for i in range(40)], 10: good, 20: bad, 30: bad}
    assert (judged.best_step(), judged.chosen_step()) == (10, 10)
    slightly = [*good[1:], 0]  # one answer fewer than the best step
    judged.right = {0: [i % 2 for i in range(40)], 10: good, 20: slightly}
    assert (judged.best_step(), judged.chosen_step()) == (10, 20)
    assert judged.best_weights().name == "best-10"
    judged.right = {0: bad, 10: good, 20: good}
    assert (judged.best_step(), judged.chosen_step()) == (10, 20)  # of equals the first
    judged.right = {0: bad, 10: slightly, 20: good}
    assert judged.best_step() == judged.chosen_step() == 20 and judged.best_weights() is None


def test_luck_alone_seldom_moves_the_checkpoint(judged):
    """Seven steps of equal quality: the best of them looks better than the last, and is chosen in few runs."""
    draw, runs, moved, ahead = np.random.default_rng(0), 200, 0, 0
    for _ in range(runs):
        ability = draw.uniform(0.2, 0.8, 40)
        judged.right = {step: [int(x) for x in draw.random(40) < ability] for step in range(0, 70, 10)}
        ahead += judged.best_step() != 60
        moved += judged.chosen_step() != 60
    assert ahead > 0.7 * runs and moved <= 0.05 * runs


# --- training ---


def test_validation_changes_no_weight(steady_threads, files, tmp_path):
    """Bit for bit, with two updates from one sampling and dropout in the adapter, which draws random numbers."""
    lora = {"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.1}, "grpo.updates": 2, "grpo.micro_batch": 4}
    for name, changes in (("full", {}), ("lora", lora)):
        one, two = tmp_path / name / "with", tmp_path / name / "without"
        metrics = trained(files, one, **changes)
        trained(files, two, validated=False, **changes)
        last = one / ("last" if metrics["checkpoint_step"] < 6 else "checkpoint")
        a, b = weights(last), weights(two / "checkpoint")
        assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a), name


def test_no_picture_of_validation_is_kept(files, tmp_path, monkeypatch):
    """With an adapter the vision tower is frozen, and a step keeps what it saw; validation's pictures are no step's."""
    real, kept = Validation.answers, []

    def answers(validation, trainer, engine):
        right = real(validation, trainer, engine)
        kept.append([len(features._kept) for features in trainer.picture_features])
        return right

    monkeypatch.setattr(Validation, "answers", answers)
    trained(files, tmp_path, **{"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.0}})
    assert kept == [[0]] * 4


def test_log_and_metrics_hold_the_figures_of_the_engine(files, tmp_path):
    metrics = trained(files, tmp_path)
    rows = [row for row in read_jsonl(tmp_path / "log.jsonl") if "validation_accuracy" in row]
    assert [row["step"] for row in rows] == [0, 2, 4, 6] == [row["step"] for row in metrics["validation"]]
    for row, noted in zip(rows, metrics["validation"], strict=True):
        assert {key: row[key] for key in noted} == noted
        assert 0 <= row["validation_low"] <= row["validation_accuracy"] <= row["validation_high"] <= 1
    assert metrics["validation_questions"] == 20 and metrics["best_step"] in (0, 2, 4, 6)
    profile = load_profile("tiny", SHORT)
    validation = Validation(profile, "grpo", files / "validation.parquet", tmp_path)
    engine = TransformersEngine(load_policy(profile).eval(), profile_processor(profile))
    answers = engine.generate(prompts_of(validation.questions), validation.sampling())
    pairs = zip(answers, validation.questions, strict=True)
    validation.right[0] = [grade(c.text, q, "published", finish_reason=c.finish_reason).correct for c, q in pairs]
    assert validation.figures(0)["validation_accuracy"] == metrics["validation"][0]["validation_accuracy"]


def test_a_run_that_collapses_keeps_its_best_step(files, tmp_path):
    """A rate that destroys the model: checkpoint/ holds the best step, last/ what is left, and nothing else is kept."""
    changes = {"grpo.learning_rate": 3e-2, "grpo.validation_questions": 120}
    metrics = trained(files, tmp_path, asked="large", **changes)
    by_step = {row["step"]: row["validation_accuracy"] for row in metrics["validation"]}
    assert by_step[6] < 0.1 < by_step[metrics["best_step"]]
    assert metrics["checkpoint_step"] == metrics["best_step"] < 6 and metrics["best_minus_last"]["low"] > 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoint", "last", "log.jsonl"} <= names and "best" not in names
    assert not list((tmp_path / "training").glob("best-*"))[1:]  # beside the last one at most one
    kept, last = weights(tmp_path / "checkpoint"), weights(tmp_path / "last")
    assert any((kept[key] - last[key]).abs().max() > 0.05 for key in kept)
    if metrics["best_step"] == 0:
        base = weights(shipped("small"))
        assert all(kept[key].equal(base[key].float()) for key in kept)


def test_a_checkpoint_of_another_profile_is_a_sentence(files, tmp_path):
    """Another size of the model, and an adapter where all weights are trained; nothing on disk is lost."""
    trained(files, tmp_path / "own", validated=False, **{"grpo.max_steps": 2})
    foreign = tmp_path / "own" / "training" / "checkpoint-2"
    lora = {"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}
    for name, changes, words in (
        ("size", {"model.name": "phantom:base"}, "does not fit this profile's model"),
        ("kind", lora, "holds full weights, and this profile trains an adapter"),
    ):
        place = tmp_path / name / "training"
        place.mkdir(parents=True)
        (place / "checkpoint-2").symlink_to(foreign)
        with pytest.raises(UserError, match=rf"checkpoint-2 {words}.*delete the folder .*training"):
            trained(files, tmp_path / name, validated=False, **changes)
        assert (foreign / "trainer_state.json").exists()
    assert read_json(foreign / "trainer_state.json")["global_step"] == 2


def test_grpo_needs_the_validation_questions(files, tmp_path):
    from medvlt_lib.core.runs import open_run

    run = open_run("tiny", "run", root=tmp_path)
    with pytest.raises(UserError, match=r"01_data is missing or unfinished; run `medvlt data --run run` first\.$"):
        grpo.run(run, data=files / "train.parquet")
    assert not (run.folder / "04_grpo").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grpo.updates": 2, "grpo.micro_batch": 64, "grpo.validate_every": 5}, r"grpo\.validate_every 5 .*multiple"),
        ({"grpo.sampler": "trl-vllm-server", "launch.strategy": "ddp"}, r"set grpo\.validate_every null"),
        ({"grpo.sampler": "vllm", "launch.devices": 2, "launch.strategy": "ddp"}, r"vllm samples .* on one device"),
    ],
)
def test_settings_that_cannot_be_validated_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        load_profile("tiny", changes)
