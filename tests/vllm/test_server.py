"""The printed server commands: TRL hands them on to vLLM's own command line, which reads every flag."""

import shlex

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.runs import Run
from medvlt_lib.training.launch import launch_commands


@pytest.mark.parametrize(("name", "gpus"), [("full-3b", 8), ("full-7b", 8), ("full-32b", 32)])
def test_vllm_reads_the_command_that_trl_starts(name, gpus, tmp_path, monkeypatch):
    from trl.cli.main import main
    from trl.scripts import vllm_serve
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    profile = load_profile(name, {"model.max_pixels": 401408})
    assert profile.launch.devices == gpus
    server, _ = launch_commands(Run(tmp_path / name, profile, {}), ["grpo"])
    _, *words = shlex.split(server)
    assert words[0] == "trl"
    started = []
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(vllm_serve.os, "execve", lambda program, command, environment: started.append(command))
    with pytest.warns(FutureWarning):  # TRL would rather have vLLM's own command, which is longer
        main(words[1:])
    [command] = started
    flags = command[command.index("serve") + 1 :]
    read = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
    assert read.model_tag == profile.model.name and read.revision == profile.model.revision
    assert read.max_model_len == profile.grpo.max_prompt_length + profile.grpo.max_completion_length
    assert read.logprobs_mode == "processed_logprobs" and read.mm_processor_kwargs == {"max_pixels": 401408}
