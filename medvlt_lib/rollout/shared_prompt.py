"""Decoding many samples of one prompt without copying the prompt's cache for each.

While decoding, every new token of every sample attends to the keys and values of its prompt, which are the same for all
samples of it. Here they are kept once: scores against the prompt are one matrix product a prompt (samples x prompt
tokens), scores against the sample's own tokens are its own, and one softmax runs over both, so the result is that of
ordinary attention. Registered with transformers as the attention "medvlt_shared_prompt" and switched on for decoding only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

NAME = "medvlt_shared_prompt"
ROOM = 32  # tokens of space added to a sample's full cache


class SharedPromptLayer(DynamicLayer):
    """Keys and values of one layer: ordinary while prompts (P, H, T, D) are read, then the prompts' own, held once, beside
    each sample's (B, H, t, D), which grows by ROOM tokens at a time."""

    prompt_keys: torch.Tensor | None = None
    prompt_values: torch.Tensor | None = None

    def share(self, rows: int) -> None:
        """Keep what was read as the prompts' part and begin an empty part for each of `rows` samples."""
        self.prompt_keys, self.prompt_values = self.keys, self.values
        heads, size = self.keys.shape[1], self.keys.shape[3]
        self._room = [self.keys.new_empty(rows, heads, ROOM, size), self.values.new_empty(rows, heads, ROOM, size)]
        self._view(0)

    def _view(self, length: int) -> None:
        self.keys, self.values = (room[:, :, :length] for room in self._room)

    def update(self, key_states, value_states, *args, **kwargs):
        if self.prompt_keys is None:
            return super().update(key_states, value_states, *args, **kwargs)
        length = self.keys.shape[2]
        if length + 1 > self._room[0].shape[2]:
            self._room = [torch.cat([room, torch.empty_like(room[:, :, :ROOM])], dim=2) for room in self._room]
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, length : length + 1] = new
        self._view(length + 1)
        return self.keys, self.values

    def keep_rows(self, rows: torch.Tensor, prompts: torch.Tensor | None) -> None:
        """Drop samples, and where `prompts` is given also the prompts that no sample asks any more."""
        length = self.keys.shape[2]
        self._room = [room[rows] for room in self._room]
        self._view(length)
        if prompts is not None:
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]


class SharedPrompts:
    """The cache of one batch, and which row samples which prompt. `mask` (P, T) is 0 where a prompt is padded."""

    def __init__(self, layers: int) -> None:
        self.cache = Cache(layers=[SharedPromptLayer() for _ in range(layers)])

    def share(self, prompt_of: list[int], mask: torch.Tensor) -> None:
        """After the prompts are read: row i samples prompt prompt_of[i]; the rows of a prompt stand together."""
        for layer in self.cache.layers:
            layer.share(len(prompt_of))
        self.bias = torch.zeros(mask.shape, device=mask.device).masked_fill(mask == 0, -torch.inf)[
            :, None, None
        ]  # (P, 1, 1, T)
        self._group(torch.tensor(prompt_of, device=mask.device))

    def _group(self, prompt_of: torch.Tensor) -> None:
        """Places of the rows in a table (P, S), S the most samples of a prompt."""
        self.prompt_of = prompt_of
        counts = torch.bincount(prompt_of, minlength=len(self.bias))
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
        slot = torch.arange(len(prompt_of), device=prompt_of.device) - first[prompt_of]
        self.width = int(counts.max())
        self.place = prompt_of * self.width + slot  # (B,) where each row stands in the table

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows (sorted)."""
        left = self.prompt_of[rows]
        prompts, renumbered = left.unique(return_inverse=True)
        fewer = len(prompts) < len(self.bias)
        for layer in self.cache.layers:
            layer.keep_rows(rows, prompts if fewer else None)
        if fewer:
            self.bias = self.bias[prompts]
        self._group(renumbered)

    @contextmanager
    def decoding(self, model) -> Iterator[None]:
        """Within it, the language model's attention is this one."""
        config = model.config.get_text_config()
        before, _active[:] = config._attn_implementation, [self]
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = before
            _active.clear()


_active: list[SharedPrompts] = []


def attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """One new token a row against its prompt and its own tokens. query (B, H, 1, D); key, value (B, K, t, D), K heads of H shared."""
    shared, layer = _active[0], _active[0].cache.layers[module.layer_idx]
    rows, heads, _, size = query.shape
    held, scaling = key.shape[1], size**-0.5 if scaling is None else scaling
    per = heads // held  # query heads that share a key head
    prompts, _, length, _ = layer.prompt_keys.shape
    table = query.new_zeros(prompts * shared.width, held, per, size)
    table[shared.place] = query.view(rows, held, per, size)
    table = (
        table.view(prompts, shared.width, held, per, size)
        .permute(0, 2, 1, 3, 4)
        .reshape(prompts, held, shared.width * per, size)
    )
    asked = torch.matmul(table, layer.prompt_keys.transpose(2, 3)) * scaling + shared.bias.to(
        query.dtype
    )  # (P, K, S per, T)
    asked = (
        asked.view(prompts, held, shared.width, per, length)
        .transpose(1, 2)
        .reshape(-1, held, per, length)[shared.place]
    )
    own = torch.matmul(query.view(rows, held, per, size), key.transpose(2, 3)) * scaling  # (B, K, per, t)
    weights = torch.softmax(torch.cat([asked, own], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
    to_prompt = query.new_zeros(prompts * shared.width, held, per, length)
    to_prompt[shared.place] = weights[..., :length]
    to_prompt = (
        to_prompt.view(prompts, shared.width, held, per, length)
        .transpose(1, 2)
        .reshape(prompts, held, shared.width * per, length)
    )
    given = torch.matmul(to_prompt, layer.prompt_values)  # (P, K, S per, D)
    given = (
        given.view(prompts, held, shared.width, per, size).transpose(1, 2).reshape(-1, held, per, size)[shared.place]
    )
    out = given + torch.matmul(weights[..., length:], value)
    return out.reshape(rows, 1, heads, size), None


AttentionInterface.register(NAME, attention)
