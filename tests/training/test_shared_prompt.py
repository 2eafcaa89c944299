"""Attention in two parts equals attention over whole sequences, also where queries share key heads."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from medvlt_lib.training.shared_prompt import Layout, attention


@pytest.mark.parametrize("bucket", [1, 2, 32])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_two_parts_equal_whole_sequences(key_heads, bucket, monkeypatch):
    """Two prompts of 5 and 3 tokens; three completions of 4, 2 and 3 tokens, the first two of the first prompt;
    attended one by one, two and one, and all together."""
    monkeypatch.setattr("medvlt_lib.training.shared_prompt.BUCKET", bucket)
    prompts, completions, prompt_of = [5, 3], [4, 2, 3], [0, 0, 1]
    torch.manual_seed(0)
    total = sum(prompts) + sum(completions)
    query = torch.randn(1, 4, total, 8)
    key, value = torch.randn(2, 1, key_heads, total, 8)
    masks = [torch.arange(max(lengths)) < torch.tensor(lengths)[:, None] for lengths in (prompts, completions)]
    layout = Layout(*masks, torch.tensor(prompt_of))
    found, _ = attention(torch.nn.Module(), query, key, value, None, layout)  # (1, N, H, D)
    begins = [sum(prompts[:n]) for n in range(2)]
    own = [sum(prompts) + sum(completions[:n]) for n in range(3)]
    for row, prompt in enumerate(prompt_of):
        head = torch.arange(begins[prompt], begins[prompt] + prompts[prompt])
        tail = torch.arange(own[row], own[row] + completions[row])
        whole = torch.cat([head, tail])
        parts = [x[:, :, whole].repeat_interleave(4 // x.shape[1], 1) for x in (query, key, value)]
        expected = scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2)
        torch.testing.assert_close(found[:, tail], expected[:, len(head) :])
        torch.testing.assert_close(found[:, head], expected[:, : len(head)])
