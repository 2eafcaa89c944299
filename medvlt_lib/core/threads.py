"""How long torch's threads wait for each other before they sleep; set before torch is imported."""

from __future__ import annotations

import os

SPINS = 10_000
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # what a person may have set about the same


def bound_spinning() -> None:
    """Let a waiting thread of GNU OpenMP spin SPINS times, where nothing is set already.

    Its own 300,000 (about 3 ms) hold a core that other work may need, for the whole of which torch then stands still;
    no spinning at all puts a thread to sleep at every small operation.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
