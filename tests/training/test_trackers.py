"""Training reports where `launch.tracker` says, or says which package is missing."""

import json
import sys
from pathlib import Path

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import write_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo, sft
from medvlt_lib.training.trackers import tracker_arguments

SMALL = {
    "model.name": "phantom:small", "grpo.prompts": 2, "grpo.group_size": 4, "grpo.micro_batch": 8, "grpo.max_steps": 2,
    "grpo.max_completion_length": 48, "sft.batch": 2, "sft.micro_batch": 2, "sft.max_steps": 2,
}  # fmt: skip


@pytest.mark.parametrize("stage", [sft, grpo])
@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_named_before_anything_is_read(stage, name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    run = open_run("tiny", "x", {"launch.tracker": name}, root=tmp_path)
    with pytest.raises(UserError, match=rf"launch.tracker is {name}, .*`pip install {name}`.*launch.tracker=none"):
        stage.run(run)


def test_what_transformers_is_told():
    folder = Path("runs/tiny/04_grpo/rl_text")
    told = tracker_arguments(load_profile("tiny", {"launch.tracker": "trackio"}), folder)
    assert told == {"report_to": "trackio", "run_name": "tiny/04_grpo/rl_text", "project": "medvlt"}
    assert tracker_arguments(load_profile("tiny"), folder)["report_to"] == "none"


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match=r"launch.tracker is 'mlflow'.*'tensorboard', 'trackio' or 'wandb'"):
        load_profile("tiny", {"launch.tracker": "mlflow"})


@pytest.mark.parametrize(("stage", "figure"), [(sft, "loss"), (grpo, "reward")])
def test_tensorboard_is_kept_in_the_arms_folder(stage, figure, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_questions(make_questions("curb65", "train", 4, seed=3), tmp_path / "data.parquet")
    profile = load_profile("tiny", {**SMALL, "launch.tracker": "tensorboard"})
    stage.train(profile, {"data": tmp_path / "data.parquet"}, tmp_path / "arm")
    events = EventAccumulator(str(tmp_path / "arm" / "tracker")).Reload()
    shown = [event.value for event in events.Scalars(f"train/{figure}")]
    log = [json.loads(line) for line in (tmp_path / "arm" / "log.jsonl").read_text().splitlines()]
    assert shown == pytest.approx([row[figure] for row in log if figure in row]) and len(shown) == 2
    assert not list((tmp_path / "arm" / "training").rglob("*tfevents*"))
