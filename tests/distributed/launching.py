"""What the tests with two processes do with a command that was printed: paste it, or kill it after a checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def shell(**variables: str) -> dict[str, str]:
    """The environment of a shell in which this Python's commands are found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PATH": path, **variables}


def pasted(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess:
    """What a shell does with a command that was printed."""
    environment = shell(**variables)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def launch_command(printed: str) -> str:
    """The one line that launches training, of what a training command prints when it has to be launched."""
    [line] = [line for line in printed.splitlines() if line.startswith("    accelerate launch")]
    return line


def killed_after_a_checkpoint(folder: Path, command: str, checkpoints: Path) -> None:
    """Start a command and kill it with all its processes once a checkpoint is whole."""
    started = subprocess.Popen(["bash", "-c", command], cwd=folder, env=shell(), start_new_session=True)
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert started.poll() is None and time.monotonic() < deadline, "training ended before it could be killed"
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
