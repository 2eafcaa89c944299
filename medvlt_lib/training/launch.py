"""The commands that start training on several devices. Nothing is started here: they are printed, to be pasted."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.runs import Run
from medvlt_lib.models.loading import resolve
from medvlt_lib.training.stored_questions import StoredQuestions

LAUNCH = Path(__file__).parents[1] / "assets" / "launch"


def how_to_launch(run_: Run, arguments: list[str]) -> str | None:
    """What to type to start a training stage on its profile's devices; None when nothing has to be launched."""
    commands = launch_commands(run_, arguments)
    if not commands:
        return None
    *server, training = commands
    text = f"profile {run_.profile.profile} trains on {run_.profile.launch.devices} devices. "
    if server:
        own, others = run_.profile.engine.tensor_parallel, run_.profile.launch.devices // run_.profile.launch.machines
        text += (
            f"The completions come from a server on {own} more, so the first machine needs {own + others} GPUs. Start "
            f"it there in a terminal and leave it running:\n\n    {server[0]}\n\n"
            "When it answers, start the training in another terminal"
        )
    else:
        text += "Start it in a terminal"
    if run_.profile.launch.machines > 1:
        text += " on every machine, with its number and the first machine's address in the two variables"
    text += f":\n\n    {training}\n"
    if run_.profile.launch.machines > 1 and not server:
        text += f"\nUnder SLURM, this does so:\n\n    {_batch_job(run_.profile, arguments)}\n"
    return text


def refuse_mixed(profile: Profile, questions: StoredQuestions, path: Path) -> None:
    """Raises UserError where weights are spread and some questions have pictures, others none.

    A device whose rows have no picture leaves the vision tower out, and never sends its part of it to the others: they
    wait for ever, or break off (two CPU processes did).
    """
    if profile.launch.strategy in ("fsdp", "zero3") and len(questions.modalities()) > 1:
        raise UserError(
            f"{path} has text and image questions, which launch.strategy {profile.launch.strategy} cannot train in one "
            "arm; train one arm on the text questions and another from it (--init) on the image questions, "
            "or set launch.strategy ddp."
        )


def launch_commands(run_: Run, arguments: list[str]) -> list[str]:
    """The shell commands that start a training stage on its profile's devices; where GRPO needs a server, its first.

    `arguments` are the stage's own, such as ["grpo", "--arm", "rl_text"]. The list is empty when this process is one of
    those that were launched, or the only one. The flags are checked against the installed accelerate and TRL. On two
    CPU processes SFT was run with them under ddp and fsdp, GRPO under ddp alone; nothing on GPUs or under zero3.
    """
    profile = run_.profile
    devices = profile.launch.devices
    if devices == int(os.environ.get("WORLD_SIZE", "1")):
        return []
    machines = profile.launch.machines
    config = LAUNCH / f"{profile.launch.strategy}.yaml"
    start = ["accelerate", "launch", "--config_file", str(config), "--num_processes", str(devices)]
    training = shlex.join([*start, "--num_machines", str(machines)])
    if machines > 1:  # the shell stops with these words where a variable is not set
        training += (
            ' --machine_rank "${MACHINE_RANK:?set it to 0 on the first machine, 1 on the second, and so on}"'
            ' --main_process_ip "${FIRST_MACHINE:?set it to the address of the first machine}"'
        )
    training += " " + shlex.join(["-m", "medvlt_lib", *arguments])
    if profile.grpo.sampler != "trl-vllm-server" or arguments[0] != "grpo":
        return [training]
    return [_server_command(profile, devices // machines), training]


def _batch_job(profile: Profile, arguments: list[str]) -> str:
    """What submits SFT to SLURM on a profile's machines."""
    nodes, gpus = profile.launch.machines, profile.launch.devices // profile.launch.machines
    where = [f"--nodes={nodes}", f"--gpus-per-node={gpus}"]
    return shlex.join(["sbatch", *where, str(LAUNCH / "slurm.sh"), *arguments[1:]])


def _server_command(profile: Profile, gpu: int) -> str:
    """TRL's vLLM server on the GPUs from number `gpu` on, behind those that train.

    It holds one prompt and its completion, not the model's whole context, and scales pictures as training does. TRL
    itself adds --enable-scale-out, which pictures need from vLLM 0.30 on and older versions do not know.
    """
    count, m, g = profile.engine.tensor_parallel, profile.model, profile.grpo
    visible = ",".join(str(gpu + i) for i in range(count))
    command = ["trl", "vllm-serve", "--model", resolve(m.name), "--tensor_parallel_size", str(count)]
    command += ["--revision", m.revision] if m.revision else []
    command += ["--max_model_len", str(g.max_prompt_length + g.max_completion_length)]
    pixels = m.pixel_limits()
    command += ["--mm-processor-kwargs", json.dumps(pixels)] if pixels else []
    command += ["--logprobs-mode", "processed_logprobs"]  # of what is sampled from; the ratios correct for it
    return f"CUDA_VISIBLE_DEVICES={visible} {shlex.join(command)}"
