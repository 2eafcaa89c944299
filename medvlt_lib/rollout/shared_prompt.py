"""Decoding many samples of one prompt without copying the prompt's cache for each.

While decoding, every new token of every sample attends to the keys and values of its prompt, which are the same for all
samples of it. Here they are kept once. The scores of a prompt's samples against the prompt are one matrix product. The
scores of a sample against its own tokens are computed beside it. One softmax runs over both, so the result is that of
ordinary attention. Registered with transformers as the attention "medvlt_shared_prompt", used for decoding only.

Shapes: P prompts of at most T tokens; B samples of t own tokens, at most S of one prompt; K key-value heads of D
numbers, each shared by Q query heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

NAME = "medvlt_shared_prompt"
ROOM = 32  # tokens of space added to a sample's full cache


class SharedPromptLayer(DynamicLayer):
    """Keys and values of one layer.

    While prompts are read it is an ordinary cache (P, K, T, D). After `share` it holds the prompts' part once, beside
    each sample's own part (B, K, t, D), which grows by ROOM tokens at a time.
    """

    prompt_keys: torch.Tensor | None = None
    prompt_values: torch.Tensor | None = None

    def share(self, samples: int) -> None:
        """Keep what was read as the prompts' part, and begin an empty part for each of `samples`."""
        self.prompt_keys, self.prompt_values = self.keys, self.values
        _, kv_heads, _, size = self.keys.shape
        self._space = [part.new_empty(samples, kv_heads, ROOM, size) for part in (self.keys, self.values)]
        self._use(0)

    def _use(self, length: int) -> None:
        """Show the first `length` tokens of the space as the samples' keys and values."""
        self.keys, self.values = (space[:, :, :length] for space in self._space)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        """Add tokens: any number to a prompt, one to every sample. Returns all keys and values."""
        if self.prompt_keys is None:
            return super().update(key_states, value_states, *args, **kwargs)
        length = self.keys.shape[2]
        if length == self._space[0].shape[2]:
            self._space = [torch.cat([space, torch.empty_like(space[:, :, :ROOM])], dim=2) for space in self._space]
        for space, new in zip(self._space, (key_states, value_states), strict=True):
            space[:, :, length : length + 1] = new
        self._use(length + 1)
        return self.keys, self.values

    def keep(self, samples: torch.Tensor, prompts: torch.Tensor | None) -> None:
        """Go on with some samples, and where `prompts` is given with some prompts only."""
        length = self.keys.shape[2]
        self._space = [space[samples] for space in self._space]
        self._use(length)
        if prompts is not None:
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]


class SharedPrompts:
    """The cache of one batch, and which sample belongs to which prompt."""

    def __init__(self, layers: int) -> None:
        self.cache = Cache(layers=[SharedPromptLayer() for _ in range(layers)])

    def share(self, prompt_of: list[int], mask: torch.Tensor) -> None:
        """After the prompts are read: sample i belongs to prompt prompt_of[i]; the samples of a prompt stand together.

        `mask` (P, T) is 0 where a prompt is padded.
        """
        for layer in self.cache.layers:
            layer.share(len(prompt_of))
        padding = torch.zeros(mask.shape, device=mask.device).masked_fill(mask == 0, -torch.inf)
        self.padding_scores = padding[:, None, None]  # (P, 1, 1, T)
        self._arrange(torch.tensor(prompt_of, device=mask.device))

    def _arrange(self, prompt_of: torch.Tensor) -> None:
        """Find the place of every sample in a table (P, S)."""
        self.prompt_of = prompt_of
        samples_of = torch.bincount(prompt_of, minlength=len(self.padding_scores))  # (P,)
        first_of = samples_of.cumsum(0) - samples_of  # (P,) the first sample of each prompt
        column = torch.arange(len(prompt_of), device=prompt_of.device) - first_of[prompt_of]
        self.most_samples = int(samples_of.max())
        self.places = prompt_of * self.most_samples + column  # (B,)

    def by_prompt(self, of_samples: torch.Tensor) -> torch.Tensor:
        """(B, K, Q, X), one row a sample, as (P, K, S Q, X): one row a prompt, zeros where it has fewer samples."""
        prompts, (_, kv_heads, queries, size) = len(self.padding_scores), of_samples.shape
        table = of_samples.new_zeros(prompts * self.most_samples, kv_heads, queries, size)
        table[self.places] = of_samples
        table = table.view(prompts, self.most_samples, kv_heads, queries, size).transpose(1, 2)
        return table.reshape(prompts, kv_heads, self.most_samples * queries, size)

    def by_sample(self, of_prompts: torch.Tensor) -> torch.Tensor:
        """The way back from `by_prompt`."""
        prompts, kv_heads, rows, size = of_prompts.shape
        queries = rows // self.most_samples
        table = of_prompts.view(prompts, kv_heads, self.most_samples, queries, size).transpose(1, 2)
        return table.reshape(-1, kv_heads, queries, size)[self.places]

    def keep_samples(self, samples: torch.Tensor) -> None:
        """Go on with some of the samples (sorted), and drop the prompts that none of them belongs to."""
        prompts, renumbered = self.prompt_of[samples].unique(return_inverse=True)
        fewer = len(prompts) < len(self.padding_scores)
        for layer in self.cache.layers:
            layer.keep(samples, prompts if fewer else None)
        if fewer:
            self.padding_scores = self.padding_scores[prompts]
        self._arrange(renumbered)

    @contextmanager
    def decoding(self, model: torch.nn.Module) -> Iterator[None]:
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


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """One new token of every sample against its prompt and its own tokens.

    query (B, K Q, 1, D); key and value (B, K, t, D), the samples' own.
    """
    shared = _active[0]
    layer = shared.cache.layers[module.layer_idx]
    samples, heads, _, size = query.shape
    kv_heads, own_length = key.shape[1:3]
    queries_per_kv_head = heads // kv_heads
    scaling = size**-0.5 if scaling is None else scaling
    queries = query.view(samples, kv_heads, queries_per_kv_head, size)

    prompt_scores = torch.matmul(shared.by_prompt(queries), layer.prompt_keys.transpose(2, 3)) * scaling
    prompt_scores = shared.by_sample(prompt_scores + shared.padding_scores.to(query.dtype))  # (B, K, Q, T)
    own_scores = torch.matmul(queries, key.transpose(2, 3)) * scaling  # (B, K, Q, t)

    scores = torch.cat([prompt_scores, own_scores], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    prompt_weights, own_weights = weights[..., :-own_length], weights[..., -own_length:]

    from_prompt = shared.by_sample(torch.matmul(shared.by_prompt(prompt_weights), layer.prompt_values))  # (B, K, Q, D)
    from_own = torch.matmul(own_weights, value)
    return (from_prompt + from_own).reshape(samples, 1, heads, size), None


AttentionInterface.register(NAME, attention)
