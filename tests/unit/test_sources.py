"""Sets from files: what is held out for validation is not trained on."""

import pytest

from medvlt_lib.config import Data
from medvlt_lib.data.sources import load_set
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.records import UserError, write_questions


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.parquet"
    write_questions(make_questions("text", "train", 40, seed=8), path)
    return path


def test_validation_is_held_out_of_training(file):
    data = Data(train_text=str(file), train_text_size=30, validation="split:train_text", validation_size=10)
    train, held = load_set("train_text", data), load_set("validation", data)
    assert (len(train), len(held)) == (20, 10)
    assert not {q.id for q in train} & {q.id for q in held}
    assert {q.id for q in load_set("validation", data)} == {q.id for q in held}


@pytest.mark.parametrize(
    "settings",
    [
        {"test": "split:train_text"},
        {"validation": "split:trian_text"},
        {"validation": "split:train_image", "train_image": "phantom:image"},
        {"validation": "split:train_text", "validation_size": 40},
    ],
)
def test_impossible_splits_are_a_sentence(file, settings):
    data = Data(**{"train_text": str(file), "train_text_size": 40, "validation_size": 10, **settings})
    with pytest.raises(UserError, match="validation"):
        load_set("test" if "test" in settings else "validation", data)
