"""Which step a checkpoint is of, and that looking at validation questions changes nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.records import write_questions
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo
from medvlt_lib.training.validation import Validation, chosen_step, validation_slice

SHORT = {
    "model.name": "phantom:small", "grpo.prompts": 2, "grpo.group_size": 4, "grpo.micro_batch": 4, "grpo.max_steps": 6,
    "grpo.save_every": 2, "grpo.max_completion_length": 32, "grpo.validate_every": 2, "grpo.validation_questions": 6,
    "eval.max_new_tokens": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for name, split in (("data", "train"), ("validation", "validation")):
        write_questions(make_questions("curb65,nodule_count", split, 24, seed=4), folder / f"{name}.parquet")
    return {"data": folder / "data.parquet", "validation": folder / "validation.parquet"}


def weights(folder):
    [path] = folder.glob("*.safetensors")
    return load_file(path)


def same(one, two):
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def scripted(monkeypatch, verdicts):
    """Validation that finds these verdicts, one list a look, whatever the weights are."""
    looks = iter(verdicts)
    monkeypatch.setattr(Validation, "validate", lambda self: next(looks))


def test_the_slice_is_spread_over_groups_and_always_the_same(files):
    chosen = validation_slice(files["validation"], 6)
    assert [q.group for q in chosen].count("curb65") == 3
    assert [q.id for q in chosen] == [q.id for q in validation_slice(files["validation"], 6)]
    assert len(validation_slice(files["validation"], 1000)) == 24


def test_a_validation_file_without_answers_is_a_sentence(tmp_path):
    questions = make_questions("curb65", "validation", 3, seed=4)
    questions[1].answer_label = questions[1].answer = None
    path = tmp_path / "validation.parquet"
    write_questions(questions, path)
    with pytest.raises(UserError, match=f"question {questions[1].id} has no answer to validate with"):
        validation_slice(path, 3)


def test_the_rule_follows_the_last_step_unless_the_best_is_better_beyond_chance():
    questions = make_questions("curb65,apgar", "validation", 40, seed=4)
    good, poor, near = [1] * 36 + [0] * 4, [1] * 8 + [0] * 32, [1] * 34 + [0] * 6
    collapsed = chosen_step({10: poor, 20: good, 30: poor}, questions)
    assert (collapsed.step, collapsed.best_step, collapsed.last_step) == (20, 20, 30)
    by_luck = chosen_step({10: poor, 20: good, 30: near}, questions)
    assert (by_luck.step, by_luck.best_step) == (30, 20)
    assert chosen_step({10: poor, 20: good}, questions).step == 20
    assert chosen_step({10: good, 20: good}, questions).best_step == 20  # of equal steps the later


def test_weights_are_those_of_training_without_validation(files, tmp_path):
    """Looking draws no random number and leaves no gradient; the log and the metrics say what was seen."""
    for name, settings, inputs in (
        ("with", SHORT, files),
        ("without", {**SHORT, "grpo.validate_every": None}, {"data": files["data"]}),
    ):
        (tmp_path / name).mkdir()
        metrics = grpo.train(load_profile("tiny", settings), inputs, tmp_path / name)
        if name == "with":
            assert metrics["checkpoint_step"] in (2, 4, 6) and set(metrics["validation_accuracy"]) == {"2", "4", "6"}
    last = "checkpoint" if not (tmp_path / "with" / "last").exists() else "last"
    assert same(tmp_path / "with" / last, tmp_path / "without" / "checkpoint")
    seen = [row for row in read_jsonl(tmp_path / "with" / "log.jsonl") if "validation_accuracy" in row]
    assert [row["step"] for row in seen] == [2, 4, 6]
    assert all(row["validation_low"] <= row["validation_accuracy"] <= row["validation_high"] for row in seen)


def test_a_collapsed_run_is_rescued(files, tmp_path, monkeypatch):
    """The checkpoint holds the weights of step 4, as a run that ends there has them; the last ones lie beside it."""
    many = {**SHORT, "grpo.validation_questions": 24}
    scripted(monkeypatch, [[0] * 24, [1] * 24, [0] * 24])
    metrics = grpo.train(load_profile("tiny", many), files, tmp_path)
    assert (metrics["checkpoint_step"], metrics["best_step"], metrics["steps"]) == (4, 4, 6)
    assert (tmp_path / "last").is_dir() and not (tmp_path / "best").exists()
    shorter = tmp_path / "shorter"
    shorter.mkdir()
    scripted(monkeypatch, [[0] * 24, [1] * 24])
    grpo.train(load_profile("tiny", {**many, "grpo.max_steps": 4}), files, shorter)
    assert same(tmp_path / "checkpoint", shorter / "checkpoint")
    assert not same(tmp_path / "checkpoint", tmp_path / "last")


def test_a_healthy_run_keeps_its_best_beside_the_last(files, tmp_path, monkeypatch):
    scripted(monkeypatch, [[0] * 6, [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]])
    metrics = grpo.train(load_profile("tiny", SHORT), files, tmp_path)
    assert (metrics["checkpoint_step"], metrics["best_step"]) == (6, 4)
    assert (tmp_path / "best").is_dir() and not (tmp_path / "last").exists()
    assert not same(tmp_path / "checkpoint", tmp_path / "best")


class PowerCut(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_what_was_validated_survives_a_power_cut(files, tmp_path):
    profile = load_profile("tiny", SHORT)
    results = []
    for name, cut in (("unbroken", []), ("broken", [PowerCut()])):
        (tmp_path / name).mkdir()
        if cut:
            with pytest.raises(KeyboardInterrupt):
                grpo.train(profile, files, tmp_path / name, cut)
        results.append(grpo.train(profile, files, tmp_path / name))
    keys = ("checkpoint_step", "best_step", "validation_accuracy")
    assert json.dumps([results[0][k] for k in keys]) == json.dumps([results[1][k] for k in keys])
    assert same(tmp_path / "unbroken" / "checkpoint", tmp_path / "broken" / "checkpoint")


def test_validation_needs_weights_that_can_answer():
    with pytest.raises(UserError, match=r"grpo\.validate_every needs grpo\.sampler engine"):
        load_profile("full-3b", {"grpo.validate_every": 10})
