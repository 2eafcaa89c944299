"""A wheel, installed in a fresh environment outside the checkout, finds what it needs and runs the course."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOOK = """
import json
from pathlib import Path
import medvlt_lib
from medvlt_lib.core.config import PROFILES
from medvlt_lib.course.lesson import NOTEBOOKS, REFERENCE, RESULTS
from medvlt_lib.models.shipped import WEIGHTS
from medvlt_lib.tools.installed import REQUIREMENTS
from medvlt_lib.training.launch import LAUNCH

FOLDERS = (PROFILES, NOTEBOOKS, REFERENCE, RESULTS, WEIGHTS, LAUNCH, REQUIREMENTS)
package = Path(medvlt_lib.__file__).parent
print(json.dumps({"package": str(package), "files": [str(p.relative_to(package)) for p in package.rglob("*")],
                  "folders": [str(f) for f in FOLDERS]}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A fresh virtual environment with the wheel in it. It sees the other packages installed here, but no checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("medvlt_lib", "notebooks", "results", "requirements"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([*pip, *build], check=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    shutil.rmtree(source)
    return folder / "venv"


def run(environment: Path, folder: Path, *command: str) -> str:
    """The output of a command of the fresh environment in an empty folder."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(environment / "bin" / command[0]), *command[1:]]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_wheel_holds_its_assets(environment, tmp_path):
    found = json.loads(run(environment, tmp_path, "python", "-c", LOOK))
    assert Path(found["package"]).is_relative_to(environment)
    assert all(Path(folder).is_dir() and folder.startswith(found["package"]) for folder in found["folders"])
    ours = {str(p.relative_to(ROOT / "medvlt_lib")) for p in (ROOT / "medvlt_lib").rglob("*")}
    for name in ("notebooks", "results", "requirements"):  # links here, folders there
        ours |= {f"assets/{p.relative_to(ROOT)}" for p in (ROOT / name).rglob("*")}
    assert not {f for f in ours - set(found["files"]) if "__pycache__" not in f and "/." not in f}
    assert "py.typed" in found["files"]


@pytest.mark.processes
def test_a_wheel_runs_the_course(environment, tmp_path):
    printed = run(
        environment, tmp_path, "medvlt", "course", "--from", "00", "--to", "00", "--set", "model.name=phantom:small"
    )
    assert "00_start_here: " in printed
    assert (tmp_path / "runs/tiny/notebooks/00_start_here.metrics.json").is_file()
