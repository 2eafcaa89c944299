"""SFT's own stage on two CPU processes: data parallel, sharded by FSDP2, in 4 bits, and as two machines under SLURM.

What one process with twice the accumulation learns is the truth for all of them, step by step.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medvlt_lib.core.files import read_json
from medvlt_lib.models.loading import load_model
from tests.distributed.launching import killed_after_a_checkpoint, launch_command, pasted
from tests.pipeline.conftest import medvlt, settings

pytestmark = pytest.mark.processes
HERE = Path(__file__).parent
SETTINGS = {"sft.micro_batch": 2, "sft.max_steps": 8, "sft.save_every": 2, "sft.validate_every": "null"}
SETTINGS |= {"grpo.micro_batch": 4, "grpo.validate_every": "null"}
WAYS = {
    "ddp": {"launch.strategy": "ddp", "launch.devices": 2},
    "fsdp": {"launch.strategy": "fsdp", "launch.devices": 2, "grpo.sampler": "trl-vllm-server"},
    "machines": {"launch.strategy": "ddp", "launch.devices": 2, "launch.machines": 2},
}
CHECKPOINTED = {"sft.gradient_checkpointing": "true"}  # less memory and the same numbers; DDP looks for unused weights


def run_with(folder: Path, name: str, profile: str = "tiny", **changes) -> Path:
    """A run of these settings with its questions."""
    arguments = settings(**{**SETTINGS, **changes})
    done = medvlt(folder, "data", "--profile", profile, "--run", name, *arguments)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / name


def printed(folder: Path, name: str, arm: str) -> str:
    """What `medvlt sft` prints when it has to be launched."""
    refused = medvlt(folder, "sft", "--run", name, "--arm", arm)
    assert refused.returncode == 2 and "trains on 2 devices" in refused.stderr
    return refused.stderr


def learnt(run: Path, arm: str) -> tuple[list[dict], dict]:
    """An arm's logged steps and its weights."""
    folder = run / "03_sft" / arm
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    adapter = folder / "checkpoint/adapter_model.safetensors"
    weights = load_file(adapter) if adapter.exists() else load_model(folder / "checkpoint").state_dict()
    return [row for row in rows if "loss" in row], weights


def assert_same(run: Path, truth: Path, arm: str) -> None:
    """Loss and gradient norm of every step, and the weights after the last one."""
    (steps, weights), (expected, unsharded) = learnt(run, arm), learnt(truth, arm)
    assert [row["step"] for row in steps] == [row["step"] for row in expected] == list(range(1, 9))
    for row, other in zip(steps, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5), row["step"]
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4), row["step"]
    assert weights.keys() == unsharded.keys()
    assert max((weights[k] - v).abs().max().item() for k, v in unsharded.items()) < 1e-5


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """A folder with a run that one process trained, on text and on pictures."""
    folder = tmp_path_factory.mktemp("many")
    run_with(folder, "one")
    for arm in ("sft_text", "sft_image"):
        done = medvlt(folder, "sft", "--run", "one", "--arm", arm)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_processes_take_the_steps_of_one_and_go_on_after_a_kill(one):
    run = run_with(one, "ddp", **WAYS["ddp"])
    launch = launch_command(printed(one, "ddp", "sft_image"))
    done = pasted(one, launch)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(run, one / "runs/one", "sft_image")
    unbroken = learnt(run, "sft_image")
    shutil.rmtree(run / "03_sft")
    killed_after_a_checkpoint(one, launch, run / "03_sft/sft_image/training")
    assert not (run / "03_sft/sft_image/metrics.json").exists()
    done = pasted(one, launch)
    assert done.returncode == 0, done.stderr[-3000:]
    steps, weights = learnt(run, "sft_image")
    assert [row["loss"] for row in steps] == pytest.approx([row["loss"] for row in unbroken[0]], abs=1e-6)
    assert max((weights[k] - v).abs().max().item() for k, v in unbroken[1].items()) <= 1e-6


@pytest.mark.parametrize("arm", ["sft_text", "sft_image"])
def test_sharded_weights_learn_what_whole_ones_do_and_go_on_after_a_kill(one, arm, tmp_path):
    """accelerate's FSDP2, from assets/launch/fsdp.yaml; the weights come from the first process alone."""
    name = f"fsdp_{arm}"
    run = run_with(one, name, **WAYS["fsdp"], **(CHECKPOINTED if arm == "sft_image" else {}))
    launch = launch_command(printed(one, name, arm)).replace("-m medvlt_lib", str(HERE / "fsdp_on_cpu.py"))
    launch = f"export SEEN={tmp_path} PYTHONPATH={HERE.parents[1]}; {launch.strip()}"
    if arm == "sft_image":
        killed_after_a_checkpoint(one, launch, run / f"03_sft/{arm}/training")
        assert not (run / f"03_sft/{arm}/metrics.json").exists()
    done = pasted(one, launch)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        seen = read_json(tmp_path / f"{rank}.json")
        assert seen["finite"] and 0.4 < seen["share"] < 0.6
        assert any("language_model.layers" in name for name in seen["wrapped"])
    assert_same(run, one / "runs/one", arm)


def test_a_batch_job_trains_on_the_machines_that_slurm_gives(one, tmp_path):
    """The printed sbatch command, read by bash: one task of srun a machine, both of them here."""
    run = run_with(one, "machines", **WAYS["machines"], **CHECKPOINTED)
    [submit] = [line for line in printed(one, "machines", "sft_text").splitlines() if line.startswith("    sbatch")]
    stand_ins = {
        "sbatch": 'shift 2; SLURM_JOB_NODELIST="here,there" exec bash "$@"',
        "scontrol": "[[ $* == 'show hostnames here,there' ]] && echo 127.0.0.1 && sleep 0.2 && echo elsewhere",
        "srun": 'shift; SLURM_NODEID=0 "$@" & SLURM_NODEID=1 "$@"; ended=$?; wait $! && exit $ended',
        "medvlt": 'exec python -m medvlt_lib "$@"',
    }
    for command, does in stand_ins.items():
        (tmp_path / command).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / command).chmod(0o755)
    submit = f"export PATH={tmp_path}:$PATH; {submit.strip()}"
    done = pasted(one, submit)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(run, one / "runs/one", "sft_text")
    wrong = pasted(one, submit.replace("--run machines", "--run elsewhere"))
    assert wrong.returncode == 1 and "elsewhere" in wrong.stderr


def test_four_bit_weights_train_on_two_processes(one):
    """Every process holds all of the packed weights and trains the same adapter."""
    truth = run_with(one, "packed_one", "tiny-qlora")
    run = run_with(one, "packed_two", "tiny-qlora", **WAYS["ddp"])
    done = medvlt(one, "sft", "--run", "packed_one", "--arm", "sft_image")
    assert done.returncode == 0, done.stderr[-3000:]
    done = pasted(one, launch_command(printed(one, "packed_two", "sft_image")))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(run, truth, "sft_image")


def test_text_beside_pictures_is_refused_where_weights_are_spread(one):
    from medvlt_lib.core.records import iterate_questions, write_questions

    files = [one / "runs/one/01_data" / f"train_{kind}.parquet" for kind in ("text", "image")]
    write_questions([q for file in files for q in iterate_questions(file)], one / "both.parquet")
    run_with(one, "both", **WAYS["fsdp"])
    arguments = ["--run", "both", "--arm", "mine", "--data", "both.parquet"]
    launch = launch_command(medvlt(one, "sft", *arguments).stderr)
    done = pasted(one, launch)
    assert done.returncode != 0 and "both.parquet has text and image questions" in done.stderr


def test_accelerate_shards_the_layers_of_both_families(tmp_path):
    """Loss, gradients and a step of sharded models are those of whole ones, and every process has finite weights."""
    config = HERE.parents[1] / "medvlt_lib/assets/launch/fsdp.yaml"
    launch = f"accelerate launch --config_file {config} --num_processes 2 {HERE / 'sharded_families.py'}"
    done = pasted(HERE.parents[1], f"PYTHONPATH={HERE.parents[1]} {launch} {tmp_path / 'found.json'}")
    assert done.returncode == 0, done.stderr[-3000:]
    found = read_json(tmp_path / "found.json")
    assert len(found) == 4
    for name, model in found.items():
        parts = {name.rpartition(".")[0] for name in model["layers"]}
        assert parts == {"model.language_model.layers", "model.visual.blocks"}, name
        assert model["layers"] == [n for n in model["wrapped"] if ".layers." in n or ".blocks." in n], name
        assert model["finite"] == [True, True], name
        assert model["loss"][0] == pytest.approx(model["loss"][1], abs=1e-5), name
        assert model["gradients"] < 1e-4 and model["weights"] < 1e-5, name
