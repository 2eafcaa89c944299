"""The comparison's widget: what is chosen is what is shown."""

import shutil

import pytest

from medvlt_lib.core.runs import open_run
from medvlt_lib.course.compare_widget import compare
from medvlt_lib.course.lesson import REFERENCE
from tests.stages.test_comparing import Echo

pytest.importorskip("ipywidgets")


@pytest.fixture
def widget(tmp_path, monkeypatch):
    shutil.copytree(REFERENCE, tmp_path / "copied")
    monkeypatch.setattr("medvlt_lib.rollout.build.build_engine", lambda *_: Echo())
    return compare(open_run(None, "copied", root=tmp_path))


def test_what_is_chosen_is_shown(widget):
    question, picture, value, samples, shown = widget.children
    assert shown.value.count('class="column"') == 3
    question.value = next(name for label, name in question.options if label.startswith("cardiothoracic"))
    own, other = value.value, next(v for v in value.options if v != value.value)
    assert f"<bdi>{own}</bdi> (right)" in shown.value and "1 pictures" in shown.value
    picture.value = "off"
    assert "0 pictures" in shown.value
    value.value = other
    assert picture.value == "drawn" and f"<bdi>{other}</bdi> (right)" in shown.value
    samples.value = 4
    assert "75 %" in shown.value and "25 %" in shown.value
    question.value = next(name for label, name in question.options if label.startswith("apgar"))
    assert picture.value == "on" and value.disabled
    picture.value = "off"
    assert "has no picture to change" in shown.value
