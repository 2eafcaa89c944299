"""`medvlt study` and `medvlt findings` on the command line."""

import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return " ".join(result.output.split())


def test_the_plan_of_all_studies_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = said("study", "all", "--plan")
    assert "recipes" in printed
    assert "diversity" in printed
    assert "minutes" in printed
    assert list(tmp_path.iterdir()) == []


def test_too_few_seeds_are_said_to_judge_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "with fewer than 3 seeds no claim is judged" in said("study", "recipes", "--seeds", "1", "--plan")


def test_findings_of_a_study_name_their_verdicts():
    printed = said("findings", "recipes")
    assert "verdict" in printed
    assert "3 seeds were planned" in printed


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("study", "recipe"), "there is no study 'recipe'"),
        (("study", "recipes", "--profile", "full-7b"), "not laid out for the profile full-7b"),
        (("findings", "recipe"), "no claims about 'recipe'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=word):
        said(*arguments)
    assert list(tmp_path.iterdir()) == []
