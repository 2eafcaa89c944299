"""The commands that start training on several devices."""

from __future__ import annotations

import os
from pathlib import Path

from medvlt_lib.core.runs import Run

LAUNCH = Path(__file__).parents[1] / "assets" / "launch"


def launch_command(run_: Run, command: str) -> str | None:
    """What starts a training stage of a profile for several devices; None when this process is one of them, or the only one.

    `command` is the stage's own command line, such as 'grpo --arm rl_text --run full-3b'. Not run here: no GPUs at hand.
    """
    launch = run_.profile.launch
    if launch.devices == int(os.environ.get("WORLD_SIZE", "1")):
        return None
    config = LAUNCH / f"{launch.strategy}.yaml"
    machines = -(-launch.devices // 8)
    start = f"accelerate launch --config_file {config} --num_processes {launch.devices} --num_machines {machines}"
    if machines > 1:
        start += " --machine_rank RANK --main_process_ip FIRST_MACHINE"
    serve = ""
    if run_.profile.grpo.sampler == "trl-vllm-server" and command.startswith("grpo"):
        serve = f"trl vllm-serve --model {run_.profile.model.name}   # on GPUs of its own, before:  "
    return f"{serve}{start} -m medvlt_lib {command}"
