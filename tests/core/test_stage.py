"""What a stage's folder promises through kills, redos, other processes and other people's files."""

import json
import subprocess
import sys

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.runs import open_run
from medvlt_lib.core.stage import finished_in, work_in
from medvlt_lib.stages import arms, report


class Killed(BaseException):
    """Stands in for kill -9: nothing in the library catches it."""


@pytest.fixture
def run(tmp_path):
    return open_run("tiny", "run", root=tmp_path)


def work(run, text="", *, arm=None, stage="01", settings=None, error=None, files=()):
    """Work on a stage: write `files` and result.txt, then end, or die of `error`."""
    with run.stage(stage, settings or {}, {}, arm) as place:
        if not place.finished:
            for name in files:
                (place.folder / name).write_text("")
            if error is not None:
                raise error
            (place.folder / "result.txt").write_text(text)
            place.metrics = {"text": text}
    return place.metrics


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_finished_work_survives_a_redo_that_is_killed_and_given_again(run):
    work(run, "old")
    run.redo.add("01")
    for _ in range(3):
        with pytest.raises(Killed):
            work(run, error=Killed(), files=["half.txt"])
        assert (run.folder / ".01_data.old" / "result.txt").read_text() == "old"
    with pytest.raises(UserError, match="no questions"):
        work(run, error=UserError("no questions."))
    assert (run.folder / "01_data" / "result.txt").read_text() == "old"  # not the half-done work
    assert names(run.folder / "01_data") == {"stage.json", "metrics.json", "result.txt"}
    assert work(run, "new") == {"text": "new"}
    assert not (run.folder / ".01_data.old").exists()


def test_a_killed_redo_given_again_goes_on_with_its_half_done_work(run):
    work(run, "old")
    run.redo.add("01")
    with pytest.raises(Killed):
        work(run, error=Killed(), files=["part-1.txt"])
    work(run, "new")
    assert names(run.folder / "01_data") == {"stage.json", "metrics.json", "result.txt", "part-1.txt"}


def test_a_killed_redo_with_other_settings_begins_again(run):
    work(run, "old")
    run.redo.add("01")
    with pytest.raises(Killed):
        work(run, settings={"data.seed": 1}, error=Killed(), files=["part-1.txt"])
    work(run, "new", settings={"data.seed": 2})
    assert "part-1.txt" not in names(run.folder / "01_data")


def test_without_redo_the_half_done_redo_goes_on(run):
    work(run, "old")
    run.redo.add("01")
    with pytest.raises(Killed):
        work(run, error=Killed(), files=["part-1.txt"])
    run.redo.clear()
    assert work(run, "new") == {"text": "new"}
    assert not (run.folder / ".01_data.old").exists()


def test_scratch_folders_go_only_when_the_work_has_finished(run):
    with pytest.raises(Killed), run.stage("03", {}, {}, "sft_text", scratch=("training",)) as place:
        (place.folder / "training").mkdir()
        raise Killed
    assert (place.folder / "training").is_dir()
    with run.stage("03", {}, {}, "sft_text", scratch=("training",)) as place:
        place.metrics = {"steps": 1}
        assert (place.folder / "training").is_dir()
    assert (place.folder / "metrics.json").exists() and not (place.folder / "training").exists()


def test_work_that_was_set_aside_is_no_arm(run):
    for arm in ("sft_text", ".rl_text.old"):
        write_json(run.folder / "05_eval" / arm / "metrics.json", {})
    assert finished_in(run.folder / "05_eval") == ["sft_text"]
    assert report.evaluated_arms(run) == ["sft_text"]


HOLD = """
import sys, time
from pathlib import Path
from medvlt_lib.core.stage import work_in
with work_in(Path(sys.argv[1]), {}, {}, "stop") as stage:
    (stage.folder / ".half-written").write_text("mine")
    print("working", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_works_there_and_deletes_nothing(tmp_path):
    folder = tmp_path / "01_data"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "working\n"
            sentence = rf"process {process.pid} on .* is working in .*01_data"
            with pytest.raises(UserError, match=sentence), work_in(folder, {}, {}, "stop"):
                pass
            assert (folder / ".half-written").read_text() == "mine"
        finally:
            process.kill()
    with work_in(folder, {}, {}, "stop") as stage:  # a lock goes with the process that held it
        stage.metrics = {"done": 1}
    assert not (folder / ".half-written").exists()


def test_what_a_stage_adds_to_the_manifest_stays(run, tmp_path):
    with run.stage("01", {}, {}) as stage:
        run.note(sources={"some/set": "abc"})
        stage.metrics = {"done": 1}
    again = open_run(None, "run", root=tmp_path)
    with again.stage("02", {}, {}) as stage:
        stage.metrics = {"done": 1}
    assert again.manifest["sources"] == {"some/set": "abc"}
    assert read_json(again.folder / "manifest.json")["sources"] == {"some/set": "abc"}
    assert set(again.manifest["stages"]) == {"01_data", "02_filtering"}


@pytest.mark.parametrize("manifest", [[], {}, {"profile": {"profile": "tiny"}, "overrides": {}}, {"format": 1}])
def test_a_manifest_of_others_or_of_an_earlier_version_is_refused(tmp_path, manifest):
    write_json(tmp_path / "old" / "manifest.json", manifest)
    with pytest.raises(UserError, match="not written by this version of medvlt; choose another --run"):
        open_run(None, "old", root=tmp_path)


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/tmp/x", ".hidden", ""])
def test_names_that_lead_out_of_the_run_are_refused(run, tmp_path, name):
    with pytest.raises(UserError, match="--arm"):
        work(run, arm=name or "../", stage="04")
    if name:
        with pytest.raises(UserError, match="--run"):
            open_run("tiny", name, root=tmp_path)


def test_one_name_is_one_model(run, tmp_path):
    data = tmp_path / "mine.parquet"
    assert arms.arm_inputs(run, "03", "mine", "train", data, None) == {"data": data}
    work(run, arm="mine", stage="03")
    with pytest.raises(UserError, match="arm mine was trained by `medvlt sft` already"):
        arms.arm_inputs(run, "04", "mine", "kept", data, None)
    arms.arm_inputs(run, "03", "mine", "train", data, None)


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("eval.grader", {"settings": {"eval.grader": "tolerant", "model.prompt_style": "medvlthinker"}}),
        ("model.prompt_style", {"settings": {"eval.grader": "published", "model.prompt_style": "no-think"}}),
        ("test", {"inputs": {"test": "other", "checkpoint": "c"}}),
    ],
)
def test_a_report_over_unlike_evaluations_is_refused(tmp_path, key, changed):
    made_with = {
        "settings": {"eval.grader": "published", "model.prompt_style": "medvlthinker"},
        "inputs": {"test": "t", "checkpoint": "c"},
    }
    write_json(tmp_path / "base" / "stage.json", {**made_with, "inputs": {"test": "t"}})
    write_json(tmp_path / "rl_text" / "stage.json", made_with)
    report.check_alike(tmp_path, ["base", "rl_text"])
    write_json(tmp_path / "sft_text" / "stage.json", {**made_with, **changed})
    with pytest.raises(UserError, match=rf"base and sft_text were evaluated with {key}") as caught:
        report.check_alike(tmp_path, ["base", "rl_text", "sft_text"])
    assert json.dumps(changed.get("settings", changed.get("inputs"))[key]) in str(caught.value)
