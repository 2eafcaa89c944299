"""What TRL's trainer is given to reward with: every name is a function, and no reward is lost without a word."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import iterate_questions, write_questions
from medvlt_lib.core.sections import RewardName
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.rewarding import checked, counted_right, reward_columns, reward_functions, scorable


@pytest.fixture(scope="module")
def questions():
    return make_questions("text,lesion_site", "train", 18, seed=2)


def test_every_reward_of_the_settings_gives_a_number_for_every_completion(questions):
    rows = [reward_columns(q) for q in questions]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    right = [f"<think> {q.reasoning} </think>\n<answer> {q.answer_label} </answer>" for q in questions]
    wrong = [text.replace(f"> {q.answer_label} <", "> J <") for text, q in zip(right, questions, strict=True)]
    ids = [[1] * 9] * len(rows)
    for name, reward in zip(get_args(RewardName), reward_functions(get_args(RewardName), 10), strict=True):
        assert reward.__name__ == name.replace("-", "_")  # TRL's logs call it by this
        values = {k: reward(completions=c, prompts=c, completion_ids=ids, **columns) for k, c in
                  {"right": right, "wrong": wrong}.items()}  # fmt: skip
        expected = {"published-signed": (1, -1), "published-medvlm-r1": (2, 1), "overlong": (-0.5, -0.5)}
        best, worst = expected.get(name, (1, 0))
        assert (values["right"], values["wrong"]) == ([best] * len(rows), [worst] * len(rows)), name


def test_an_answer_counts_as_right_by_the_reward_that_pays_for_it(questions):
    """Each reward alone, and behind `overlong`, against what a right and a wrong answer in form are."""
    question = questions[0]
    columns = {name: [value] * 3 for name, value in reward_columns(question).items()}
    right = f"<think> {question.reasoning} </think>\n<answer> {question.answer_label} </answer>"
    texts = [right, right.replace(f"> {question.answer_label} <", "> J <"), "nothing"]
    for name in set(get_args(RewardName)) - {"overlong"}:
        for names in ([name], ["overlong", name]):
            functions = reward_functions(names, 10)
            values = [f(completions=texts, prompts=texts, completion_ids=[[1] * 9] * 3, **columns) for f in functions]
            counted = counted_right(torch.tensor(values).T, [f.__name__ for f in functions])
            assert counted.tolist() == [True, False, False], names


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, float("nan")], ["lazy", "nan", "completion 2 of 2"]),
        ([float("inf"), 0.5], ["lazy", "inf", "completion 1 of 2"]),
        ([1.0, None], ["lazy", "None", "completion 2 of 2"]),
        ([1.0], ["lazy", "1 numbers", "2 completions"]),
        ([1.0, 0.0, 0.0], ["lazy", "3 numbers", "2 completions"]),
    ],
)
def test_a_reward_that_is_no_number_or_too_few_is_a_sentence(values, words):
    def lazy(completions, **_):
        return values

    with pytest.raises(UserError) as caught:
        checked(lazy)(["a", "b"], prompts=[])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_without_gold_are_named_with_their_file(questions, tmp_path):
    path = tmp_path / "kept.parquet"
    write_questions([questions[0], replace(questions[1], answer_label=None, answer=None)], path)
    with pytest.raises(
        UserError, match=f"kept.parquet: question {questions[1].id} has no answer to reward; give every"
    ):
        list(scorable(iterate_questions(path), {"published": 1.0}, path))


def test_grounded_without_facts_is_a_sentence_that_names_the_file(questions, tmp_path):
    """Questions of an older version, or of another source; other rewards take them."""
    path = tmp_path / "kept.parquet"
    for lacking in (replace(questions[1], extra={"steps": ["total 1"]}), replace(questions[1], family=None)):
        write_questions([questions[0], lacking], path)
        assert len(list(scorable(iterate_questions(path), {"published": 1.0}, path))) == 2
        with pytest.raises(
            UserError, match=f"kept.parquet: question {lacking.id} has no facts .*--redo 01.*=published"
        ):
            list(scorable(iterate_questions(path), {"grounded": 1.0}, path))


def test_facts_come_through_the_file_as_they_are(questions, tmp_path):
    write_questions(questions, tmp_path / "q.parquet")
    for before, after in zip(questions, iterate_questions(tmp_path / "q.parquet"), strict=True):
        assert json.loads(reward_columns(after)["facts"]) == before.extra["facts"]


def test_trl_sums_the_parts_by_their_weights(questions, tmp_path):
    """One step of the smallest model, through TRL: each part is logged by its name, and their weighted sum."""
    from medvlt_lib.stages import grpo

    write_questions(questions, tmp_path / "data.parquet")
    settings = {
        "model.name": "phantom:small", "grpo.prompts": 4, "grpo.group_size": 4, "grpo.updates": 1,
        "grpo.micro_batch": 8, "grpo.max_steps": 1, "grpo.save_every": 1, "grpo.max_completion_length": 36,
        "grpo.reward": {"grounded": 1.0, "published": 0.5, "overlong": 0.25},
    }  # fmt: skip
    grpo.train(load_profile("tiny", settings), {"data": tmp_path / "data.parquet"}, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    row = next(row for row in log if "reward" in row)
    parts = {name: row[f"rewards/{name}/mean"] for name in ("grounded", "published", "overlong")}
    assert parts["published"] > 0 > parts["overlong"]
    assert row["reward"] == pytest.approx(parts["grounded"] + 0.5 * parts["published"] + 0.25 * parts["overlong"])
