"""Every loss, with updates after the first: the shared update walks where TRL's own path walks."""

import pytest
import torch
import trl.trainer.grpo_trainer as theirs
from transformers import TrainerCallback

from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training import grouped as ours

LOSSES = ("grpo", "dr_grpo", "bnpo", "dapo", "gspo", "cispo")


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("loss_type", LOSSES)
def test_twenty_steps_end_with_the_stock_paths_weights(make_trainer, monkeypatch, loss_type):
    """Two updates a sampling, so that ratios differ from 1 and are clipped; rows in order on both paths."""
    monkeypatch.setattr(theirs, "shuffle_sequence_dict", lambda batch: batch)
    monkeypatch.setattr(ours, "permuted_groups", lambda batch, group, generator: batch)
    settings = {
        "grpo.loss_type": loss_type, "grpo.updates": 2, "grpo.prompts": 2, "grpo.micro_batch": 4, "grpo.max_steps": 20,
        "grpo.save_every": 100, "grpo.epsilon_high": 0.28, "grpo.max_completion_length": 32,
        "grpo.learning_rate": 1e-4,
    }  # fmt: skip
    ends, starts = [], []
    for update in ("stock", "shared"):
        trainer = make_trainer(update, questions=make_questions("curb65,nodule_count", "train", 6, seed=3), **settings)
        starts.append(flat(trainer.model))
        trainer.train()
        ends.append(flat(trainer.model))
    assert trainer.shared and torch.equal(*starts)
    moved = (ends[0] - starts[0]).norm()
    assert moved > 0 and (ends[0] - ends[1]).norm() < 1e-3 * moved


def test_a_step_without_signal_ends_with_the_stock_paths_weights(make_trainer, monkeypatch):
    """AdamW's momentum and decay move the weights in the second of four steps, whose rewards are all equal."""
    monkeypatch.setattr(theirs, "shuffle_sequence_dict", lambda batch: batch)
    monkeypatch.setattr(ours, "permuted_groups", lambda batch, group, generator: batch)

    def reward(completions, trainer_state, **_):
        dead = trainer_state.global_step == 1
        return [1.0 if dead else len(completion[0]["content"]) % 7 / 7 for completion in completions]

    settings = {
        "grpo.updates": 1, "grpo.max_steps": 4, "grpo.micro_batch": 8, "grpo.save_every": 100, "grpo.weight_decay": 0.1,
        "grpo.learning_rate": 1e-4,
    }  # fmt: skip
    walks = []
    for update in ("stock", "shared"):
        trainer, walk = make_trainer(update, **settings), Weights()
        monkeypatch.setattr(trainer, "reward_funcs", [reward])
        trainer.add_callback(walk)
        trainer.train()
        silent = trainer.state.log_history[1]
        assert silent["frac_reward_zero_std"] == 1 and silent["grad_norm"] == 0
        walks.append(walk.after)
    assert trainer.shared and [row["live_groups"] > 0 for row in trainer.state.log_history[:3]] == [True, False, True]
    assert (walks[1][1] - walks[1][0]).norm() > 0
    for one, two, before in zip(*walks, [walks[0][0], *walks[0]], strict=False):
        moved = (one - before).norm()
        assert (one - two).norm() <= 1e-3 * max(moved, (walks[0][1] - walks[0][0]).norm())


class Weights(TrainerCallback):
    """The weights after every step."""

    def __init__(self):
        self.after = []

    def on_step_end(self, args, state, control, model, **_):
        self.after.append(flat(model))


def test_a_profile_becomes_trls_settings(make_trainer):
    """CISPO's upper bound is that of the ratio in TRL; GSPO is the grpo loss with one ratio a completion."""
    cispo = make_trainer("shared", **{"grpo.loss_type": "cispo", "grpo.epsilon": 0.2}).args
    gspo = make_trainer("shared", **{"grpo.loss_type": "gspo", "grpo.epsilon_high": 0.28}).args
    assert (cispo.loss_type, cispo.epsilon_high, cispo.importance_sampling_level) == ("cispo", 1.2, "token")
    assert (gspo.loss_type, gspo.epsilon_high, gspo.importance_sampling_level) == ("grpo", 0.28, "sequence")


def test_a_frozen_tower_looks_at_a_picture_once_a_step(make_trainer):
    """With LoRA the vision tower is frozen: sampling, reference and two updates share what it saw."""
    settings = {"grpo.updates": 2, "grpo.beta": 0.01, "grpo.micro_batch": 8}
    trainer = make_trainer("shared", "nodule_count,cup_to_disc_ratio", profile="tiny-qlora", **settings)
    seen = []
    tower = trainer.model.get_base_model().model.visual
    tower.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    trainer.args.max_steps = 2
    trainer.train()
    assert trainer.shared is not None
    assert sum(seen) == 4  # two updates are one step of sampling: four pictures, each once
