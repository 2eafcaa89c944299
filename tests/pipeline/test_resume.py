"""Training that stops between two checkpoints and starts again ends with the weights of training that never stopped."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.records import write_questions
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo, sft

SHORT = {
    "model.name": "phantom:small",
    "sft.batch": 4,
    "sft.micro_batch": 2,
    "sft.max_steps": 6,
    "sft.save_every": 2,
    "grpo.prompts": 2,
    "grpo.group_size": 4,
    "grpo.micro_batch": 4,
    "grpo.max_steps": 6,
    "grpo.save_every": 2,
    "grpo.max_completion_length": 48,
}


class PowerCut(TrainerCallback):
    """Ends the process's work in the middle of step 6, when the last checkpoint is that of step 4."""

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "mixed.parquet"
    write_questions(make_questions("curb65,nodule_count", "train", 24, seed=4), path)
    return path


@pytest.mark.parametrize("name", ["tiny", "tiny-qlora"])
@pytest.mark.parametrize(("stage", "updates"), [(sft, 1), (grpo, 1), (grpo, 2)])
def test_a_power_cut_changes_nothing(steady_threads, stage, updates, name, questions, tmp_path):
    profile = load_profile(name, {**SHORT, "grpo.updates": updates, "grpo.micro_batch": 4})
    one, two = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (one, two):
        folder.mkdir()
    stage.train(profile, {"data": questions}, one)
    torch.manual_seed(0)  # another process starts with other random numbers
    with pytest.raises(KeyboardInterrupt):
        stage.train(profile, {"data": questions}, two, [PowerCut()])
    assert (two / "training" / "checkpoint-4").is_dir()
    torch.manual_seed(1)
    stage.train(profile, {"data": questions}, two)
    [weights] = [p.name for p in (one / "checkpoint").glob("*.safetensors")]
    a, b = load_file(one / "checkpoint" / weights), load_file(two / "checkpoint" / weights)
    assert a.keys() == b.keys()
    assert max((a[k].float() - b[k].float()).abs().max().item() for k in a) <= 1e-6


def losses(folder):
    """The loss of every step, as log.jsonl keeps it."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().split("\n")[:-1])
    return [row["loss"] for row in rows if "loss" in row]


class StepCounter(TrainerCallback):
    """How many steps one process trains."""

    steps = 0

    def on_step_begin(self, args, state, control, **_):
        self.steps += 1


@pytest.mark.parametrize("name", ["tiny", "tiny-qlora"])
@pytest.mark.parametrize("stage", [sft, grpo])
def test_a_kill_after_the_last_step_trains_no_more(steady_threads, stage, name, questions, tmp_path, monkeypatch):
    """The last checkpoint is in the middle of an epoch, where transformers would go on training."""
    profile = load_profile(name, {**SHORT, "sft.max_steps": 5, "grpo.max_steps": 5})
    one, two = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (one, two):
        folder.mkdir()
    metrics = stage.train(profile, {"data": questions}, one)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "finish_validated", killed)
        stage.train(profile, {"data": questions}, two)
    assert not (two / "checkpoint").exists() and (two / "training" / "checkpoint-5").is_dir()
    counter = StepCounter()
    assert stage.train(profile, {"data": questions}, two, [counter]) == metrics
    assert counter.steps == 0
    [weights] = [p.name for p in (one / "checkpoint").glob("*.safetensors")]
    assert (one / "checkpoint" / weights).read_bytes() == (two / "checkpoint" / weights).read_bytes()
    assert losses(one) == losses(two) and len(losses(one)) == 5


# --- real kills ---

VALIDATED = {
    **SHORT, "grpo.updates": 2, "grpo.learning_rate": 5e-5, "grpo.validate_every": 2,
    "grpo.validation_questions": 20,
}  # fmt: skip
# A process that has everything imported makes each process to be killed by forking, so that a start takes a moment.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.pipeline.test_resume", "trl.trainer.grpo_trainer", "trl.trainer.sft_trainer"])


def train(name: str, folder: Path, settings: dict, inputs: dict, place: tuple | None = None) -> None:
    """What a process does: train, and write metrics.json last; killed at a `place`, if one is given."""
    torch.set_num_threads(1)
    if place is not None:
        kill_yourself_at(*place)
    stage = {"sft": sft, "grpo": grpo}[name]
    write_json(folder / "metrics.json", stage.train(load_profile("tiny", settings), inputs, folder))


def kill_yourself_at(owner: str, function: str, call: int, when: str) -> None:
    """kill -9 this process `when` ('before' or 'after') a function of a module or class is called the n-th time."""
    module, _, kind = owner.partition(":")
    holder = import_module(module)
    holder = getattr(holder, kind) if kind else holder
    real, calls = getattr(holder, function), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, function, deadly)


def run_process(*arguments, seconds: float | None = None) -> int:
    """Run `train` in a process of its own, killed after `seconds`; returns its exit code."""
    process = SERVER.Process(target=train, args=arguments)
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def asked(questions, tmp_path_factory):
    path = tmp_path_factory.mktemp("validation") / "validation.parquet"
    write_questions(make_questions("curb65,nodule_count", "validation", 20, seed=4), path)
    return {"data": questions, "validation": path}


@pytest.fixture(scope="module")
def unbroken(asked, tmp_path_factory):
    """By stage: the folder of a training that never stopped, and how long it took; under "settings", its settings.

    The kills around a new best step need one behind the first step, so seeds are tried until there is one.
    """
    runs: dict = {}
    for seed in range(6, 16):
        runs["settings"] = {**VALIDATED, "grpo.seed": seed}
        for name in ("grpo", "sft"):
            folder, started = tmp_path_factory.mktemp(name), time.monotonic()
            assert run_process(name, folder, runs["settings"], asked) == 0
            runs[name] = folder, time.monotonic() - started
            if name == "grpo" and not 0 < read_json(folder / "metrics.json")["best_step"] < 6:
                break
        else:
            return runs
    raise AssertionError("with none of ten seeds a step behind the first was the best")


def assert_same_end(one: Path, two: Path) -> None:
    """The same files, metrics and losses, and weights within 1e-6."""
    names = {p.name for p in one.iterdir()} - {"training"}
    assert names == {p.name for p in two.iterdir()} - {"training"}
    assert read_json(one / "metrics.json") == read_json(two / "metrics.json") and losses(one) == losses(two)
    for kept in names & {"checkpoint", "best", "last"}:
        a, b = (load_file(folder / kept / "model.safetensors") for folder in (one, two))
        assert a.keys() == b.keys() and max((a[k] - b[k]).abs().max().item() for k in a) <= 1e-6, kept


VALIDATION, TRANSFORMERS = "medvlt_lib.training.validation:Validation", "transformers:Trainer"
PLACES = {
    "in the middle of a validation": ("medvlt_lib.training.validation", "grade", 30, "before"),
    "before the first best step is written": (VALIDATION, "keep_weights", 1, "before"),
    "between a best step and its checkpoint": (VALIDATION, "keep_weights", 2, "after"),
    "between a checkpoint's weights and its optimizer": (TRANSFORMERS, "_save_optimizer_and_scheduler", 2, "before"),
    "before former best steps are dropped": (VALIDATION, "drop_former_bests", 2, "before"),
    "between checkpoint/ and best/": ("shutil", "copytree", 1, "before"),
    "before the log is written": ("medvlt_lib.training.checkpoints", "write_jsonl", 1, "before"),
    "after the log is written": ("medvlt_lib.training.checkpoints", "write_jsonl", 1, "after"),
}


@pytest.mark.processes
@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_a_delicate_place_changes_nothing(place, unbroken, asked, tmp_path):
    assert run_process("grpo", tmp_path, unbroken["settings"], asked, PLACES[place]) == -signal.SIGKILL
    assert not (tmp_path / "metrics.json").exists()
    assert run_process("grpo", tmp_path, unbroken["settings"], asked) == 0
    assert_same_end(unbroken["grpo"][0], tmp_path)


@pytest.mark.processes
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_kills_at_random_moments_change_nothing(name, kills, unbroken, asked, tmp_path):
    """Killed again and again at moments anywhere in the first half of an unbroken run's time; where a training ends
    all the same, it is compared, and another one is begun."""
    one, seconds = unbroken[name]
    chance, done, folder, begun = random.Random(f"{name}{kills}"), 0, tmp_path / "0", 0
    folder.mkdir()
    while done < kills or not (folder / "metrics.json").exists():
        moment = chance.uniform(0, seconds / 2) if done < kills else None
        code = run_process(name, folder, unbroken["settings"], asked, seconds=moment)
        assert code in (0, -signal.SIGKILL)
        done += code != 0
        if code == 0:
            assert_same_end(one, folder)
            if done < kills:
                shutil.rmtree(folder)
                begun += 1
                folder = tmp_path / str(begun)
                folder.mkdir()
    assert done == kills
