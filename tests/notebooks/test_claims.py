"""The table of claims is that of the notebooks' text, and no folded answer is left without one."""

import nbformat
import pytest

from medvlt_lib.course.lesson import NOTEBOOKS
from tests.notebooks.claims import CLAIMS, REASONED
from tests.notebooks.test_form import ANSWER, NAMES


def plain(text: str) -> str:
    return " ".join(text.split())


def text_of(name: str) -> str:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: f"{c.notebook[:2]} {c.words[:60]}")
def test_the_words_stand_in_the_notebook(claim):
    assert plain(text_of(claim.notebook)).count(claim.words) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_folded_answer_is_checked_or_follows_from_the_text(name):
    for answer in map(plain, ANSWER.findall(text_of(name))):
        checked = any(claim.notebook == name and claim.words in answer for claim in CLAIMS)
        assert checked != any(answer.startswith(words) for words in REASONED), answer


def test_claims_can_fail():
    """A claim that holds of no figures at all would be none."""
    for claim in CLAIMS:
        with pytest.raises(Exception):  # noqa: B017
            assert claim.holds({}), claim.words
