"""Settings that identity leaves out change no weights; a micro-batch that does is not left out."""

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.grading import rewards
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo, sft
from medvlt_lib.training.trainer import train_resumably

QUESTIONS = make_questions("curb65,nodule_count", "train", 8, seed=3)


def learned(stage, folder, **changes) -> torch.Tensor:
    """What a short training of the small model adds to its weights, in one row; from a checkpoint if there is one."""
    settings = {
        "model.name": "phantom:small", "sft.batch": 4, "sft.micro_batch": 4, "sft.max_steps": 1, "grpo.prompts": 2,
        "grpo.group_size": 4, "grpo.micro_batch": 8, "grpo.max_steps": 1, "grpo.max_completion_length": 64,
    }  # fmt: skip
    profile = load_profile("tiny", settings | changes)
    model = load_policy(profile, trainable=True)
    before = torch.cat([w.detach().flatten() for w in model.parameters()])
    trainer = stage.make_trainer(profile, model, profile_processor(profile), QUESTIONS, folder)
    train_resumably(trainer, "loss")
    return torch.cat([w.detach().flatten() for w in model.parameters()]) - before


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The distance of two trainings, as a share of how far the first one went."""
    return float((one - other).norm() / one.norm())


@pytest.fixture(scope="module")
def whole_sft(tmp_path_factory):
    return learned(sft, tmp_path_factory.mktemp("sft"))


@pytest.mark.parametrize(
    ("key", "value"), [("sft.micro_batch", 1), ("sft.gradient_checkpointing", True), ("sft.save_every", 1)]
)
def test_sft(key, value, whole_sft, tmp_path):
    counts = key in load_profile("tiny").identity("sft")
    assert (difference(whole_sft, learned(sft, tmp_path, **{key: value})) > 0.01) is counts


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "bnpo"])
def test_grpo(loss, tmp_path, monkeypatch):
    """Rewards differ within a group and completions in length, so that every loss has something to weigh."""
    monkeypatch.setattr(rewards, "published", one_to_four)
    whole = learned(grpo, tmp_path / "a", **{"grpo.loss_type": loss})
    less = {"grpo.micro_batch": 2, "grpo.gradient_checkpointing": True, "grpo.save_every": 1}
    cut = learned(grpo, tmp_path / "b", **{"grpo.loss_type": loss}, **less)
    counts = "grpo.micro_batch" in load_profile("tiny", {"grpo.loss_type": loss}).identity("grpo")
    assert (difference(whole, cut) > 0.01) is counts


def test_a_started_arm_goes_on_with_a_smaller_micro_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "published", one_to_four)
    whole = learned(grpo, tmp_path / "whole", **{"grpo.max_steps": 2})
    learned(grpo, tmp_path / "cut", **{"grpo.max_steps": 1})  # stopped behind its first checkpoint
    continued = learned(grpo, tmp_path / "cut", **{"grpo.max_steps": 2, "grpo.micro_batch": 2})
    assert difference(whole, continued) < 0.01


def one_to_four(completions, **_) -> list[float]:
    return [float(i % 4) for i in range(len(completions))]
