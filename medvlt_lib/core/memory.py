"""How much memory a process has used at most."""

from __future__ import annotations

import resource
import sys


def peak_memory_mb(who: int = resource.RUSAGE_SELF) -> int:
    """The most memory that this process had in use at once, in MB; of finished child processes with RUSAGE_CHILDREN."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return round(resource.getrusage(who).ru_maxrss * unit / 2**20)
