"""Log-probabilities of many completions of one prompt, with the prompt read once.

A group of completions shares its prompt: the tokens of a batch are laid out as one flat row, first every prompt without
its last token, then for every completion the prompt's last token and all its own tokens but the last. So each position
of the second part predicts exactly one completion token. Linear layers see each prompt once; attention works in two
parts (a prompt causally on itself, a completion on its prompt and on itself); a picture goes through the vision tower
once; the output layer (TRL's fused head) sees the second part alone.
The attention is registered with transformers as "medvlt_grouped"; without a layout it is ordinary SDPA attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "medvlt_grouped"
BUCKET = 32  # completions whose attention is computed together


@dataclass(frozen=True)
class Bucket:
    """Completions that lie beside each other in a flat row: r of them, of at most t tokens.

    `tokens`: how many in all. `mask` (r, t): True where there is a token. `prompt_of` (r,): their prompts. `seen`
    (r, 1, t, L + t): True where a completion's token sees a token of its prompt, or of its own before it.
    """

    tokens: int
    mask: torch.Tensor
    prompt_of: torch.Tensor
    seen: torch.Tensor


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a flat row (1, N) stand: P padded prompts of at most L tokens, R completions of at most T.

    `prompt_mask` (P, L) and `completion_mask` (R, T) are True where there is a token (on the left of each row);
    `prompt_of` (R,) names each completion's prompt; completions start at token `start` of the flat row.
    """

    prompt_mask: torch.Tensor
    completion_mask: torch.Tensor
    prompt_of: torch.Tensor

    @cached_property
    def start(self) -> int:
        return int(self.prompt_mask.sum())

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The completions in runs of at most `BUCKET`; little is padded where neighbours are of like length."""
        made = []
        lengths = self.completion_mask.sum(1).tolist()
        for first in range(0, len(lengths), BUCKET):
            rows = slice(first, first + BUCKET)
            width = max(lengths[rows])
            prompt_of = self.prompt_of[rows]
            mask = self.completion_mask[rows, :width]
            prompt = self.prompt_mask[prompt_of][:, None].expand(-1, width, -1)
            causal = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril().expand(len(mask), -1, -1)
            seen = torch.cat([prompt, causal], dim=-1)[:, None]
            made.append(Bucket(sum(lengths[rows]), mask, prompt_of, seen))
        return made


def padded(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(H, n, D) tokens in order to (rows, H, width, D) with zeros where `mask` (rows, width) is False."""
    out = flat.new_zeros(*mask.shape, flat.shape[0], flat.shape[2])
    out[mask] = flat.transpose(0, 1)
    return out.transpose(1, 2)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layout: Layout | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Two-part attention over a flat row. query (1, H, N, D); key and value (1, K, N, D), K key heads of H shared."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    shared = query.shape[1] != key.shape[1]
    dropout = kwargs.get("dropout", 0.0)
    options = {"dropout_p": dropout if module.training else 0.0, "scale": scaling}
    sizes = [layout.start, *(bucket.tokens for bucket in layout.buckets)]
    first, *rest = zip(*(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True)
    prompts = [padded(x, layout.prompt_mask) for x in first]  # (P, H or K, L, D)
    attended = scaled_dot_product_attention(*prompts, is_causal=True, enable_gqa=shared, **options)
    flat = [attended.transpose(1, 2)[layout.prompt_mask]]
    for bucket, part in zip(layout.buckets, rest, strict=True):
        own = [padded(x, bucket.mask) for x in part]  # (r, H or K, t, D)
        # index_select: a prompt's copies' gradients are summed in order; [...] sums them in any order, in parallel.
        keys, values = (  # (r, K, L + t, D)
            torch.cat([prompt.index_select(0, bucket.prompt_of), completion], dim=2)
            for prompt, completion in zip(prompts[1:], own[1:], strict=True)
        )
        if shared:  # with a mask, no fused kernel takes shared key heads, and the plain product keeps every score
            keys, values = (repeat_kv(x, query.shape[1] // key.shape[1]) for x in (keys, values))
        attended = scaled_dot_product_attention(own[0], keys, values, attn_mask=bucket.seen, **options)
        flat.append(attended.transpose(1, 2)[bucket.mask])
    return torch.cat(flat)[None], None  # (1, N, H, D)


@dataclass(frozen=True)
class Batch:
    """Completions with their prompts, each prompt once. Masks are True where there is a token; prompts are padded on
    the left (P, L), completions on the right (R, T); `prompt_of` (R,) names each completion's prompt. `pixel_values`
    and `image_grid_thw` hold the prompts' pictures in order, or are None."""

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    completion_ids: torch.Tensor
    completion_mask: torch.Tensor
    prompt_of: torch.Tensor
    pixel_values: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None


def switch_on(model: torch.nn.Module) -> None:
    """Make a Qwen2-VL or Qwen2.5-VL model, with or without LoRA, ready for `completion_logprobs`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.config.get_text_config()._attn_implementation = NAME
    base.base_model.register_forward_hook(_keep_scored, with_kwargs=True)


def _keep_scored(module, args, kwargs, output):
    """Of a flat row, only the positions that predict a completion token go on to the output layer."""
    if (layout := kwargs.get("layout")) is not None:
        output.last_hidden_state = output.last_hidden_state[:, layout.start :]
    return output


def completion_logprobs(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities and entropies (None where TRL's head does not compute them) of the completion tokens, (R, T);
    0 where a completion is padded. `model` is the trainer's, wrapped or not, with TRL's fused head."""
    order = batch.completion_mask.sum(1).argsort(stable=True)  # neighbours of like length: see Layout.buckets
    in_order = replace(
        batch,
        completion_ids=batch.completion_ids[order],
        completion_mask=batch.completion_mask[order],
        prompt_of=batch.prompt_of[order],
    )
    inputs, shift_labels = flat_inputs(model, in_order)
    outputs = model(**inputs, shift_labels=shift_labels, fused_lm_head=True)
    return tuple(
        None if flat is None else _rows(flat, in_order.completion_mask).index_select(0, order.argsort())
        for flat in (outputs.log_probs, outputs.entropy)
    )


def _rows(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values of tokens in order as rows like `mask` (R, T), 0 where it is False."""
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)


def flat_inputs(model: torch.nn.Module, batch: Batch) -> tuple[dict[str, Any], torch.Tensor]:
    """What the model takes for a batch: one flat row with its positions and layout; and the token that each position of
    the second part predicts, (1, sum of completion lengths)."""
    lengths = batch.prompt_mask.sum(1)  # (P,)
    head = torch.arange(batch.prompt_mask.shape[1], device=lengths.device) < lengths[:, None] - 1  # (P, L), on the left
    ids = torch.zeros_like(batch.prompt_ids)
    ids[torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]] = batch.prompt_ids[batch.prompt_mask]
    positions = prompt_positions(model, ids, lengths, batch.image_grid_thw)  # (3, P, L)
    last = lengths[:, None] - 1
    last_ids, last_position = ids.gather(1, last), positions.gather(2, last.expand(3, -1, -1))  # (P, 1), (3, P, 1)
    own_ids = torch.cat([last_ids[batch.prompt_of], batch.completion_ids[:, :-1]], dim=1)  # (R, T)
    own_positions = last_position[:, batch.prompt_of] + torch.arange(own_ids.shape[1], device=ids.device)
    mask = batch.completion_mask
    inputs = {
        "input_ids": torch.cat([ids[head], own_ids[mask]])[None],
        "position_ids": torch.cat([positions[:, head], own_positions[:, mask]], dim=1)[:, None],
        "attention_mask": {"full_attention": None},  # the layout says who sees whom
        "layout": Layout(head, mask, batch.prompt_of),
    }
    if batch.pixel_values is not None:
        inputs |= {"pixel_values": batch.pixel_values, "image_grid_thw": batch.image_grid_thw}
    return inputs, batch.completion_ids[mask][None]


def prompt_positions(
    model: torch.nn.Module, ids: torch.Tensor, lengths: torch.Tensor, grid: torch.Tensor | None
) -> torch.Tensor:
    """Three-axis positions (3, P, L) of right-padded prompts: by image grid where there are any, else 0, 1, 2 ..."""
    place = torch.arange(ids.shape[1], device=ids.device)
    if grid is None:
        return place.expand(3, *ids.shape)
    while hasattr(model, "module"):  # DDP and FSDP wrap it; only a method without weights is called
        model = model.module
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    is_image = (ids == base.config.image_token_id).long()
    mask = (place < lengths[:, None]).long()
    return base.model.get_rope_index(ids, is_image, image_grid_thw=grid, attention_mask=mask)[0]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
