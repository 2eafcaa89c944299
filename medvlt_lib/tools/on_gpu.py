"""What a GPU would do otherwise than a CPU in a training step, on tensors without contents.

Fake tensors that say they lie on a GPU cannot be trained on with a CPU build of torch (autograd asks for the device).
So they lie on the CPU, and what differs on an NVIDIA GPU from Ampere on is put in its place: autocast to bf16 (the
CPU's, which treats the operators of these models alike), the attention kernel that CUDA chooses, and TRL's output
layer, whose Triton kernels work in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import trl.kernels.chunked_logprob as kernels
import trl.trainer.utils as trl_utils

from medvlt_lib.tools.counting import Counting
from medvlt_lib.training import shared_prompt

aten = torch.ops.aten
HALVES = (torch.bfloat16, torch.float16)
BLOCK = 512  # bytes: what PyTorch's CUDA allocator rounds to


def autocast(**_: Any) -> torch.autocast:
    """Mixed precision as accelerate's, for `bf16=True`."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


@contextmanager
def on_gpu(counting: Counting) -> Iterator[None]:
    """Within it, code on fake tensors takes the ways that it takes on a GPU."""
    enabled = torch.is_autocast_enabled

    def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        """CUDA adds a product of bf16 to float32 sums without a copy of either."""
        counting.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]

    with ExitStack() as stack:
        for owner, name, value in (
            (torch, "is_autocast_enabled", lambda device="cpu": enabled("cpu")),  # PEFT asks for CUDA's
            (trl_utils, "_use_triton", lambda device: True),
            (kernels, "_forward_tile", lambda *_, **__: None),
            (kernels, "_backward_tile", lambda *_, **__: None),
            (kernels, "_addmm_fp32", add_product),
            (torch.nn.functional, "scaled_dot_product_attention", _attention),
            (shared_prompt, "scaled_dot_product_attention", _attention),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Any:
    """CUDA's choice of an attention kernel (torch 2.13, ATen/native/transformers/cuda/sdp_utils.cpp): flash where there
    is no mask; the memory-efficient one with a mask, which takes no shared key heads; else the plain product, which
    keeps every score."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    shared = enable_gqa and query.shape[-3] != key.shape[-3]
    if attn_mask is None and query.dtype in HALVES and query.shape[-1] <= 256:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, torch.full((), float("-inf"), dtype=query.dtype))
    if not shared:
        bias = None if attn_mask is None else attn_mask.expand(*query.shape[:-1], key.shape[-2])
        keeps = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, keeps, dropout_p, is_causal, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
    )[0]
