"""Memory counted, not guessed: code runs on tensors without contents, and every byte that would be live is counted.

PyTorch's fake tensors have a shape and a type, and no contents. `Counting` is a dispatch mode in which a
tensor is fake as soon as a weight has a part in it. Tensors that no weight had a part in (token ids, masks, picture
grids, positions, advantages) stay real, so that code which reads their values takes the branches that it would take.
Where a value is read that does not exist, such as a loss for the log, it is 0; where a mask has no values, every
element is taken, which is the most.

What it sees are the tensors that operators return. What a kernel allocates for itself and frees before it returns is
added for the operators of SCRATCH alone.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import bitsandbytes  # noqa: F401 (registers its operators)
import torch
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
GEMM_4BIT = torch.ops.bitsandbytes.gemm_4bit.default
CPU, ASKED_DEVICE = torch.device("cpu"), torch.ops.prim.device.default
LARGE = 2**24  # elements beyond which a tensor that no weight had a part in is fake, too
IN_PLACE = {aten._fused_adamw_.default, aten._fused_adam_.default}  # they write their arguments and allocate nothing


class Counting(TorchDispatchMode):
    """Within it tensors are fake (see the module) and counted, each rounded up to `block` bytes. `parts` says how many
    bytes are live, by what they are for; `peak` is the same at the moment when the sum was highest since `restart`.
    `flops` counts multiplications and additions of matrix products and attention."""

    def __init__(self, block: int = 1) -> None:
        super().__init__()
        self.block = block
        self.fake = FakeTensorMode()
        self.parts: Tally[str] = Tally()
        self.peak: dict[str, int] = {}
        self.flops = 0
        self._total = self._highest = 0
        self._part = "activations"
        self._views: set[Any] = set()
        self._known: dict[tuple, Any] = {}  # how the results of operators look, by operator and arguments
        self._live: dict[int, tuple[int, str, weakref.ref]] = {}

    # --- what is counted ---

    @property
    def total(self) -> int:
        """Bytes that are live now."""
        return self._total

    def restart(self) -> None:
        """Look for the peak, and count operations, from here on."""
        self._highest, self.peak, self.flops = self._total, dict(self.parts), 0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is allocated within is for `name`."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def switch(self, name: str) -> None:
        """What is allocated from here on is for `name`."""
        self._part = name

    def add(self, tensor: torch.Tensor, part: str | None = None) -> None:
        """Count a tensor's storage until it is freed; one that is counted already goes over to `part`, if given."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            size, old, reference = self._live[key]
            if part is not None and part != old:
                self._live[key] = (size, part, reference)
                self.parts[old] -= size
                self.parts[part] += size
            return
        part = part or self._part
        size = -(-storage.nbytes() // self.block) * self.block
        self._live[key] = (size, part, weakref.ref(storage, partial(self._freed, key)))
        self.parts[part] += size
        self._total += size
        self._look()

    def scratch(self, size: int) -> None:
        """`size` bytes that a kernel takes and gives back."""
        self.parts[self._part] += size
        self._total += size
        self._look()
        self.parts[self._part] -= size
        self._total -= size

    def _freed(self, key: int, _: weakref.ref) -> None:
        size, part, _ = self._live.pop(key)
        self.parts[part] -= size
        self._total -= size

    def _look(self) -> None:
        if self._total > self._highest:
            self._highest, self.peak = self._total, dict(self.parts)

    def empty(self, shape: Any, dtype: torch.dtype, part: str) -> torch.Tensor:
        """A fake tensor, counted for `part`."""
        with self.fake:
            made = torch.empty(tuple(shape), dtype=dtype)
        self.add(made, part)
        return made

    # --- how operators are called ---

    def __enter__(self) -> Counting:
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ASKED_DEVICE:  # more often than anything else
            return CPU
        if func in IN_PLACE:
            return None
        kwargs = kwargs or {}
        if func is GEMM_4BIT:
            return self._gemm_4bit(*args, **kwargs)
        result = self._call(func, args, kwargs)
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor)
        return result

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if any(isinstance(value, FakeTensor) for value in given):
            return self._faked(func, args, kwargs, given)
        if not given:
            made = func(*args, **kwargs)
            fake = isinstance(made, torch.Tensor) and (made.is_floating_point() or made.numel() > LARGE)
            return made if fake else _computed(func, args, kwargs)
        if _is_view(func) or sum(tensor.numel() for tensor in given) <= LARGE:
            return _computed(func, args, kwargs)
        return self._faked(func, args, kwargs, given)

    def _faked(self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor]) -> Any:
        """The result of an operator that has a fake argument; values that it reads are assumed (see the module)."""
        if func is aten._local_scalar_dense.default:
            return 0.0 if args[0].is_floating_point() else 0
        if func is aten.masked_select.default:
            return torch.empty(self._chosen(args[1].expand(args[0].shape)), dtype=args[0].dtype)
        if func is aten.nonzero.default:
            return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.long)
        if func is aten.index.Tensor:
            args = (args[0], self._places(args[1]))
        if not all(isinstance(value, FakeTensor) for value in given):
            args, kwargs = tree_map_only(torch.Tensor, self._as_fake, (args, kwargs))
        result = self._shaped(func, args, kwargs)
        written = func._schema.is_mutable and given and given[0]
        return written if isinstance(written, torch.Tensor) and not isinstance(written, FakeTensor) else result

    def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operator's result on fake tensors. FakeTensorMode's own way takes three times as long: here views go
        straight to the kernels for shapes, and other results are made as they were made for such arguments before."""
        if func._schema.is_mutable:
            result = func(*args, **kwargs)
            self.flops += _operations(func, args, kwargs, result)
            return result
        if func in self._views or _is_view(func):
            with in_kernel_invocation_manager(self.fake):
                shapes = func(*args, **kwargs)
            return self._wrapped(shapes) if isinstance(shapes, torch.Tensor) else [self._wrapped(one) for one in shapes]
        leaves = tree_leaves((args, kwargs))
        key = (func, *map(_look_of, leaves), *kwargs)
        if key in self._known:
            kind, looks, operations = self._known[key]
            self.flops += operations
            return self._like(looks) if kind is torch.Tensor else kind(map(self._like, looks))
        result = func(*args, **kwargs)
        operations = _operations(func, args, kwargs, result)
        self.flops += operations
        made = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        given = {value.untyped_storage()._cdata for value in leaves if isinstance(value, torch.Tensor)}
        if any(one.untyped_storage()._cdata in given for one in made):
            self._views.add(func)  # it says that it is none
        elif isinstance(result, torch.Tensor):
            self._known[key] = torch.Tensor, _look_of(result), operations
        else:
            looks = [_look_of(one) if isinstance(one, torch.Tensor) else one for one in result]
            self._known[key] = type(result), looks, operations
        return result

    def _like(self, look: Any) -> Any:
        """A new tensor that looks so; what is no tensor stays."""
        if not isinstance(look, tuple):
            return look
        with unset_fake_temporarily():
            return self._wrapped(torch.empty_strided(look[0], look[1], dtype=look[2], device="meta"))

    def _wrapped(self, shape: torch.Tensor) -> torch.Tensor:
        return FakeTensor(self.fake, shape, CPU)

    def _as_fake(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor, or the fake of a real one, which is live as long as its fake is."""
        if isinstance(tensor, FakeTensor):
            return tensor
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        twin.kept = tensor
        return twin

    def _chosen(self, mask: torch.Tensor) -> int:
        if isinstance(mask, FakeTensor):
            return mask.numel()
        with unset_fake_temporarily():
            return int(mask.sum())

    def _places(self, indices: list) -> list:
        """Truth values among indices become the places that they choose."""
        places = []
        for index in indices:
            if index is None or index.dtype not in (torch.bool, torch.uint8):
                places.append(index)
                continue
            chosen = self._chosen(index)
            self.scratch(chosen * index.ndim * 8)
            places += [torch.empty(chosen, dtype=torch.long) for _ in range(index.ndim)]
        return places

    def _gemm_4bit(self, a, b, shape, absmax, blocksize, kind, bias=None, **nested: Any) -> torch.Tensor:
        """bitsandbytes' product with a 4-bit weight, as it does it for many rows: the weight is unpacked first."""
        assert not any(value is not None for value in nested.values()), "nested quantization is not counted"
        with self:
            weight = torch.ops.bitsandbytes.dequantize_4bit.default(b, absmax, blocksize, kind, shape, a.dtype)
            flat = a.reshape(-1, a.shape[-1])
            product = torch.mm(flat, weight.t()) if bias is None else torch.addmm(bias, flat, weight.t())
            return product.view(*a.shape[:-1], shape[0])


def _operations(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    count = flop_registry.get(func.overloadpacket)
    return 0 if count is None else count(*args, **kwargs, out_val=result)


def _look_of(value: Any) -> Any:
    """What a result's shape can depend on."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return type(value), value


@functools.cache
def _is_view(func: Any) -> bool:
    return any(output.alias_info is not None and not output.alias_info.is_write for output in func._schema.returns)


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of an operator without fake arguments."""
    with unset_fake_temporarily():
        return func(*args, **kwargs)
