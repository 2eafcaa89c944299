"""At first use the shared path is compared with TRL's own: it is kept where only rounding differs, in any precision,
and given up where more does."""

from dataclasses import replace

import pytest
import torch

from medvlt_lib.training import grouped, grpo_trainer
from tests.training.conftest import generation_batch, logps_of, loss_and_gradients

LORA = {"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}
WAYS = {  # whether autocast is on, and settings
    "full weights in autocast": (True, {}),
    "bf16 weights with LoRA": (False, {"model.dtype": "bfloat16", **LORA}),
    "both, as LoRA on a GPU": (True, {"model.dtype": "bfloat16", **LORA}),
}


@pytest.fixture(params=WAYS)
def in_bf16(request, make_trainer, monkeypatch):
    """Makes a trainer on text or picture questions that computes in bfloat16, as the profiles for GPUs do."""
    autocast, settings = WAYS[request.param]
    real = grpo_trainer.shared_arguments
    monkeypatch.setattr(grpo_trainer, "shared_arguments", lambda *args: {**real(*args), "bf16": autocast})
    return lambda families: make_trainer("shared", families, **settings)


def what_it_does(trainer, capsys):
    """Whether a trainer stays on the shared path, and what it says on stderr."""
    loss_and_gradients(trainer, generation_batch(trainer))
    return trainer.shared, capsys.readouterr().err


@pytest.mark.parametrize("families", ["curb65,apgar", "nodule_count,cup_to_disc_ratio"])
def test_bfloat16_keeps_the_shared_path(in_bf16, families, capsys):
    shared, said = what_it_does(in_bf16(families), capsys)
    assert shared and "TRL's path" not in said


def test_the_limit_for_float32_would_refuse_bfloat16(in_bf16, monkeypatch, capsys):
    """So the trainers of these tests do compute in it."""
    monkeypatch.setattr(grouped, "computes_in_float32", lambda *_: True)
    shared, said = what_it_does(in_bf16("curb65,apgar"), capsys)
    assert not shared and "TRL's path is used" in said


def without_half_of_the_prompt(model, batch):
    first = int(batch.prompt_mask.sum(1).min()) // 2
    ids, mask = batch.prompt_ids[:, -first:], batch.prompt_mask[:, -first:]
    return ONES_OWN(model, replace(batch, prompt_ids=ids, prompt_mask=mask))


def without_the_picture(model, batch):
    return ONES_OWN(model, replace(batch, pixel_values=torch.zeros_like(batch.pixel_values)))


def of_the_next_completion(model, batch):
    return tuple(values.roll(1, 0) for values in ONES_OWN(model, batch))


ONES_OWN = grouped.completion_logprobs
WRONG = [
    (without_half_of_the_prompt, "curb65,apgar"),
    (without_the_picture, "nodule_count,cup_to_disc_ratio"),
    (of_the_next_completion, "curb65,apgar"),
]


@pytest.mark.parametrize(("wrong", "families"), WRONG)
def test_what_is_wrong_is_caught_in_bfloat16_too(in_bf16, wrong, families, monkeypatch, capsys):
    monkeypatch.setattr(grouped, "completion_logprobs", wrong)
    shared, said = what_it_does(in_bf16(families), capsys)
    assert not shared and said.count("TRL's path is used") == 1


def test_dropout_neither_spoils_the_comparison_nor_is_drawn_from(make_trainer):
    """An adapter that does something, as after a restart: the comparison is without dropout, the update with it."""
    trainer = make_trainer("shared", **{"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.1}})
    torch.manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    batch = generation_batch(trainer)
    state = torch.get_rng_state()
    compared = logps_of(trainer, batch)
    assert trainer.shared and all(module.training for module in trainer.model.modules())
    torch.set_rng_state(state)
    again = logps_of(trainer, batch)
    assert again.equal(compared)  # the comparison before the first one drew nothing
    assert (logps_of(trainer, batch) - again).abs().max() > 1e-3  # dropout is on
