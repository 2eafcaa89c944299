"""The browser, and runs to look at. Nothing is collected without MEDVLT_BROWSER, which `make test-browser` sets."""

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medvlt_lib.core.runs import Run, open_run
from medvlt_lib.course.lesson import REFERENCE
from tests.browser.chromium import browser

collect_ignore_glob = [] if os.environ.get("MEDVLT_BROWSER") else ["test_*.py"]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Where screenshots are put, to be looked at: MEDVLT_PICTURES, or a temporary folder."""
    folder = Path(os.environ.get("MEDVLT_PICTURES") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def tab():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    """The reference run, with a report."""
    from medvlt_lib.stages import report

    root = tmp_path_factory.mktemp("looked-at") / "runs"
    shutil.copytree(REFERENCE, root / "copied")
    opened = open_run(None, "copied", root=root)
    report.run(opened)
    return opened


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
