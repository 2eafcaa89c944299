"""The folder of a stage while work is done in it: refused, resumed or skipped, and marked as finished last.

A stage folder holds `stage.json` (the settings and input hashes it is made with, written first), its own files, and
`metrics.json` (written last: its presence means that the work there finished). No torch here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import disk_refused, file_hash, read_json, write_json


@dataclass
class Stage:
    """What the body of `with run.stage(...)` works with: nothing when `finished`; it sets `metrics` last."""

    folder: Path
    finished: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)


@contextmanager
def work_in(
    folder: Path,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    advice: str,
    *,
    redo: bool = False,
    free: tuple[str, ...] = (),
    scratch: tuple[str, ...] = (),
) -> Iterator[Stage]:
    """Work in `folder` that is to be done once with these `settings` and `inputs`.

    `redo`: set finished work aside and do it again; the old work is kept until the new work has finished, and put back
    when that fails. `free`: settings that may change; the work is then done again from the parts that are on disk.
    `scratch`: folders that are deleted once the work has finished.
    Raises UserError when settings or inputs differ from those the folder was made with (`advice` ends the sentence),
    when it holds files that did not come from here, when another process works there, or when the disk is full.
    """
    made_with = json.loads(json.dumps({"settings": settings, "inputs": {k: file_hash(p) for k, p in inputs.items()}}))
    aside = folder.with_name(f".{folder.name}.old")
    with _lock(folder, needed=first_process()):
        if redo:
            _set_aside(folder, aside, made_with)
        stage = Stage(folder)
        try:
            stage.finished = _enter(folder, made_with, advice, free)
            if stage.finished:
                stage.metrics = read_json(folder / "metrics.json")
            yield stage
            if not stage.finished and first_process():
                assert stage.metrics, f"the work in {folder} ended without metrics"
                write_json(folder / "metrics.json", stage.metrics)
        except Exception as error:
            if aside.exists() and first_process():
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
            if not isinstance(error, UserError) and disk_refused(error):
                sentence = (
                    f"cannot write in {folder} ({first_line(error)}); free some space, then the same command continues."
                )
                raise UserError(sentence) from error
            raise
        if first_process():
            for path in (aside, *(folder / name for name in scratch)):
                shutil.rmtree(path, ignore_errors=True)


def is_finished(folder: Path) -> bool:
    return (folder / "metrics.json").exists()


def finished_in(folder: Path) -> list[str]:
    """The names of the finished arms in a stage's folder; what was set aside (hidden) is none."""
    return sorted(p.parent.name for p in folder.glob("*/metrics.json") if not p.parent.name.startswith("."))


def first_process() -> bool:
    """Whether this process writes: of several that accelerate launched, only the first does."""
    return os.environ.get("RANK", "0") == "0"


def _enter(folder: Path, made_with: dict, advice: str, free: tuple[str, ...]) -> bool:
    """Check what the folder holds and write stage.json; returns whether the work was finished before."""
    marked = (folder / "stage.json").exists()
    if not first_process():  # what it finds besides may be new; metrics.json goes before stage.json is new
        return marked and not _changed_free_settings(folder, made_with, advice, free) and is_finished(folder)
    # Hidden files are what an interrupted write left behind; in a folder without stage.json they may be the user's own.
    leftovers = [p for p in folder.rglob(".*") if p.is_file()] if marked else list(folder.glob(".stage.json.*"))
    present = {p.name for p in folder.glob("*") if p not in leftovers}
    if marked and present != {"stage.json"}:
        changed = _changed_free_settings(folder, made_with, advice, free)
        if is_finished(folder) and not changed:
            return True
    elif present - {"stage.json"}:
        raise UserError(
            f"{folder} holds files that this program did not put there; move them or choose another folder."
        )
    for path in [*leftovers, folder / "metrics.json"]:
        path.unlink(missing_ok=True)
    write_json(folder / "stage.json", made_with)
    return False


def _changed_free_settings(folder: Path, made_with: dict, advice: str, free: tuple[str, ...]) -> set[str]:
    """The `free` settings that differ from those the folder was made with. Raises UserError when others differ."""
    before = read_json(folder / "stage.json")
    changed = set()
    for kind, noun in (("settings", ""), ("inputs", "input ")):
        for key in sorted({*before[kind], *made_with[kind]}):
            old, new = before[kind].get(key), made_with[kind].get(key)
            if old != new and key in free:
                changed.add(key)
            elif old != new:
                raise UserError(
                    f"{folder} was made with {noun}{key} = {json.dumps(old)}, now it is {json.dumps(new)}; {advice}."
                )
    return changed


def _set_aside(folder: Path, aside: Path, made_with: dict) -> None:
    """Move finished work aside before it is done again.

    Where something lies aside already, an earlier redo was stopped: what is in `folder` is its half-done work, which
    goes on when it is made with the same settings and inputs.
    """
    if "RANK" in os.environ:
        raise UserError(
            f"--redo cannot be combined with accelerate launch; delete {folder} and launch again without it."
        )
    if not folder.exists():
        return
    if not aside.exists() or is_finished(folder):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    elif not (folder / "stage.json").exists() or read_json(folder / "stage.json") != made_with:
        shutil.rmtree(folder)


@contextmanager
def _lock(folder: Path, needed: bool) -> Iterator[None]:
    """Only one process at a time works in a folder. Raises UserError that says which process does."""
    if not needed:
        yield
        return
    holder = folder.with_name(f".{folder.name}.holder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout:
        by = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise UserError(f"{by} is working in {folder}; wait until it has finished, or stop it.") from None
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose a folder you may write to.") from error
    try:
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        holder.write_text(f"process {os.getpid()} on {platform.node()} (`{command}`)", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
