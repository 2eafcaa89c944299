"""Questions on disk are the questions that were written, written once, and only as a whole."""

import threading

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import iterate_questions
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.stored_questions import StoredQuestions


def test_any_question_is_read_as_it_was_written(tmp_path):
    questions = make_questions("curb65,nodule_count", "train", 12)
    stored = StoredQuestions(iter(questions), tmp_path / "training" / "questions.arrow")
    assert len(stored) == 12 and [stored[place] for place in (11, 0, 5)] == [questions[place] for place in (11, 0, 5)]
    assert list(stored) == questions


def test_no_questions_are_no_error(tmp_path):
    assert list(StoredQuestions([], tmp_path / "questions.arrow")) == []


def test_a_file_that_cannot_be_read_is_a_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"torn\.parquet cannot be read"):
        StoredQuestions(iterate_questions(tmp_path / "torn.parquet"), tmp_path / "training" / "questions.arrow")
    assert not (tmp_path / "training" / "questions.arrow").exists()


def test_several_processes_write_one_file(tmp_path):
    """The first one writes; the others wait for its file, and never begin one of their own."""
    questions, path = make_questions("curb65", "train", 4), tmp_path / "questions.arrow"
    begun, go_on, found = threading.Event(), threading.Event(), []

    def slowly():
        begun.set()
        go_on.wait(20)
        yield from questions

    def another_process():
        pytest.fail("a second process wrote the file")
        yield

    first = threading.Thread(target=lambda: found.append(list(StoredQuestions(slowly(), path))))
    second = threading.Thread(target=lambda: found.append(list(StoredQuestions(another_process(), path))))
    first.start()
    begun.wait(20)
    second.start()
    go_on.set()
    first.join(20)
    second.join(20)
    assert found == [questions, questions]
