"""TRL's GRPO trainer with whole groups: a prompt is read once for all its completions, and groups that teach nothing
are left out.

What is changed of TRL 1.16, each in one method: micro-batches are made of whole groups (TRL scatters rows); the log-
probabilities of a group come from medvlt_lib.training.shared_prompt; groups whose rewards are all equal take no part in
the update where their loss is exactly 0. The loss, the advantages and everything else are TRL's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from medvlt_lib.training.shared_prompt import Batch, completion_logprobs, switch_on

CLOSE = 1e-3  # largest difference of a log-probability from TRL's own path, in float32


class GroupedTrainer(GRPOTrainer):
    """`GRPOTrainer` whose update reads a prompt once. Generation batches, micro-batches and ranks hold whole groups, or
    one group is spread over micro-batches of its own; this is asserted on every batch."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            if model is not None:
                switch_on(model)
        self.shared = None  # whether the shared path is used: decided at its first use, by comparison with TRL's own
        self._rows: list[int] | None = None  # the rows of a micro-batch that take part in the update

    # --- whole groups ---

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        """As TRL's, but whole groups are permuted, not rows."""
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            batch = permute_groups(batch, self.num_generations)
            parts = split_tensor_dict(batch, self.args.steps_per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # --- groups that teach nothing ---

    def _calculate_rewards(self, *args, **kwargs) -> torch.Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)  # (all rows of all processes, reward functions)
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1).view(-1, self.num_generations)
        self._alike = (total == total[:, :1]).all(1).repeat_interleave(self.num_generations)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's; the advantages of a group whose rewards are all equal are exactly 0 (their mean may be rounded)."""
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            rows = len(output["advantages"])
            alike = self._alike[self.accelerator.process_index * rows :][:rows]
            output["advantages"] = output["advantages"].masked_fill(alike, 0.0)
        return output

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        silent = self.beta == 0 and not self._entropy_bonus_enabled and self.top_entropy_quantile == 1.0
        live = inputs["advantages"] != 0
        self._rows = live_rows(live, inputs.get("num_images"), self.num_generations) if silent else None
        loss = super()._compute_loss(model, inputs)
        if self._rows is not None and len(self._rows) < len(live):
            share = inputs["completion_mask"][self._rows].sum() / inputs["completion_mask"].sum()
            self._metrics["train"]["entropy"][-1] /= max(share.item(), 1e-9)  # of the live groups alone
        self._rows = None
        return loss

    # --- log-probabilities ---

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        """As TRL's: log-probabilities and entropies (rows, logits_to_keep), and None; 0 where a row takes no part."""
        stock = super()._get_per_token_logps_and_entropies
        if self.shared is None:
            self.shared = self._agrees(stock, model, input_ids, attention_mask, logits_to_keep, kwargs)
        if not self.shared:
            options = {"batch_size": batch_size, "compute_entropy": compute_entropy, **kwargs}
            return stock(model, input_ids, attention_mask, logits_to_keep, **options)
        rows = list(range(len(input_ids))) if self._rows is None else self._rows
        size = batch_size or len(input_ids)
        logps = input_ids.new_zeros(len(input_ids), logits_to_keep, dtype=torch.float32)
        entropies = torch.zeros_like(logps) if compute_entropy else None
        for start in range(0, len(input_ids), size):
            chosen = [row for row in rows if start <= row < start + size]
            if chosen:
                batch = group_rows(input_ids, attention_mask, logits_to_keep, chosen, self._group_of, kwargs)
                with self.accelerator.autocast():
                    own_logps, own_entropies = completion_logprobs(model, batch)
                place = torch.tensor(chosen, device=logps.device)
                logps = logps.index_copy(0, place, own_logps.float())
                if entropies is not None:
                    entropies = entropies.index_copy(0, place, own_entropies.float())
        return logps, entropies, None

    def _group_of(self, row: int) -> int:
        return row // self.num_generations

    def _agrees(self, stock, model, input_ids, attention_mask, logits_to_keep, kwargs) -> bool:
        """Compare one group with TRL's own path; says so when they differ, and TRL's is used from then on."""
        rows = list(range(min(self.num_generations, len(input_ids))))
        batch = group_rows(input_ids, attention_mask, logits_to_keep, rows, self._group_of, kwargs)
        images = kwargs.get("num_images")
        some = {k: v for k, v in kwargs.items() if v is not None}
        if images is not None:
            pictures = sum(images[: len(rows)])
            pixels = int(kwargs["image_grid_thw"][:pictures].prod(-1).sum())
            some |= {"num_images": images[: len(rows)], "image_grid_thw": kwargs["image_grid_thw"][:pictures],
                     "pixel_values": kwargs["pixel_values"][:pixels]}  # fmt: skip
        some |= {k: v[: len(rows)] for k, v in some.items() if k in ("mm_token_type_ids", "token_type_ids")}
        with torch.no_grad(), self.accelerator.autocast():
            ours = completion_logprobs(model, batch)[0]
            theirs = stock(model, input_ids[rows], attention_mask[rows], logits_to_keep, **some)[0]
        far = (ours - theirs)[batch.completion_mask].abs().max().item()
        close = far <= (CLOSE if ours.dtype == torch.float32 else 50 * CLOSE)
        if not close:
            print(
                f"reading a prompt once gives log-probabilities {far:.2g} from TRL's own; TRL's path is used.",
                file=sys.stderr,
            )
        return close


def permute_groups(batch: dict[str, Any], group: int) -> dict[str, Any]:
    """The rows of a generation batch with whole groups in random order."""
    rows = len(batch["prompt_ids"])
    assert rows % group == 0, f"{rows} rows are no whole groups of {group}"
    order = torch.randperm(rows // group)
    places = (order[:, None] * group + torch.arange(group)).flatten()

    def permuted(value: Any) -> Any:
        if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0):
            return value
        return value[places] if isinstance(value, torch.Tensor) else [value[i] for i in places]

    return {key: permuted(value) for key, value in batch.items()}


def live_rows(live: torch.Tensor, images: list[int] | None, group: int) -> list[int]:
    """The rows that take part in an update: those of groups with an advantage that is not 0.

    Where no live group has pictures, or none is without, one row of a dead one that has stands in: its loss is 0, and
    the weights that only such rows reach get zero gradients instead of none, as on TRL's path.
    """
    size = min(group, len(live))
    groups = live.view(-1, size).any(1).tolist()
    kinds = [bool(images and images[g * size]) for g in range(len(groups))]
    rows = [g * size + i for g, alive in enumerate(groups) if alive for i in range(size)]
    for kind in {True, False} & set(kinds):
        if not any(alive and kind == own for alive, own in zip(groups, kinds, strict=True)):
            rows.append(kinds.index(kind) * size)
    return sorted(rows)


def group_rows(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    completion_length: int,
    rows: list[int],
    group_of: Callable[[int], int],
    kwargs: dict[str, Any],
) -> Batch:
    """Some rows of TRL's batch with each prompt once. The prompts of a group must be equal; this is asserted."""
    place = torch.tensor(rows, device=input_ids.device)
    ids, mask = input_ids[place], attention_mask[place].bool()
    prompts, prompt_mask = ids[:, :-completion_length], mask[:, :-completion_length]
    groups = [group_of(row) for row in rows]
    first = [i for i in range(len(rows)) if i == 0 or groups[i] != groups[i - 1]]
    prompt_of = torch.tensor([sum(f <= i for f in first) - 1 for i in range(len(rows))], device=ids.device)
    assert (prompts == prompts[first][prompt_of]).all(), "a group holds completions of several prompts"
    pixels = grid = None
    if kwargs.get("pixel_values") is not None:
        images, sizes = kwargs["num_images"], kwargs["image_grid_thw"].prod(-1).tolist()
        ends = [sum(images[:i]) for i in range(len(images) + 1)]
        wanted = [n for i in first for n in range(ends[rows[i]], ends[rows[i] + 1])]
        begins = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
        if wanted:
            grid = kwargs["image_grid_thw"][wanted]
            pixels = torch.cat([kwargs["pixel_values"][begins[n] : begins[n + 1]] for n in wanted])
    own_ids, own_mask = ids[:, -completion_length:], mask[:, -completion_length:]
    return Batch(prompts[first], prompt_mask[first], own_ids, own_mask, prompt_of, pixels, grid)
