"""Torch's threads: told before torch loads its OpenMP, as many as cores are free, a person's own settings win."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from medvlt_lib.core import threads
from medvlt_lib.core.threads import PERSONAL, SPINS

ROOT = Path(__file__).parents[2]
gnu = pytest.mark.skipif(sys.platform != "linux", reason="torch's wheels carry GNU OpenMP on Linux only")
ANSWERS = """
import medvlt_lib, torch
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
engine = TransformersEngine(load_model(shipped("small")), load_processor(shipped("small")))
prompts = prompts_of(make_questions("curb65,nodule_count", "test", 8))
for threads in (torch.get_num_threads(), 1):
    torch.set_num_threads(threads)
    print([(c.token_ids, c.logprobs) for c in engine.generate(prompts, Sampling(16, 1.0, 16))])
"""
WATCHED = """
import medvlt_lib, torch, time
from medvlt_lib.core.threads import use_free_cores
before, end = torch.get_num_threads(), time.monotonic() + 1.5
while time.monotonic() < end:
    use_free_cores()
    torch.ones(400, 400) @ torch.ones(400, 400)
print(before, torch.get_num_threads())
"""


def start(arguments: list[str], **variables: str) -> subprocess.Popen:
    """A fresh Python in which OpenMP says what it was told as it loads."""
    clean = {name: value for name, value in os.environ.items() if name not in PERSONAL}
    environment = clean | {"OMP_DISPLAY_ENV": "verbose"} | variables
    command = [sys.executable, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def spins(process: subprocess.Popen) -> set[str]:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said[-2000:]
    return {line.split("'")[1] for line in said.splitlines() if "GOMP_SPINCOUNT" in line}


@gnu
def test_openmp_is_told_before_torch_loads_it():
    assert spins(start(["-c", "import medvlt_lib, sys; assert 'torch' not in sys.modules; import torch"])) == {SPINS}


@gnu
def test_the_test_modules_are_told_too():
    module = str(Path(__file__).relative_to(ROOT))  # imports torch before anything of ours
    assert spins(start(["-m", "pytest", "-q", "-s", "--collect-only", module])) == {SPINS}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GOMP_SPINCOUNT": "77"}, "77 True"),
        ({"OMP_WAIT_POLICY": "passive"}, "None True"),
        ({"OMP_NUM_THREADS": "2"}, "None True"),
        ({"GOMP_SPINCOUNT": SPINS}, f"{SPINS} False"),  # as a kernel gets it from `medvlt course`
    ],
)
def test_what_a_person_sets_wins(variables, expected):
    code = (
        "import os; from medvlt_lib.core import threads; print(os.getenv('GOMP_SPINCOUNT'), threads.set_by_a_person())"
    )
    assert start(["-c", code], **variables).communicate(timeout=60)[0].strip() == expected


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_imports_the_library_first(notebook):
    cells = [c.source for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    code = "\n".join(line for line in "\n".join(cells).splitlines() if not line.startswith("%"))
    first = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Import, ast.ImportFrom)))
    assert isinstance(first, ast.ImportFrom) and first.module.startswith("medvlt_lib")


def test_answers_are_the_same_to_the_token():
    ours = start(["-c", ANSWERS]).communicate(timeout=120)[0].splitlines()
    default = start(["-c", ANSWERS], GOMP_SPINCOUNT="300000").communicate(timeout=120)[0].splitlines()
    assert ours[0].count("[") == 1 + 2 * 8 * 16
    assert {*ours, *default} == {ours[0]}


@pytest.fixture
def used(monkeypatch):
    """A machine of four cores; .others of them are used by other processes, one by ours."""
    cores = SimpleNamespace(others=0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(threads, "SECONDS", 0.0)
    monkeypatch.setattr(threads.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads.psutil, "cpu_percent", lambda: 100 * (1 + cores.others) / 4)
    monkeypatch.setattr(threads.psutil, "Process", lambda: SimpleNamespace(cpu_percent=lambda: 100.0))
    machine = threads._Machine()
    monkeypatch.setattr(threads, "_machine", lambda: machine)
    yield cores
    torch.set_num_threads(before)


def test_a_thread_for_each_free_core_and_at_least_one(used):
    for others, expected in [(0.0, 4), (0.3, 4), (0.8, 3), (2.0, 2), (3.0, 1), (4.0, 1), (0.0, 4)]:
        used.others = others
        threads.use_free_cores()
        assert torch.get_num_threads() == expected


def test_threads_that_a_person_set_in_torch_are_left_alone(used):
    torch.set_num_threads(2)
    for used.others in (0.0, 3.0):
        threads.use_free_cores()
        assert torch.get_num_threads() == 2


def test_busy_processes_are_seen():
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        before, after = map(int, start(["-c", WATCHED]).communicate(timeout=60)[0].split())
    finally:
        for process in burning:
            process.kill()
            process.wait()
    assert after < before or before == 1


@pytest.mark.parametrize("lora", [False, True])
def test_a_loaded_model_looks_before_each_forward_pass(lora, monkeypatch):
    from peft import LoraConfig, get_peft_model

    from medvlt_lib.models.adapters import LORA_TARGETS
    from medvlt_lib.models.loading import load_model, shipped

    for name in PERSONAL:
        monkeypatch.delenv(name, raising=False)
    looks = []
    monkeypatch.setattr(threads, "use_free_cores", lambda *_: looks.append(1))
    model = load_model(shipped("small"))
    if lora:
        model = get_peft_model(model, LoraConfig(target_modules=LORA_TARGETS))
    looks.clear()
    for _ in range(2):
        model(input_ids=torch.tensor([[5, 6, 7]]))
    assert len(looks) == 2
