"""GRPO by hand gives TRL's losses and gradients, and learns."""

from pathlib import Path

import pytest
import torch

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Completion
from medvlt_lib.core.sections import Grpo
from medvlt_lib.grading.published import medvlthinker_reward
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training import by_hand
from tests.training.conftest import generation_batch, loss_and_gradients

IN_TRL = {"gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"}}


@pytest.mark.parametrize("high", [None, 0.35])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo", "dapo", "gspo", "cispo"])
@pytest.mark.parametrize("families", ["curb65,apgar", "nodule_count,cup_to_disc_ratio"])
def test_losses_and_gradients_are_those_of_trl(make_trainer, families, loss_type, high):
    """Away from ratio 1, with clipping at work, its upper bound once another than the lower, and a KL term."""
    trainer = make_trainer("stock", families, **{"grpo.max_completion_length": 48})
    batch = generation_batch(trainer)
    for name, value in IN_TRL.get(loss_type, {"loss_type": loss_type}).items():
        setattr(trainer, name, value)
    trainer.beta, trainer.args.use_bias_correction_kl = 0.1, False
    trainer.epsilon_high = (high or 0.2) + (loss_type == "cispo")  # TRL's CISPO takes the bound of the ratio itself
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = batch["completion_mask"].bool()
    inputs = {"input_ids": ids, "attention_mask": torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)}
    inputs |= {k: batch[k] for k in ("pixel_values", "image_grid_thw", "mm_token_type_ids") if k in batch}
    with torch.no_grad():
        now = by_hand.token_logprobs(trainer.model, inputs, mask)
    torch.manual_seed(1)
    drift, noise = torch.randn(2, len(now), 1), torch.randn(2, *now.shape)  # gspo's ratios move only with the drift
    old, known = now + (0.2 * drift + 0.3 * noise) * mask
    theirs = loss_and_gradients(trainer, {**batch, "old_per_token_logps": old, "ref_per_token_logps": known})
    trainer.model.zero_grad()
    new = by_hand.token_logprobs(trainer.model, inputs, mask)
    g = Grpo(learning_rate=1, loss_type=loss_type, epsilon=0.2, epsilon_high=high, beta=0.1, max_completion_length=48)
    loss, seen = by_hand.policy_loss(new, old, known, batch["advantages"], mask, g)
    assert 0 < seen["clipped"] < 1 and seen["kl"] > 0
    loss.backward()
    assert loss.item() == pytest.approx(theirs[0], rel=1e-5, abs=1e-6)  # a sum of terms near 1 may end near 0
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

    settings = Grpo(learning_rate=3e-4, group_size=16, updates=1, beta=0, max_completion_length=64)
    late = {}
    for sign in (1, -1):
        model, processor = load_model(shipped("small")), load_processor(shipped("small"))
        steps = by_hand.train(model, processor, [questions] * 10, lambda c, q, s=sign: s * reward(c, q), settings)
        rewards = [row["reward"] * sign for row in steps]
        late[sign] = sum(rewards[-3:]) / 3 - sum(rewards[:2]) / 2
    assert late[1] > late[-1] + 0.2


def test_what_the_upper_bound_changes():
    """One token of ratio 1.3 and advantage 1: cut at 1.2, let through under a bound of 1.35, and cut again at 1.25."""
    old, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    found = {}
    for high in (None, 0.35, 0.25):
        new = torch.tensor([[1.3]]).log().requires_grad_()
        loss, seen = by_hand.policy_loss(
            new, old, None, torch.ones(1), mask, Grpo(learning_rate=1, beta=0, epsilon_high=high)
        )
        loss.backward()
        found[high] = (round(-loss.item(), 4), round(-new.grad.item(), 4), seen["clipped"].item())
    assert found == {None: (1.2, 0, 1), 0.35: (1.3, 1.3, 0), 0.25: (1.25, 0, 1)}


def test_the_kl_term_pulls_the_policy_back_to_its_reference():
    """A policy away from its reference and a reward that is always the same: only the KL term is left to move it."""
    questions = make_questions("curb65", "train", 2, seed=8)
    processor, reference = load_processor(shipped("small")), load_model(shipped("small"))
    late = {}
    for beta in (0.0, 1.0):
        g = Grpo(learning_rate=2e-5, group_size=8, updates=1, beta=beta, max_completion_length=64)
        model = load_model(shipped("small"))
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * weight.std() * torch.randn_like(weight))
        rows = by_hand.train(model, processor, [questions] * 10, lambda c, q: 1.0, g, reference)
        late[beta] = sum(row["kl"] for row in list(rows)[5:])
    assert late[1.0] < 0.6 * late[0.0], late
    with pytest.raises(UserError, match=r"grpo\.beta is 1\.0, and there is no reference"):
        next(by_hand.train(model, processor, [questions], lambda c, q: 1.0, g))


def test_the_page_is_short_and_takes_no_trainer_library():
    source = Path(by_hand.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 120 and "import trl" not in source and "from trl" not in source
