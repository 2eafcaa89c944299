"""Run folders: finished work is kept, changed settings and foreign folders are refused, and
--redo and --inputs do what they say.
"""

import json

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json
from medvlt_lib.core.runs import open_run
from medvlt_lib.core.stage import work_in


@pytest.fixture
def run(tmp_path):
    return open_run("tiny", None, root=tmp_path)


def perform(run, number, work, settings, inputs, arm=None, free=()):
    """Work on a stage the way the stages do."""
    with run.stage(number, settings, inputs, arm, free=free) as stage:
        if not stage.finished:
            stage.metrics = work(stage.folder)
    return stage.metrics


def work(text):
    def do(folder):
        (folder / "result.txt").write_text(text)
        return {"text": text}

    return do


def test_finished_work_is_not_done_again(run):
    assert perform(run, "01", work("a"), {"data.seed": 0}, {}) == {"text": "a"}
    assert perform(run, "01", work("b"), {"data.seed": 0}, {}) == {"text": "a"}
    assert read_json(run.folder / "manifest.json")["stages"]["01_data"]["state"] == "finished"


def test_unfinished_work_is_done_again(run):
    def fail(folder):
        (folder / "part.txt").write_text("kept")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(run, "01", fail, {}, {})
    assert perform(run, "01", lambda f: {"part": (f / "part.txt").read_text()}, {}, {}) == {"part": "kept"}


def test_changed_settings_and_inputs_are_named(run, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("1")
    perform(run, "01", work("a"), {"data.seed": 0}, {"questions": source})
    with pytest.raises(UserError, match=r"data.seed = 0, now it is 1.*--redo 01"):
        perform(run, "01", work("a"), {"data.seed": 1}, {"questions": source})
    source.write_text("2")
    with pytest.raises(UserError, match="input questions"):
        perform(run, "01", work("a"), {"data.seed": 0}, {"questions": source})


def test_redo_throws_the_stage_away(run):
    perform(run, "01", work("a"), {"data.seed": 0}, {})
    run.redo.add("01")
    assert perform(run, "01", work("b"), {"data.seed": 1}, {}) == {"text": "b"}


def test_overrides_stay_with_the_run(tmp_path):
    open_run("tiny", "r", {"grpo.max_steps": 3}, root=tmp_path)
    again = open_run(None, "r", {"grpo.beta": 0.1}, root=tmp_path)
    assert (again.profile.grpo.max_steps, again.profile.grpo.beta) == (3, 0.1)
    assert open_run(None, "r", root=tmp_path).profile.grpo.beta == 0.0  # no stage has run with it yet
    perform(again, "04", work("x"), again.settings("grpo"), {}, "rl_text")
    after = open_run(None, "r", root=tmp_path)
    assert after.profile.grpo.beta == 0.1
    refused = open_run(None, "r", {"grpo.beta": 0.5}, root=tmp_path)
    with pytest.raises(UserError, match=r"grpo\.beta"):
        perform(refused, "04", work("x"), refused.settings("grpo"), {}, "rl_text")
    assert open_run(None, "r", root=tmp_path).profile.grpo.beta == 0.1


def test_inputs_take_another_runs_stage(tmp_path):
    other = open_run("tiny", "other", root=tmp_path)
    perform(other, "02", work("x"), {}, {})
    run = open_run("tiny", "mine", inputs=[f"02={other.folder}"], root=tmp_path)
    assert run.require("02") == other.folder / "02_filtering"
    assert "02" in json.loads((run.folder / "manifest.json").read_text())["inputs"]
    assert open_run(None, "mine", root=tmp_path).require("02") == other.folder / "02_filtering"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"profile": "tiny-qlora", "run": "tiny"}, "run of profile tiny"),
        ({"profile": "tiny", "run": "foreign"}, "no manifest"),
        ({"profile": "tiny", "run": "torn"}, "not readable JSON"),
        ({"profile": "tiny", "run": "tiny", "redo": ["07"]}, "not a stage"),
        ({"profile": "tiny", "run": "tiny", "inputs": ["02"]}, "STAGE=PATH"),
        ({"profile": "tiny", "run": "tiny", "inputs": ["02=nowhere"]}, "no folder nowhere"),
        ({"profile": "huge", "run": "new"}, "no profile 'huge'"),
    ],
)
def test_wrong_runs_are_refused(tmp_path, run, arguments, word):
    for name, file in (("foreign", "thesis.txt"), ("torn", "manifest.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"half')
    with pytest.raises(UserError, match=word):
        open_run(**arguments, root=tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_missing_stage_says_what_to_run(run):
    with pytest.raises(UserError, match="medvlt filter --run tiny"):
        run.require("02")


def test_a_stage_that_left_nothing_may_change_its_settings(run):
    def fail(folder):
        raise UserError("no questions.")

    with pytest.raises(UserError, match="no questions"):
        perform(run, "01", fail, {"data.seed": 0}, {})
    assert perform(run, "01", work("a"), {"data.seed": 1}, {}) == {"text": "a"}


def test_what_a_kill_left_of_a_write_is_swept_away(run):
    folder = run.folder / "01_data"
    folder.mkdir()
    (folder / ".stage.json.x1.json").write_text('{"hal')
    perform(run, "01", work("a"), {}, {})
    assert {p.name for p in folder.iterdir()} == {"stage.json", "metrics.json", "result.txt"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(30, "Read-only file system"),
        RuntimeError(
            "[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed writing file data/3: write failed"
        ),
    ],
)
def test_a_full_disk_is_a_sentence_and_the_work_continues(run, error):
    def fail(folder):
        (folder / "part.txt").write_text("kept")
        raise error

    with pytest.raises(UserError, match=r"cannot write in .*01_data.*the same command continues"):
        perform(run, "01", fail, {}, {})
    assert perform(run, "01", lambda f: {"part": (f / "part.txt").read_text()}, {}, {}) == {"part": "kept"}


def test_another_folders_hidden_files_are_never_touched(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / ".bashrc").write_text("mine")
    (tmp_path / "project" / ".env").write_text("mine")
    with pytest.raises(UserError, match="did not put there"), work_in(tmp_path, {}, {}, "choose another --out"):
        pass
    assert (tmp_path / ".bashrc").read_text() == (tmp_path / "project" / ".env").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {".bashrc", "project"}


def test_free_settings_do_the_work_again_from_its_parts(run):
    def parts(folder):
        (folder / "rollouts").mkdir(exist_ok=True)
        path = folder / "rollouts" / "part.txt"
        path.write_text(path.read_text() + "again" if path.exists() else "first ")
        return {"parts": path.read_text()}

    free = ("filtering.keep_to",)
    perform(run, "02", parts, {"filtering.keep_to": 7, "filtering.seed": 1}, {}, free=free)
    assert perform(run, "02", parts, {"filtering.keep_to": 7, "filtering.seed": 1}, {}, free=free) == {
        "parts": "first "
    }
    assert perform(run, "02", parts, {"filtering.keep_to": 6, "filtering.seed": 1}, {}, free=free) == {
        "parts": "first again"
    }
    with pytest.raises(UserError, match=r"filtering\.seed"):
        perform(run, "02", parts, {"filtering.keep_to": 7, "filtering.seed": 2}, {}, free=free)


def test_a_failed_redo_puts_the_old_work_back(run):
    def fail(folder):
        (folder / "half.txt").write_text("")
        raise UserError("torn.")

    perform(run, "01", work("a"), {"data.seed": 0}, {})
    run.redo.add("01")
    with pytest.raises(UserError, match="torn"):
        perform(run, "01", fail, {"data.seed": 1}, {})
    assert {p.name for p in (run.folder / "01_data").iterdir()} == {"stage.json", "metrics.json", "result.txt"}
    run.redo.clear()
    assert perform(run, "01", work("b"), {"data.seed": 0}, {}) == {"text": "a"}


def test_redo_keeps_the_old_work_when_its_input_is_gone(run, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("1")
    perform(run, "01", work("a"), {}, {"questions": source})
    source.unlink()
    run.redo.add("01")
    with pytest.raises(UserError, match=r"in\.txt"):
        perform(run, "01", work("b"), {}, {"questions": source})
    assert (run.folder / "01_data" / "result.txt").read_text() == "a"


def test_foreign_files_in_a_stage_folder_are_not_touched(run):
    folder = run.folder / "01_data"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="did not put there"):
        perform(run, "01", work("a"), {}, {})
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_second_process_comes_into_what_the_first_has_begun(run, monkeypatch):
    folder = run.folder / "01_data"
    monkeypatch.setenv("RANK", "1")
    for new in (".stage.json.tmp", "training", "stage.json"):  # as the first one makes them, each before the next
        folder.mkdir(exist_ok=True)
        (folder / new).write_text('{"settings": {}, "inputs": {}}')
        with work_in(folder, {}, {}, "choose another folder") as stage:
            assert not stage.finished
    assert {p.name for p in folder.iterdir()} == {".stage.json.tmp", "training", "stage.json"}
    (folder / "metrics.json").write_text("{}")
    with work_in(folder, {}, {}, "choose another folder") as stage:
        assert stage.finished
