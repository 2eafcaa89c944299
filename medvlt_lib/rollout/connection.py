"""A connection to a Ray cluster: one that runs, at HOST:PORT or `auto`, or one of this machine alone, local:N.

No dashboard is started and no usage statistics are sent; every way in which Ray does not answer ends within a minute or
two, and with a sentence.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medvlt_lib.core.errors import UserError, first_line

TRIES = 3  # to start Ray here; it gives its own processes 15 s, which a busy machine may not keep
ANSWER_SECONDS = 30  # for a cluster to say that it is there
STORE = 200 * 2**20  # bytes of the object store of a cluster started here, which holds the rows of a few parts
JOIN = "start one with `ray start` and this command on one of its machines, or give local:N for engines here"


def engines_here(address: str) -> int | None:
    """N of local:N; None for another address. Raises UserError for what is no address."""
    local = re.fullmatch(r"local:([1-9]\d*)", address)
    if not local and address != "auto" and not re.fullmatch(r"(?!local:)[^/\s:]+:\d+", address):
        raise UserError(
            f"--ray {address} is no cluster; write HOST:PORT as `ray start` prints it, auto for the cluster that runs "
            "on this machine, or local:4 for four engines here."
        )
    return int(local[1]) if local else None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster; local:N starts one on this machine, which ends with the connection.

    No dashboard is started, and no usage statistics are sent. Raises UserError when nobody answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # for the processes that Ray starts, too
    local = engines_here(address)
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--ray needs Ray, which does not load ({first_line(error)}); run `pip install 'medvlt[cluster]'`."
        ) from None
    with quick_imports():
        if not local:
            _refuse_silence(address)
        try:
            if local:
                cores = max(local, os.cpu_count() or 1)
                _start("local", TRIES, num_cpus=cores, object_store_memory=STORE, include_dashboard=False)
            else:
                _start(address, 1)
            yield
        finally:
            ray.shutdown()


@contextmanager
def quick_imports() -> Iterator[None]:
    """Processes that begin meanwhile import Ray in a third of the time.

    Ray's import brings jsonschema, which builds a grammar of web addresses where JupyterLab's rfc3987_syntax is
    installed: two seconds of computing in each of Ray's own processes, which on a busy machine of two cores then miss
    the 15 s that Ray gives them to start. It does without the grammar where that import fails.
    """
    before = os.environ.get("PYTHONPATH")
    with TemporaryDirectory() as folder:
        Path(folder, "rfc3987_syntax.py").write_text('raise ImportError("left out")\n')
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [before])])
        try:
            yield
        finally:
            os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def _start(address: str, tries: int, **options: Any) -> None:
    """Start Ray, or join it, without its messages on the terminal. Raises UserError with Ray's reason."""
    import ray

    for tries_left in reversed(range(tries)):
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
            return
        except Exception as error:  # of many kinds
            ray.shutdown()
            if not tries_left:
                sentence = f"Ray does not start at {address} ({first_line(error)}); {JOIN}."
                raise UserError(sentence) from error


def _refuse_silence(address: str) -> None:
    """Raises UserError when no cluster answers, or one that wants a token: within seconds, where `ray.init` would wait
    for a minute and then end this process. Ray's own question is asked by another process, which can be given up."""
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        if address != "auto":
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=5).close()
            ask += ["--address", address]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=ANSWER_SECONDS)
        answers, refuses = done.returncode == 0, "InvalidAuthToken" in done.stderr
    except (OSError, OverflowError, subprocess.TimeoutExpired):
        answers = refuses = False
    if refuses and address != "auto":  # for auto, Ray finds the token by itself
        raise UserError(
            f"the Ray cluster {address} wants a token; give this machine its ~/.ray/auth_token, and set "
            "RAY_AUTH_MODE=token."
        )
    if not answers and not refuses:
        raise UserError(f"no Ray cluster answers at {address}; {JOIN}.")
