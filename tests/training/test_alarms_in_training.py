"""Each alarm rings in a training run that has the fault it names, and none in one that has not.

Runs of the smallest model, a few steps each; so the alarms look back over fewer steps than they do for a user.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from medvlt_lib.grading.published import in_form
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training import monitor, watched
from medvlt_lib.training.monitor import alarms
from medvlt_lib.training.vllm_sampler import sample_with

TEXT, PICTURES = "curb65,apgar", "nodule_count,cup_to_disc_ratio"
SETTINGS = {
    "grpo.group_size": 8, "grpo.micro_batch": 32, "grpo.max_completion_length": 64, "grpo.learning_rate": 1e-4,
    "grpo.save_every": 100,
}  # fmt: skip


@pytest.fixture
def log_of(make_trainer, monkeypatch):
    """The log of a training run; `prepare` gets the trainer before it starts."""
    for module, name, value in ((monitor, "RECENT", 4), (monitor, "PATIENCE", 12), (watched, "EVERY", 1)):
        monkeypatch.setattr(module, name, value)

    def run(families=TEXT, steps=12, prepare=None, **settings):
        questions = make_questions(families, "train", 8, seed=3)
        steps = {"grpo.max_steps": steps}
        trainer = make_trainer("shared", questions=questions, **{**SETTINGS, **steps, **settings})
        if prepare:
            prepare(trainer)
        trainer.train()
        return trainer.state.log_history

    return run


def rewarded_with(reward):
    """What makes a trainer reward every completion with `reward(text)`."""

    def prepare(trainer):
        trainer.reward_funcs = [lambda completions, **_: [reward(c[0]["content"]) for c in completions]]

    return prepare


def blinded(trainer):
    """The model is shown nothing of its pictures."""
    inner = trainer.model.model
    features = inner.get_image_features

    def blank(*args, **kwargs):
        output = features(*args, **kwargs)
        output.pooler_output = tuple(0 * own for own in output.pooler_output)
        return output

    inner.get_image_features = blank


def no_weight_reaches_the_loss(trainer):
    for name, weight in trainer.model.named_parameters():
        weight.requires_grad_("visual" in name)
    blinded(trainer)


def badly_sampled(trainer):
    """The engine that samples says of its answers what another policy would say."""
    rollout = trainer.rollout_func

    def noisy(prompts, own):
        done = rollout(prompts, own)
        noise = torch.Generator().manual_seed(own.state.global_step)
        done["logprobs"] = [
            (torch.tensor(row) + 0.8 * torch.randn(len(row), generator=noise)).tolist() for row in done["logprobs"]
        ]
        return done

    trainer.rollout_func = noisy
    sample_with(trainer, SimpleNamespace(sync_weights=lambda: None))


class Sharper(TrainerCallback):
    """After every step the policy is surer of what it would have said anyway."""

    def on_step_end(self, args, state, control, model, **_):
        with torch.no_grad():
            model.model.language_model.norm.weight.mul_(1.5)


def sharpened(trainer):
    trainer.add_callback(Sharper)


FAULTS = {
    "constant reward": {"steps": 4, "prepare": rewarded_with(lambda text: 0.7)},
    "reward without gradient": {"steps": 4, "prepare": no_weight_reaches_the_loss, "families": PICTURES},
    "entropy collapse": {"steps": 10, "prepare": sharpened},
    "lengths at the cap": {"steps": 4, "grpo.max_completion_length": 12},
    "rate too high": {"steps": 16, "grpo.learning_rate": 3e-3, "grpo.warmup_ratio": 0.9},  # it learns while it warms up
    "nothing is learnt": {"steps": 12, "grpo.learning_rate": 1e-9},
    "form hacking": {
        "steps": 14, "prepare": rewarded_with(lambda text: float(in_form(text))), "grpo.max_completion_length": 30,
        "grpo.learning_rate": 3e-4, "families": "curb65,nodule_count",
    },
    "sampler is another policy": {"steps": 4, "prepare": badly_sampled},
    "pictures do not matter": {"steps": 4, "prepare": blinded, "families": PICTURES},
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_rings_its_alarm(log_of, name):
    assert set(FAULTS) == set(monitor.ALARMS)
    log = log_of(**FAULTS[name])
    assert name in alarms(log), [(row.get("reward"), row.get("entropy")) for row in log]


@pytest.mark.parametrize(("families", "steps"), [(TEXT, 12), ("cup_to_disc_ratio,cardiothoracic_ratio", 8)])
def test_a_run_without_faults_is_silent(log_of, families, steps):
    log = log_of(families, steps)
    assert alarms(log) == {}, log
    assert ("picture_effect" in log[0]) == (families != TEXT)
