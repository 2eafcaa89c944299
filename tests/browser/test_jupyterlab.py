"""JupyterLab itself, started for real: notebooks 04 and 06 are run in a browser up to their widgets, which are used.

No error on the console is let pass: without a network, a password or settings of its own JupyterLab writes none.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest

from medvlt_lib.course.lesson import NOTEBOOKS

LAST = {"04_grpo": "playing.play_with_completions(", "06_analysis": "dials.noise_dials("}  # what the last cell calls
NOTEBOOK = "[...jupyterapp.shell.widgets('main')][0]"
HANDLE = "document.querySelector('.jupyter-widgets .noUi-handle')"
READOUT = "document.querySelector('.jupyter-widgets .widget-readout').innerText"
PIXELS = """(picture => {
  if (!picture?.naturalWidth) return '';
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  canvas.getContext('2d').drawImage(picture, 0, 0);
  return canvas.toDataURL();
})(document.querySelector('.widget-vbox img'))"""
CUT = """[...document.querySelectorAll('.jupyter-widgets button, .jupyter-widgets .widget-label')]
  .filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab, without a password, over a folder with the two notebooks as far as their widgets."""
    folder = tmp_path_factory.mktemp("lab")
    for name, call in LAST.items():
        write_start(name, call, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    folders = "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR IPYTHONDIR"
    settings = {key: str(tmp_path_factory.mktemp(key.lower())) for key in folders.split()}  # not the tester's own
    environment = {**os.environ, **settings, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], cwd=folder, stdout=log, stderr=log, env=environment
        )
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
        while True:
            assert process.poll() is None and time.monotonic() < end, (folder / "lab.log").read_text()[-2000:]
            with contextlib.suppress(URLError):
                urlopen(f"{address}/api", timeout=10).close()
                break
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def write_start(name: str, call: str, folder: Path) -> None:
    """A copy of a notebook that starts from the reference run and ends after the cell with this call."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    last = next(i for i, cell in enumerate(notebook.cells) if call in cell.source)
    notebook.cells = notebook.cells[: last + 1]
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert parameters.source.count("USE_REFERENCE = False") == 1
    parameters.source = parameters.source.replace("USE_REFERENCE = False", "USE_REFERENCE = True")
    nbformat.write(notebook, folder / f"{name}.ipynb")


def run_notebook(tab, lab: str, name: str) -> None:
    """Open a notebook by itself, run all of its cells, and go to the last one; no cell may fail."""
    tab.open(f"{lab}/doc/tree/{name}.ipynb", 1280, 900)
    tab.wait("window.jupyterapp && [...jupyterapp.shell.widgets('main')].length", 300)
    tab.wait(f"{NOTEBOOK}.sessionContext?.session?.kernel?.status === 'idle'", 300)
    tab.run(f"jupyterapp.shell.activateById({NOTEBOOK}.id)")
    tab.run("void jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.allRan = true)")
    tab.wait("window.allRan", 1200)
    code = f"{NOTEBOOK}.content.widgets.filter(cell => cell.model.type === 'code').map(cell => cell.model)"
    outputs = f"{code}.flatMap(cell => cell.outputs.toJSON())"
    assert tab.run(f"{outputs}.filter(o => o.output_type === 'error').map(o => o.evalue)") == []
    assert tab.run(f"{code}.every(cell => cell.executionCount)")
    tab.run(f"void {NOTEBOOK}.content.scrollToItem({NOTEBOOK}.content.widgets.length - 1, 'center')")
    tab.wait(f"{HANDLE} && {PIXELS}", 60)
    assert tab.run(CUT) == []


def becomes(tab, what: str, before: str) -> str:
    """The value of a JavaScript expression, once it is neither empty nor what it was before."""
    tab.wait(f"![undefined, '', {json.dumps(before)}].includes({what})", 120)
    return tab.run(what)


def button(words: str) -> str:
    return f"[...document.querySelectorAll('.jupyter-widgets button')].find(b => b.innerText === '{words}')"


def test_the_playground_follows_slider_button_and_box(tab, lab, pictures):
    run_notebook(tab, lab, "04_grpo")
    words, picture = "document.querySelector('.widget-vbox .widget-html')?.innerText", tab.run(PIXELS)
    assert tab.run(READOUT) == "0.20" and tab.run(words).startswith("Completion 1: ")
    tab.run(f"{HANDLE}.focus()")
    tab.press("ArrowRight")
    becomes(tab, PIXELS, picture)
    assert tab.run(READOUT) == "0.25"
    tab.click(button("13"))
    unpaid = becomes(tab, words, tab.run(words))
    tab.click("document.querySelector('.jupyter-widgets input[type=checkbox]')")
    paid = becomes(tab, words, unpaid)
    assert {said.split("reward ")[1][0] for said in (unpaid, paid)} == {"0", "1"}
    for said in (unpaid, paid):  # an advantage has the sign of its reward
        assert said.startswith("Completion 13: ") and ("= +" in said) == ("reward 1" in said)
    tab.picture(pictures / "lab-04_grpo.png", whole=False)
    assert tab.errors == []


def test_the_noise_dials_follow_slider_and_button(tab, lab, pictures):
    run_notebook(tab, lab, "06_analysis")
    words, picture = "document.querySelector('.widget-output pre')?.innerText", tab.run(PIXELS)
    assert tab.run(words).startswith("RL on pictures, 40 % wrong labels")
    tab.run(f"{HANDLE}.focus()")
    tab.press("ArrowRight")
    moved = becomes(tab, PIXELS, picture)
    assert tab.run(words).startswith("RL on pictures, 60 % wrong labels") and tab.run(READOUT) == "60"
    tab.click(button("SFT on pictures"))
    becomes(tab, PIXELS, moved)
    assert tab.run(words).startswith("SFT on pictures, 60 % wrong labels")
    tab.picture(pictures / "lab-06_analysis.png", whole=False)
    assert tab.errors == []
