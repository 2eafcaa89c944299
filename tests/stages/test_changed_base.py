"""Base weights are an input of every stage that uses them: when they change, finished and half-done work is refused."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_json
from medvlt_lib.core.records import write_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.loading import shipped
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import evaluate, filtering, grpo, sft


@pytest.fixture
def base(tmp_path):
    """A copy of the small shipped model."""
    return shutil.copytree(shipped("small"), tmp_path / "base")


@pytest.fixture
def run(base, tmp_path, monkeypatch):
    """A run on that copy with finished data; what trains and evaluates is left out."""
    run = open_run("tiny", "run", {"model.name": str(base)}, root=tmp_path)
    with run.stage("01", {}, {}) as stage:
        for kind in ("text", "image"):
            write_questions(make_questions(kind, "train", 2), stage.folder / f"train_{kind}.parquet")
        for name in ("validation", "test"):
            write_questions(make_questions("text", name, 2), stage.folder / f"{name}.parquet")
        stage.metrics = {"questions": 8}

    def scores(folder, *_):
        write_json(folder / "scores.json", {})
        return {"macro": 0.5}

    monkeypatch.setattr(evaluate, "evaluate", scores)
    for stage in (sft, grpo):
        monkeypatch.setattr(stage, "train", lambda *_: {"steps": 1})
    return run


def change_one_weight(base) -> None:
    weights = load_file(base / "model.safetensors")
    next(iter(weights.values())).flatten()[0] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


STAGES = {
    "03": lambda run: sft.run(run, data=run.folder / "01_data" / "train_text.parquet"),
    "04": lambda run: grpo.run(run, data=run.folder / "01_data" / "train_text.parquet"),
    "05": lambda run: evaluate.run(run, "base"),
}


@pytest.mark.parametrize("number", STAGES)
def test_a_changed_base_is_refused(number, run, base):
    work = STAGES[number]
    assert work(run) == work(run)
    change_one_weight(base)
    with pytest.raises(UserError, match=rf'was made with model\.weights = "\w+", now it is "\w+"; .*--redo {number}'):
        work(run)


def test_half_done_rollouts_of_a_changed_base_are_refused(run, base, monkeypatch):
    def killed(profile):
        (run.folder / "02_filtering" / "rollouts").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(filtering, "build_engine", killed)
    with pytest.raises(KeyboardInterrupt):
        filtering.run(run)
    change_one_weight(base)
    with pytest.raises(UserError, match=r"was made with model\.weights = .*--redo 02"):
        filtering.run(run)
