"""GRPO by hand gives TRL's losses and gradients, and learns."""

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.records import Completion
from medvlt_lib.grading.published import medvlthinker_reward
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training import by_hand
from tests.training.conftest import generation_batch, loss_and_gradients

IN_TRL = {"gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"}}


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo", "dapo", "gspo", "cispo"])
@pytest.mark.parametrize("families", ["curb65,apgar", "nodule_count,cup_to_disc_ratio"])
def test_losses_and_gradients_are_those_of_trl(make_trainer, families, loss_type):
    """Away from ratio 1, with clipping at work and a KL term."""
    trainer = make_trainer("stock", families, **{"grpo.max_completion_length": 48})
    batch = generation_batch(trainer)
    for name, value in IN_TRL.get(loss_type, {"loss_type": loss_type}).items():
        setattr(trainer, name, value)
    trainer.beta, trainer.args.use_bias_correction_kl = 0.1, False
    trainer.epsilon_high = 1.2 if loss_type == "cispo" else 0.2  # TRL's CISPO names the bound itself
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = batch["completion_mask"].bool()
    inputs = {"input_ids": ids, "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)}
    inputs |= {k: batch[k] for k in ("pixel_values", "image_grid_thw", "mm_token_type_ids") if k in batch}
    with torch.no_grad():
        now = by_hand.token_logprobs(trainer.model, inputs, mask)
    torch.manual_seed(1)
    old, known = (now + 0.3 * torch.randn_like(now) * mask for _ in range(2))
    theirs = loss_and_gradients(trainer, {**batch, "old_per_token_logps": old, "ref_per_token_logps": known})
    trainer.model.zero_grad()
    new = by_hand.token_logprobs(trainer.model, inputs, mask)
    loss = by_hand.policy_loss(new, old, batch["advantages"], mask, loss_type, 0.2, 0.1, known, max_length=48)
    loss.backward()
    assert loss.item() == pytest.approx(theirs[0], rel=1e-4, abs=1e-6)
    largest = max(g.abs().max() for g in theirs[1].values())
    for name, parameter in trainer.model.named_parameters():
        if name in theirs[1]:
            assert (parameter.grad - theirs[1][name]).abs().max() <= 1e-5 * largest, name


def test_advantages_of_a_group_of_four_by_pencil():
    """Rewards 1 0 0 1: mean 0.5, deviation sqrt(4 * 0.25 / 3)."""
    deviation = (4 * 0.25 / 3) ** 0.5
    found = by_hand.group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    expected = 0.5 / (deviation + 1e-4)
    assert found[0].tolist() == pytest.approx([expected, -expected, -expected, expected])
    assert found[1].tolist() == [0, 0, 0, 0]
    assert by_hand.group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), "none")[0].tolist() == [0.5, -0.5, -0.5, 0.5]


@pytest.mark.parametrize("family", ["curb65", "nodule_count"])
def test_it_raises_the_probability_of_the_right_letter(family):
    """One question, ten steps: the right letter becomes more frequent; with the reward turned round, rarer."""
    questions = make_questions(family, "train", 1, seed=8)

    def reward(completion: Completion, question) -> float:
        return medvlthinker_reward(completion.text, question.answer_label, question.answer)

    changes = {"grpo.group_size": 16, "grpo.learning_rate": 3e-4, "grpo.max_completion_length": 64}
    settings = load_profile("tiny", changes).grpo
    late = {}
    for sign in (1, -1):
        model, processor = load_model(shipped("small")), load_processor(shipped("small"))
        steps = by_hand.train(model, processor, [questions] * 10, lambda c, q, s=sign: s * reward(c, q), settings)
        rewards = [row["reward"] * sign for row in steps]
        late[sign] = sum(rewards[-3:]) / 3 - sum(rewards[:2]) / 2
    assert late[1] > late[-1] + 0.2
