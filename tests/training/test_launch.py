"""The printed commands run when they are pasted: a shell reads them, and accelerate and TRL know the flags."""

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from medvlt_lib.core.config import load_profile, profile_names
from medvlt_lib.core.runs import Run
from medvlt_lib.training.launch import LAUNCH, how_to_launch, launch_commands

ARGUMENTS = ["grpo", "--arm", "rl_text", "--data", "it's here/my questions.parquet"]
SHELL = 'accelerate() { printf "%s\\0" "$@"; }; sbatch() { printf "%s\\0" "$@"; }; '
SHELL += 'trl() { printf "%s\\0" "$CUDA_VISIBLE_DEVICES" "$@"; }; '


def run_of(name: str, **overrides) -> Run:
    return Run(Path("runs") / name, load_profile(name, overrides), {})


def pasted(command: str, **variables: str) -> list[str]:
    """The arguments that the program gets when a shell reads the command."""
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(["bash", "-c", SHELL + command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


SEVERAL = [name for name in profile_names() if load_profile(name).launch.devices > 1]


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("arguments", [ARGUMENTS, ["sft", "--run", "a b"]])
def test_accelerate_reads_the_training_command(name, arguments):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    run = run_of(name)
    *_, training = launch_commands(run, arguments)
    given = pasted(training, MACHINE_RANK="2", FIRST_MACHINE="10.0.0.1")
    assert given[0] == "launch"
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(given[1:]))
    assert (args.module, args.training_script, args.training_script_args) == (True, "medvlt_lib", arguments)
    assert (args.use_fsdp, args.num_processes) == (True, run.profile.launch.devices)
    assert args.num_machines == run.profile.launch.machines == run.profile.launch.devices // 8
    assert (args.machine_rank, args.main_process_ip) == ((2, "10.0.0.1") if args.num_machines > 1 else (0, None))


@pytest.mark.parametrize("version", ["0.29.1", "0.30.0"])
def test_trl_reads_the_server_command(version, monkeypatch):
    from packaging.version import Version
    from trl.cli.main import main
    from trl.scripts import vllm_serve

    pixels = {"model.max_pixels": 401408, "engine.tensor_parallel": 2}
    server, _ = launch_commands(run_of("full-7b", **pixels), ARGUMENTS)
    devices, *given = pasted(server)
    assert devices == "8,9"  # 0 to 7 train
    started = []
    monkeypatch.setattr(vllm_serve, "is_vllm_available", lambda min_version: Version(version) >= Version(min_version))
    monkeypatch.setattr(vllm_serve.os, "execve", lambda program, command, environment: started.append(command))
    with pytest.warns(FutureWarning):  # TRL would rather have vLLM's own command, which is longer
        main(given)
    [command] = started
    values = dict(pairwise(command))
    m = load_profile("full-7b").model
    assert (command[4], values["--revision"], values["--tensor-parallel-size"]) == (m.name, m.revision, "2")
    assert values["--max-model-len"] == "6144"  # grpo.max_prompt_length + grpo.max_completion_length
    assert json.loads(values["--mm-processor-kwargs"]) == {"max_pixels": 401408}
    assert values["--logprobs-mode"] == "processed_logprobs"
    assert ("--enable-scale-out" in command) == (version == "0.30.0")


def test_machines_that_are_not_named_are_asked_for():
    training = launch_commands(run_of("full-32b"), ["sft"])[-1]
    done = subprocess.run(
        ["bash", "-c", SHELL + training], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.returncode != 0 and "0 on the first machine" in done.stderr and not done.stdout


def test_a_profile_of_several_machines_says_how_slurm_starts_it():
    text = how_to_launch(run_of("full-32b"), ["sft", "--run", "a b"])
    [job] = [line for line in text.splitlines() if line.startswith("    sbatch")]
    assert pasted(job) == ["--nodes=4", "--gpus-per-node=8", str(LAUNCH / "slurm.sh"), "--run", "a b"]
    assert "sbatch" not in how_to_launch(run_of("full-7b"), ["sft"])
    assert "sbatch" not in how_to_launch(run_of("full-32b"), ["grpo"])  # whose server needs a place of its own


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero3"])
def test_accelerate_knows_every_key_of_the_launch_files(name):
    """Also those of fsdp_config, which accelerate takes over without a look; what it knows are its own flags."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    path = LAUNCH / f"{name}.yaml"
    load_config_from_file(str(path))  # refuses unknown keys
    known = set(vars(launch_command_parser().parse_args(["script"])))
    values = yaml.safe_load(path.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        assert set(values.get(section, {})) <= known


def test_only_what_must_be_launched_is_launched(monkeypatch):
    assert how_to_launch(run_of("tiny"), ["grpo"]) is None
    text = how_to_launch(run_of("full-3b"), ["grpo"])
    server, training = launch_commands(run_of("full-3b"), ["grpo"])
    lines = text.splitlines()
    assert "on 8 devices. The completions come from a server on 1 more, so the first machine needs 9 GPUs." in text
    assert lines.index(f"    {server}") < lines.index(f"    {training}")
    assert "vllm-serve" not in how_to_launch(run_of("full-3b"), ["sft"])
    two = {"launch.devices": 2, "launch.strategy": "ddp", "grpo.sampler": "engine"}
    assert [c.split()[0] for c in launch_commands(run_of("lora-3b", **two), ["grpo"])] == ["accelerate"]
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert how_to_launch(run_of("full-3b"), ["grpo"]) is None


@pytest.mark.parametrize("family", ["Qwen2_5_VL", "Qwen2VL"])
def test_fsdp_wraps_the_layers_of_every_model_family(family):
    import torch
    import transformers
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

    sizes = {"text_config": {"num_hidden_layers": 3}, "vision_config": {"depth": 2}}
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForConditionalGeneration")(
            getattr(transformers, f"{family}Config")(**sizes)
        )
    config = yaml.safe_load((LAUNCH / "fsdp.yaml").read_text())["fsdp_config"]
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=config["fsdp_version"],
        auto_wrap_policy=config["fsdp_auto_wrap_policy"],
        transformer_cls_names_to_wrap=config.get("fsdp_transformer_layer_cls_to_wrap"),
    )
    policy = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [name for name, module in model.named_modules() if policy(module)]
    layers = [f"model.language_model.layers.{i}" for i in range(3)]
    assert sorted(wrapped) == [*layers, "model.visual.blocks.0", "model.visual.blocks.1"]
