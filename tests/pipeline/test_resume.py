"""Training that stops between two checkpoints and starts again ends with the weights of training that never stopped."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.records import write_questions
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo, sft

SHORT = {
    "model.name": "phantom:small",
    "sft.batch": 4,
    "sft.micro_batch": 2,
    "sft.max_steps": 6,
    "sft.save_every": 2,
    "grpo.prompts": 2,
    "grpo.group_size": 4,
    "grpo.micro_batch": 4,
    "grpo.max_steps": 6,
    "grpo.save_every": 2,
    "grpo.max_completion_length": 48,
}


class PowerCut(TrainerCallback):
    """Ends the process's work in the middle of step 6, when the last checkpoint is that of step 4."""

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "mixed.parquet"
    write_questions(make_questions("curb65,nodule_count", "train", 24, seed=4), path)
    return path


@pytest.mark.parametrize("name", ["tiny", "tiny-qlora"])
@pytest.mark.parametrize(("stage", "updates"), [(sft, 1), (grpo, 1), (grpo, 2)])
def test_a_power_cut_changes_nothing(stage, updates, name, questions, tmp_path):
    profile = load_profile(name, {**SHORT, "grpo.updates": updates, "grpo.micro_batch": 4})
    one, two = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (one, two):
        folder.mkdir()
    stage.train(profile, {"data": questions}, one)
    torch.manual_seed(0)  # another process starts with other random numbers
    with pytest.raises(KeyboardInterrupt):
        stage.train(profile, {"data": questions}, two, [PowerCut()])
    assert (two / "training" / "checkpoint-4").is_dir()
    torch.manual_seed(1)
    stage.train(profile, {"data": questions}, two)
    [weights] = [p.name for p in (one / "checkpoint").glob("*.safetensors")]
    a, b = load_file(one / "checkpoint" / weights), load_file(two / "checkpoint" / weights)
    assert a.keys() == b.keys()
    assert max((a[k].float() - b[k].float()).abs().max().item() for k in a) <= 1e-6


def losses(folder):
    """The loss of every step, as log.jsonl keeps it."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().split("\n")[:-1])
    return [row["loss"] for row in rows if "loss" in row]


class StepCounter(TrainerCallback):
    """How many steps one process trains."""

    steps = 0

    def on_step_begin(self, args, state, control, **_):
        self.steps += 1


@pytest.mark.parametrize("name", ["tiny", "tiny-qlora"])
@pytest.mark.parametrize("stage", [sft, grpo])
def test_a_kill_after_the_last_step_trains_no_more(stage, name, questions, tmp_path, monkeypatch):
    """The last checkpoint is in the middle of an epoch, where transformers would go on training."""
    profile = load_profile(name, {**SHORT, "sft.max_steps": 5, "grpo.max_steps": 5})
    one, two = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (one, two):
        folder.mkdir()
    metrics = stage.train(profile, {"data": questions}, one)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "finish_training", killed)
        stage.train(profile, {"data": questions}, two)
    assert not (two / "checkpoint").exists() and (two / "training" / "checkpoint-5").is_dir()
    counter = StepCounter()
    assert stage.train(profile, {"data": questions}, two, [counter]) == metrics
    assert counter.steps == 0
    [weights] = [p.name for p in (one / "checkpoint").glob("*.safetensors")]
    assert (one / "checkpoint" / weights).read_bytes() == (two / "checkpoint" / weights).read_bytes()
    assert losses(one) == losses(two) and len(losses(one)) == 5
