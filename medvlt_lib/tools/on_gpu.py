"""What a GPU would do otherwise than a CPU in a training step, for fake tensors that say they lie on one.

Autocast to bf16; the attention kernel that CUDA would choose; and the kernels of TRL's output layer, which are Triton's
there and allocate nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
HALVES = (torch.bfloat16, torch.float16)


@contextmanager
def on_gpu() -> Iterator[None]:
    """Within it, code on fake CUDA tensors takes the ways that it takes on an NVIDIA GPU from Ampere on."""
    import trl.kernels.chunked_logprob as kernels
    import trl.trainer.utils as utils

    with ExitStack() as stack:
        for owner, name, value in (
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
            (utils, "_use_triton", lambda device: device.type == "cuda"),
            (kernels, "_use_triton", lambda device: False),
            (kernels, "_forward_tile", lambda *_, **__: None),
            (kernels, "_backward_tile", lambda *_, **__: None),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(CudaAttention())
        yield


class CudaAttention(TorchFunctionMode):
    """CUDA's choice of an attention kernel (torch 2.13, ATen/native/transformers/cuda/sdp_utils.cpp): flash where there
    is no mask; the memory-efficient one with a mask, which takes no shared key heads; else the plain product, which
    keeps every score."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].device.type == "cuda":
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Any:
    if torch.is_autocast_enabled("cuda"):
        query, key, value = (x.to(torch.get_autocast_dtype("cuda")) for x in (query, key, value))
    shared = enable_gqa and query.shape[-3] != key.shape[-3]
    if attn_mask is None and query.dtype in HALVES and query.shape[-1] <= 256:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, torch.full((), float("-inf"), dtype=query.dtype, device=query.device))
    if not shared:
        bias = None if attn_mask is None else attn_mask.expand(*query.shape[:-1], key.shape[-2])
        keeps = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, keeps, dropout_p, is_causal, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
    )[0]
