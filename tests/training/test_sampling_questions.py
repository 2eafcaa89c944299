"""Groups without signal are replaced, the online order learns from rewards, and both survive a restart."""

from types import SimpleNamespace

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.trainer import train_resumably
from tests.training.conftest import logps_of

FAMILIES = "curb65,nodule_count"


def by_question(dead):
    """A reward of the completion's length, but 0.7 for every completion of the questions in `dead`."""

    def reward(completions, question, **_):
        lengths = [len(c[0]["content"]) for c in completions]
        return [0.7 if q in dead else (n % 7) / 7 for q, n in zip(question, lengths, strict=True)]

    return reward


def trainer_with(make_trainer, monkeypatch, dead, count=12, **settings):
    trainer = make_trainer("shared", questions=make_questions(FAMILIES, "train", count, seed=3), **settings)
    rows = trainer.train_dataset
    trainer.train_dataset = Numbered(rows)
    monkeypatch.setattr(trainer, "reward_funcs", [by_question(dead)])
    return trainer


class Numbered:
    """A trainer's rows with each question's number as a column, which its rewards then see."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, numbers):
        return {**self.rows[numbers], "question": list(numbers)}


def test_groups_without_signal_are_replaced(make_trainer, monkeypatch):
    trainer = trainer_with(make_trainer, monkeypatch, dead=set(range(0, 12, 2)), **{"grpo.dynamic_sampling": 4})
    first = trainer.queue.line[:4]
    batch = trainer._sampled_batch()
    live = (batch["advantages"].view(4, 4) != 0).any(1)
    assert live.all() and sum(q % 2 for q in first) < 4  # some were dead at first
    assert trainer._metrics["train"]["live_groups"] == [1.0]
    assert trainer._metrics["train"]["rollouts"] == [4 * trainer.queue.taken] and trainer.queue.taken > 4
    assert len(trainer._metrics["train"]["reward"]) == 1
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    prompts = batch["prompt_ids"].view(4, 4, -1)
    assert (prompts == prompts[:, :1]).all()  # whole groups


def test_without_dynamic_sampling_nothing_is_replaced(make_trainer, monkeypatch):
    trainer = trainer_with(make_trainer, monkeypatch, dead=set(range(0, 12, 2)))
    batch = trainer._sampled_batch()
    dead = [q % 2 == 0 for q in trainer.queue.line[:4]]
    assert ((batch["advantages"].view(4, 4) == 0).all(1)).tolist() == dead and any(dead)
    assert trainer.queue.taken == 4


def test_replacing_ends_where_no_question_has_signal(make_trainer, monkeypatch):
    """After the three replacements that are allowed, or when there is no question left that this step has not asked."""
    for count, taken in ((20, 4 * (1 + 3)), (14, 12)):
        dead = {"dead": set(range(count)), "count": count}
        trainer = trainer_with(make_trainer, monkeypatch, **dead, **{"grpo.dynamic_sampling": 3})
        batch = trainer._sampled_batch()
        assert trainer.queue.taken == taken
        assert (batch["advantages"] == 0).all() and trainer._metrics["train"]["live_groups"] == [0.0]


@pytest.mark.parametrize("order", ["shuffled", "online"])
def test_a_step_asks_no_question_twice(make_trainer, monkeypatch, order):
    """Of 9 questions all but one are dead, so that all are asked; the second step begins in the middle of the line."""
    settings = {"grpo.dynamic_sampling": 8, "grpo.order": order, "grpo.prompts": 2, "grpo.micro_batch": 8}
    trainer = trainer_with(make_trainer, monkeypatch, dead=set(range(1, 9)), count=9, **settings)
    taken, take = [], trainer.queue.take
    monkeypatch.setattr(trainer.queue, "take", lambda *asked: taken.append(take(*asked)) or taken[-1])
    for _ in range(2):
        taken.clear()
        trainer._sampled_batch()
        asked = [question for own in taken for question in own]
        assert len(taken) > 2 and len(asked) == len(set(asked))


def test_a_replaced_groups_log_probabilities_are_those_it_was_sampled_with(make_trainer, monkeypatch):
    """Text and picture groups that were joined: what the update computes is what the engine sampled."""
    trainer = trainer_with(make_trainer, monkeypatch, dead={0, 3, 4, 7, 8}, **{"grpo.dynamic_sampling": 4})
    from trl.trainer.utils import unsplit_pixel_values_by_grid

    batch = unsplit_pixel_values_by_grid(trainer._sampled_batch())
    assert trainer.queue.taken > 4 and {0, 1} <= set(batch["num_images"])
    logps = logps_of(trainer, batch)
    assert trainer.shared
    assert ((logps - batch["sampling_per_token_logps"]).abs() * batch["completion_mask"]).max() < 1e-3


def test_the_online_order_takes_no_form_for_an_answer(make_trainer, monkeypatch):
    """MedVLM-R1 pays 1 for a wrong answer in form and 2 for a right one; `overlong`, before it, pays for no answer."""
    paper = "published-medvlm-r1"
    settings = {
        "grpo.order": "online", "grpo.reward": {"overlong": 0.1, paper: 1.0}, "filtering.grader": paper,
        "eval.grader": paper,
    }  # fmt: skip
    trainer = make_trainer("shared", **settings)

    def medvlm(completions, **_):
        return [2.0 if i % 4 == 0 else 1.0 for i in range(len(completions))]

    monkeypatch.setattr(trainer, "reward_funcs", [lambda completions, **_: [0.0] * len(completions), medvlm])
    trainer._sampled_batch()
    assert trainer.queue.right.tolist() == [1.0] * 4 and trainer.queue.wrong.tolist() == [3.0] * 4


def test_the_online_order_learns_from_the_rewards(make_trainer, monkeypatch):
    trainer = trainer_with(make_trainer, monkeypatch, dead=set(range(12)), **{"grpo.order": "online"})
    trainer._sampled_batch()
    asked = trainer._asked
    assert trainer.queue.right[asked].tolist() == [4.0] * 4 and trainer.queue.right.sum() == 16  # 0.7 counts as right


@pytest.mark.parametrize(
    "settings", [{"grpo.order": "online", "grpo.dynamic_sampling": 2}, {"grpo.order": "shuffled"}], ids=str
)
def test_a_run_that_goes_on_asks_what_it_would_have_asked(make_trainer, settings):
    """Four steps, and two steps that a second trainer continues from their checkpoint: the same weights."""
    sizes = {**settings, "grpo.prompts": 2, "grpo.micro_batch": 8, "grpo.save_every": 2}
    questions = make_questions(FAMILIES, "train", 6, seed=3)
    weights = []
    for first, then in ((4, None), (2, 4)):
        for steps in filter(None, (first, then)):
            trainer = make_trainer("shared", questions=questions, **sizes, **{"grpo.max_steps": steps})
            trainer.args.output_dir = str(trainer.args.output_dir) + str(first)
            train_resumably(trainer, "reward")
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert trainer.state.global_step == 4
    assert (weights[0] - weights[1]).abs().max() <= 1e-6


def test_easy_first_needs_the_pass_counts_of_its_questions(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from medvlt_lib.stages.grpo import pass_counts_of

    path = tmp_path / "pass_counts.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "pass_count": [3, 5], "samples": [16, 16]}), path)
    questions = SimpleNamespace(ids=lambda: ["b", "a"])
    assert pass_counts_of(questions, path, "easy-first") == [(5, 16), (3, 16)]
    other = SimpleNamespace(ids=lambda: ["b", "c"])
    assert pass_counts_of(other, path, "online") == [(5, 16), (0, 0)]
    with pytest.raises(UserError, match="no pass count of question c"):
        pass_counts_of(other, path, "easy-first")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"grpo.update": "stock", "grpo.order": "online"}, "for grpo.update shared"),
        ({"grpo.dynamic_sampling": 2, "grpo.scale_rewards": "batch"}, "cannot scale a batch as one"),
        ({"grpo.dynamic_sampling": 9}, "grpo.dynamic_sampling is 9"),
        ({"grpo.order": "hardest"}, "grpo.order is 'hardest'"),
        ({"grpo.epsilon_high": 0}, "grpo.epsilon_high is 0"),
    ],
)
def test_what_cannot_work_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        load_profile("tiny", settings)
