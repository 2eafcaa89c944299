"""The house: imports go down only, light folders take no torch, and no function or module grows too long."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import medvlt_lib

ROOT = Path(medvlt_lib.__file__).parent
FLOORS = [
    "course",
    "study",
    "stages",
    "tools",
    "training",
    "data",
    "smol",
    "tiny",
    "rollout",
    "models",
    "phantom",
    "grading",
    "core",
]
MODULES = sorted(ROOT.rglob("*.py"))
LONG_MODULES = {"phantom/image_families.py"}  # one picture family after another, each small


def floor(name: str) -> int:
    """How far up a module stands: 0 is core; __main__ is above all."""
    folder = name.split(".")[1] if name.count(".") > 1 or (ROOT / name.split(".")[-1]).is_dir() else None
    return len(FLOORS) if folder is None else FLOORS[::-1].index(folder)


def dotted(path: Path) -> str:
    return ".".join(["medvlt_lib", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Our modules that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in found if name.startswith("medvlt_lib.")}
    known = {dotted(p) for p in MODULES}
    return {name if name in known else name.rpartition(".")[0] for name in ours} - {"medvlt_lib"}


GRAPH = {dotted(path): imported(path) for path in MODULES}


def test_every_folder_has_its_floor():
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert folders == set(FLOORS)


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_no_import_goes_up(name):
    assert {other for other in GRAPH[name] if floor(other) > floor(name)} == set()


def test_no_imports_go_round():
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in GRAPH.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


def test_core_grading_and_phantom_import_without_torch():
    """In a process of its own; what they import is counted, since seconds depend on the machine."""
    names = [n for n in GRAPH if n.split(".")[1:2] and n.split(".")[1] in ("core", "grading", "phantom")]
    code = f"import sys, json, {', '.join(names)}; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "trl", "datasets", "vllm", "scipy", "pandas", "pyarrow"}
    assert heavy & set(json.loads(done.stdout)) == set()


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_and_functions_stay_short(path):
    source = path.read_text()
    if str(path.relative_to(ROOT)) not in LONG_MODULES:
        assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


@pytest.mark.parametrize("path", sorted((ROOT.parent / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_exists(path):
    """They are not run here, so a name that moved would be found only when somebody measures again."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medvlt_lib"):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                found = hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}")
                assert found, f"{path.name} imports {name} from {node.module}, which has none"
