"""JupyterLab itself, started for real: notebooks 04 and 06 run in a browser, and the comparison's widget is used."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest

from medvlt_lib.course.lesson import NOTEBOOKS
from tests.browser.conftest import free_port
from tests.notebooks.test_run import LIMITS

# What JupyterLab itself says on the console where nobody gave it a network or a session, none of it a page's error.
KNOWN = (
    "favicon",
    "api/me",
    "service worker",
    "jupyter/extension-manager",
    "pypi",
    "the server responded with a status of 404",
)
WIDGETS = ("ipywidgets", "compare_widget", "import playing", "import dials")  # a notebook with one of these shows some
CELLS = "window.jupyterapp.shell.currentWidget.content.widgets"


@pytest.fixture(scope="module")
def lab(tmp_path_factory, run):
    """The address of a JupyterLab over a folder with the notebooks at smoke limits and the run; no password."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(run.folder, folder / "runs" / "copied", ignore=shutil.ignore_patterns(".*"))
    for name in ("04_grpo", "06_analysis"):
        settings, limits = LIMITS[name]
        parameters = {"USE_REFERENCE": True, "RUN": f"lab-{name[:2]}", "SETTINGS": settings, **limits}
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        injected = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(injected))
        nbformat.write(notebook, folder / f"{name}.ipynb")
    small = nbformat.v4.new_notebook()
    small.cells = [nbformat.v4.new_code_cell(
        "from medvlt_lib.core.runs import open_run\nfrom medvlt_lib.course.compare_widget import compare\n"
        "compare(open_run(None, 'copied'), live=False)"
    )]  # fmt: skip
    nbformat.write(small, folder / "compare.ipynb")
    port = free_port()
    root = f"--ServerApp.root_dir={folder}"
    options = [
        "--no-browser",
        f"--port={port}",
        "--IdentityProvider.token=",
        root,
        "--allow-root",
        "--expose-app-in-browser",
    ]
    options += [f"--app-dir={os.environ['MEDVLT_LAB']}"] if "MEDVLT_LAB" in os.environ else []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "JUPYTER_PREFER_ENV_PATH": "1"}
    command = [sys.executable, "-m", "jupyterlab", *options]
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            with contextlib.suppress(URLError):
                urlopen(f"{address}/api", timeout=10).close()
                break
            assert process.poll() is None and time.monotonic() < end, (folder / "lab.log").read_text()[-2000:]
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def open_and_run(tab, lab, name: str, seconds: float) -> None:
    """Open a notebook, run all of it, and wait until its last cell has run."""
    tab.open(f"{lab}/lab/tree/{name}.ipynb?reset", 1280, 900)
    tab.wait("window.jupyterapp && window.jupyterapp.shell.currentWidget?.content?.widgets?.length", 300)
    tab.wait("window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'", 300)
    tab.run("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    code = f"{CELLS}.filter(c => c.model.type === 'code' && c.model.sharedModel.source.trim())"
    tab.wait(f"{code}.every(c => c.model.executionCount) || {errors()}.length", seconds)
    tab.wait("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", seconds)


def errors() -> str:
    return f"{CELLS}.flatMap(c => c.model.sharedModel.outputs ?? []).filter(o => o.output_type === 'error')"


def console_errors(tab) -> list[str]:
    return [error for error in tab.errors if not any(known in error for known in KNOWN)]


@pytest.mark.parametrize("name", ["04_grpo", "06_analysis"])
def test_a_notebook_runs_in_jupyterlab(tab, lab, pictures, name):
    open_and_run(tab, lab, name, 600)
    assert tab.run(f"JSON.stringify({errors()}.map(o => o.evalue))") == "[]"
    source = json.dumps(nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4))
    if any(word in source for word in WIDGETS):
        tab.run("window.jupyterapp.commands.execute('notebook:render-all-markdown')")
        outputs = f"{CELLS}.map(c => JSON.stringify(c.model.sharedModel.outputs ?? []))"
        assert tab.run(f"{outputs}.filter(o => o.includes('widget-view+json')).length") > 0
    tab.picture(pictures / f"lab-{name}.png", whole=False)
    assert console_errors(tab) == []


def test_a_click_on_the_comparison_changes_what_is_shown(tab, lab, pictures):
    open_and_run(tab, lab, "compare", 120)
    tab.wait("document.querySelector('.medvlt-compare .answer')", 60)
    before = tab.run("document.querySelector('.medvlt-compare').textContent")
    buttons = "[...document.querySelectorAll('.widget-toggle-buttons button')]"
    tab.run(f"{buttons}.find(b => b.textContent.includes('no picture')).click()")
    tab.wait(f"document.querySelector('.medvlt-compare, .widget-html p')?.textContent !== {json.dumps(before)}", 60)
    tab.picture(pictures / "lab-compare.png", whole=False)
    assert console_errors(tab) == []
