"""How long torch's threads wait: set before torch loads its OpenMP, unless a person has set it; answers stay the same."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest

from medvlt_lib.core.threads import SPINS
from medvlt_lib.course.lesson import ROOT

gnu = pytest.mark.skipif(sys.platform != "linux", reason="torch's wheels carry GNU OpenMP on Linux only")
ANSWERS = """
import medvlt_lib, torch
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
torch.set_num_threads(2)
engine = TransformersEngine(load_model(shipped("small")).eval(), load_processor(shipped("small")))
prompts = prompts_of(make_questions("curb65,nodule_count", "test", 8))
print([(c.token_ids, c.logprobs) for c in engine.generate(prompts, Sampling(16, 1.0, 16))])
"""


def start(arguments: list[str], **variables: str) -> subprocess.Popen:
    """A fresh Python in which OpenMP says what it was told as it loads."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
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
    assert spins(start(["-c", "import medvlt_lib, torch"])) == {str(SPINS)}


@gnu
def test_the_test_modules_are_told_too():
    module = "tests/rollout/test_shared_prompt.py"  # imports torch before anything of ours
    assert spins(start(["-m", "pytest", "-q", "-s", "--collect-only", module])) == {str(SPINS)}


@gnu
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0"), ({"OMP_NUM_THREADS": "2"}, str(SPINS))],
)
def test_what_a_person_sets_about_waiting_wins(variables, expected):
    assert spins(start(["-c", "import medvlt_lib, torch"], **variables)) == {expected}


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_imports_the_library_first(notebook):
    cells = [c.source for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    code = "\n".join(line for line in "\n".join(cells).splitlines() if not line.startswith("%"))
    first = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Import, ast.ImportFrom)))
    assert isinstance(first, ast.ImportFrom) and first.module.startswith("medvlt_lib")


def test_answers_are_the_same_to_the_token():
    ours = start(["-c", ANSWERS]).communicate(timeout=120)[0]
    theirs = start(["-c", ANSWERS], GOMP_SPINCOUNT="300000").communicate(timeout=120)[0]  # OpenMP's own
    assert ours.count("[") == 1 + 2 * 8 * 16
    assert ours == theirs
