"""Generation batches of TRL's trainer, cut, permuted and put together by whole groups; which rows an update takes.

A generation batch is a dictionary of tensors (rows, ...) and lists of that length, G rows a question in a row; pictures
are a list with one tensor a row (TRL's split_pixel_values_by_grid).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad

LEFT = ("prompt_ids", "prompt_mask")  # padded on the left; other tensors with two axes on the right
BY_PICTURE = ("pixel_values", "image_grid_thw")


def rows_at(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    """The rows of a batch at `places`, in that order; what is no row, such as a count, stays."""
    place = torch.tensor(places)

    def chosen(value: Any) -> Any:
        if value is None or (isinstance(value, torch.Tensor) and value.ndim == 0):
            return value
        return value[place.to(value.device)] if isinstance(value, torch.Tensor) else [value[i] for i in places]

    return {key: chosen(value) for key, value in batch.items()}


def permuted_groups(batch: dict[str, Any], group: int, generator: torch.Generator) -> dict[str, Any]:
    """The rows of a batch with whole groups of `group` rows in random order."""
    rows = len(batch["prompt_ids"])
    assert rows % group == 0, f"{rows} rows are no whole groups of {group}"
    order = torch.randperm(rows // group, generator=generator)
    return rows_at(batch, (order[:, None] * group + torch.arange(group)).flatten().tolist())


def with_groups_replaced(
    batch: dict[str, Any], fresh: dict[str, Any], pairs: list[tuple[int, int]], group: int, pad_id: int
) -> dict[str, Any]:
    """`batch` with its group i replaced by group j of `fresh` for every pair (i, j). Both are padded to one width."""
    kept = len(batch["prompt_ids"])
    source = list(range(kept // group))
    for old, new in pairs:
        source[old] = kept // group + new
    return rows_at(joined(batch, fresh, pad_id), [g * group + i for g in source for i in range(group)])


def joined(first: dict[str, Any], second: dict[str, Any], pad_id: int) -> dict[str, Any]:
    """The rows of two batches, one below the other."""
    if "num_images" in first or "num_images" in second:
        first, second = _with_pictures(first, second), _with_pictures(second, first)
    prompt, completion = (max(b[f"{part}_ids"].shape[1] for b in (first, second)) for part in ("prompt", "completion"))
    wide = [_widened(batch, prompt, completion, pad_id) for batch in (first, second)]
    both = {}
    for key, value in wide[0].items():
        if isinstance(value, torch.Tensor):
            both[key] = value if value.ndim == 0 else torch.cat([value, wide[1][key]])
        else:
            both[key] = value if value is None else [*value, *wide[1][key]]
    return both


def _widened(batch: dict[str, Any], prompt: int, completion: int, pad_id: int) -> dict[str, Any]:
    """A batch with prompts padded to `prompt` tokens on the left and completions to `completion` on the right."""
    left, right = prompt - batch["prompt_ids"].shape[1], completion - batch["completion_ids"].shape[1]
    wide = dict(batch)
    for key, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim == 2:
            sides = (left, right) if key == "mm_token_type_ids" else (left, 0) if key in LEFT else (0, right)
            wide[key] = pad(value, sides, value=pad_id if key.endswith("_ids") and "type" not in key else 0)
    return wide


def _with_pictures(batch: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A batch without pictures in the form of one with them."""
    if "num_images" in batch:
        return batch
    rows = len(batch["prompt_ids"])
    width = batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]
    pictures = {key: [other[key][0][:0]] * rows for key in BY_PICTURE}
    return {
        **batch, **pictures, "num_images": [0] * rows,
        "mm_token_type_ids": batch["prompt_ids"].new_zeros(rows, width),
    }  # fmt: skip


def in_live_groups(live: torch.Tensor, group: int) -> torch.Tensor:
    """Which rows (n,) are of a group with an advantage that is not 0; a micro-batch may hold a part of one group."""
    size = min(group, len(live))
    return live.view(-1, size).any(1).repeat_interleave(size)


def live_rows(live: torch.Tensor, images: list[int] | None, group: int) -> list[int]:
    """The rows that take part in an update: those of groups with an advantage that is not 0.

    Where no live group has pictures, or none is without, one row of a dead one that has stands in: its loss is 0, and
    the weights that only such rows reach get zero gradients instead of none, as on TRL's path.
    """
    size = min(group, len(live))
    groups = in_live_groups(live, group)[::size].tolist()
    kinds = [bool(images and images[g * size]) for g in range(len(groups))]
    rows = [g * size + i for g, alive in enumerate(groups) if alive for i in range(size)]
    for kind in {True, False} & set(kinds):
        if not any(alive and kind == own for alive, own in zip(groups, kinds, strict=True)):
            rows.append(kinds.index(kind) * size)
    return sorted(rows)
