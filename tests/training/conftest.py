"""Trainers on the smaller tiny model, and a generation batch of theirs with random advantages."""

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training import grpo_trainer

SMALL = {
    "model.name": "phantom:small", "grpo.prompts": 4, "grpo.group_size": 4, "grpo.micro_batch": 16, "grpo.max_steps": 2,
    "grpo.max_completion_length": 48,
}  # fmt: skip


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer with the `shared` or the `stock` update, on questions of some families; settings as elsewhere."""

    def make(update, families="curb65,nodule_count", profile="tiny", questions=None, **settings):
        resolved = load_profile(profile, {**SMALL, "grpo.update": update, **settings})
        questions = questions or make_questions(families, "train", resolved.grpo.prompts, seed=3)
        model = load_policy(resolved, trainable=True)
        trainer = grpo_trainer.make_trainer(resolved, model, profile_processor(resolved), questions, tmp_path)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


def generation_batch(trainer, seed=0):
    """A scored generation batch of all of the trainer's questions, with random advantages."""
    group = trainer.num_generations
    rows = [row for row in trainer.train_dataset for _ in range(group)]
    batch = trainer._generate_and_score_completions(rows)
    torch.manual_seed(seed)
    return {**batch, "advantages": torch.randn(len(rows))}


def loss_and_gradients(trainer, batch):
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, dict(batch))
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def logps_of(trainer, batch):
    """The log-probabilities of a batch's completion tokens, (rows, T), on the trainer's own path."""
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
            batch["completion_ids"].shape[1],
            **{k: batch.get(k) for k in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
        )[0]
