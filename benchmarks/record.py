"""What every benchmark begins and ends with: its options, and a record with date, hardware and versions."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path


def parser(doc: str) -> argparse.ArgumentParser:
    """Options of a benchmark that its own docstring explains: --out FILE."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True)
    return made


def save(out: Path, packages: tuple[str, ...], hardware: str, **figures) -> None:
    """Write the record; `hardware` is said after the machine and its cores."""
    record = {
        "date": date.today().isoformat(),
        "hardware": ", ".join(filter(None, (platform.machine(), f"{os.cpu_count()} cores", hardware))),
        "versions": {n: version(n) for n in packages} | {"python": platform.python_version()},
        **figures,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {out}")
