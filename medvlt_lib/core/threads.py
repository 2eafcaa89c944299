"""Torch's threads beside other work: how long one that waits holds its core, and how many there are.

Both are left alone where a person has set something about them.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import psutil

SPINS = "60000"
SECONDS = 0.5  # between two looks at the machine
PERSONAL = (
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES",
    "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "KMP_BLOCKTIME", "KMP_AFFINITY", "MKL_NUM_THREADS",
)  # fmt: skip


def set_by_a_person() -> bool:
    """Whether the environment says something about threads; what our own parent process has set does not count."""
    return any(name in os.environ and (name, os.environ[name]) != ("GOMP_SPINCOUNT", SPINS) for name in PERSONAL)


def bound_spinning() -> None:
    """Let a thread that waits for another spin a millisecond or two; works only before torch is imported.

    GNU OpenMP's own 300,000 spins outlast a turn on the processor: two threads that share a core with other work then
    wait a whole turn for each other at every small operation. With few spins they fall asleep at every one, which costs
    an idle machine about a tenth of its speed. What is left to lose beside other work, `use_free_cores` ends.
    """
    if not set_by_a_person():
        os.environ["GOMP_SPINCOUNT"] = SPINS


class _Machine:
    """What other processes leave of this machine, from one look to the next."""

    def __init__(self) -> None:
        import torch

        self.most = self.threads = torch.get_num_threads()
        self.us = psutil.Process()
        self.free_cores()

    def free_cores(self) -> float:
        self.looked = time.monotonic()
        cores = psutil.cpu_count() or 1
        others = cores * psutil.cpu_percent() - self.us.cpu_percent()  # each in percent of a core since the last look
        return cores - others / 100


_machine = cache(_Machine)


def use_free_cores(*_: Any) -> None:
    """Give torch a thread for each core that other processes leave free, at least one. Called before a forward pass."""
    import torch

    machine = _machine()
    if time.monotonic() - machine.looked < SECONDS:
        return
    threads = max(1, min(machine.most, round(machine.free_cores())))
    if torch.get_num_threads() == machine.threads:  # another number is a person's own
        torch.set_num_threads(threads)
        machine.threads = threads


def watch_cores(model: Any) -> None:
    """From now on, look before each forward pass of a transformers model how many cores are free."""
    if not set_by_a_person():
        use_free_cores()
        model.base_model.register_forward_pre_hook(use_free_cores)  # LoRA skips the hooks of the outer model
