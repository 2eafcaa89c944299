"""The entropy in the log is the mean over the tokens of the groups that an update computed, against sums by hand."""

import pytest
import torch
from trl import GRPOTrainer

from medvlt_lib.training.batches import rows_at
from tests.training.conftest import generation_batch

TEXT, MIXED = "curb65,apgar", "curb65,nodule_count"


def prepared(make_trainer, families=TEXT, micro_batch=8, **settings):
    """A trainer on four questions with four completions each, a batch, and each row's sum of TRL's entropies and number
    of tokens, (rows,)."""
    trainer = make_trainer("shared", families, **{"grpo.micro_batch": micro_batch, **settings})
    batch = generation_batch(trainer)
    with torch.no_grad():
        entropies = GRPOTrainer._get_per_token_logps_and_entropies(
            trainer,
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
            batch["completion_ids"].shape[1],
            compute_entropy=True,
            **{k: batch.get(k) for k in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
        )[1]
    return trainer, batch, (entropies * batch["completion_mask"]).sum(1), batch["completion_mask"].sum(1)


def logged(trainer, batch, dead, micro_batch=8):
    """What an update logs that takes the batch in micro-batches, with the groups `dead` without signal."""
    advantages = batch["advantages"].clone().view(4, 4)
    advantages[dead] = 0.0
    batch = {**batch, "advantages": advantages.flatten()}
    trainer._metrics["train"].clear()
    for first in range(0, 16, micro_batch):
        own = batch if micro_batch == 16 else rows_at(batch, list(range(first, first + micro_batch)))
        trainer._compute_loss(trainer.model, own)
    return trainer._metrics["train"].get("entropy")


def rows_of(groups):
    return [4 * group + i for group in groups for i in range(4)]


@pytest.mark.parametrize("dead", [[], [1], [1, 2], [2, 3], [0, 1], [0, 2, 3]], ids=str)
def test_live_tokens_of_all_micro_batches_count_alike(make_trainer, dead):
    trainer, batch, sums, counts = prepared(make_trainer)
    live = rows_of(set(range(4)) - set(dead))
    expected = sums[live].sum() / counts[live].sum()
    assert logged(trainer, batch, dead) == [pytest.approx(expected.item(), rel=1e-4)]


def test_an_update_without_a_live_group_logs_the_rows_that_stand_in(make_trainer):
    """The first row of each micro-batch."""
    trainer, batch, sums, counts = prepared(make_trainer)
    expected = (sums[0] + sums[8]) / (counts[0] + counts[8])
    assert logged(trainer, batch, [0, 1, 2, 3]) == [pytest.approx(expected.item(), rel=1e-4)]


def test_a_row_that_stands_in_does_not_count(make_trainer):
    """Questions 2 and 3 have pictures and no signal: one of their rows is computed, for its zero gradients alone."""
    trainer, batch, sums, counts = prepared(make_trainer, MIXED, 16)
    expected = sums[:8].sum() / counts[:8].sum()
    assert logged(trainer, batch, [2, 3], 16) == [pytest.approx(expected.item(), rel=1e-4)]


def test_other_processes_count_by_their_tokens(make_trainer, monkeypatch):
    """Another process adds 5 nats on 10 tokens to every micro-batch, also where all groups of this one are dead."""
    trainer, batch, sums, counts = prepared(make_trainer)
    other = {2: torch.tensor([5.0, 10.0]), 4: torch.tensor([5.0, 5.0, 10.0, 10.0])}  # TRL's own figures; this one
    monkeypatch.setattr(trainer.accelerator, "reduce", lambda own, reduction: own + other[len(own)])
    assert logged(trainer, batch, [0, 1, 2, 3]) == [0.5]
    expected = (sums[4:8].sum() + 10) / (counts[4:8].sum() + 20)
    assert logged(trainer, batch, [0, 2, 3]) == [pytest.approx(expected.item(), rel=1e-4)]


def test_on_trls_path_and_with_a_kl_term_all_groups_count(make_trainer):
    """There none is left out."""
    trainer, batch, sums, counts = prepared(make_trainer, micro_batch=16)
    everything = [pytest.approx((sums.sum() / counts.sum()).item(), rel=1e-4)]
    trainer.shared = False
    assert logged(trainer, batch, [0, 1], 16) == everything
    trainer.shared, trainer.beta = True, 0.1
    batch["ref_per_token_logps"] = torch.zeros(batch["completion_ids"].shape)
    assert logged(trainer, batch, [0, 1], 16) == everything
