"""The figures of a GRPO step say what happened, and watching changes nothing."""

import base64
import io
import shutil
from statistics import fmean, stdev

import pytest
import torch
from PIL import Image

from medvlt_lib.grading.grade import grade
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training import watched
from medvlt_lib.training.grouped import GroupedTrainer
from medvlt_lib.training.rollouts import latest_sample
from medvlt_lib.training.trainer import train_resumably
from medvlt_lib.training.watched import other_pictures
from tests.training.conftest import generation_batch, logps_of

FAMILIES = "curb65,nodule_count"


@pytest.mark.parametrize("update", ["shared", "stock"])
def test_shares_and_group_deviations_are_those_of_the_completions(make_trainer, tmp_path, update):
    questions = make_questions("curb65,apgar", "train", 12, seed=3)
    trainer = make_trainer(update, questions=questions, **{"grpo.max_completion_length": 64})
    batch = generation_batch(trainer)
    ids = [
        own[mask.bool()].tolist() for own, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    texts = [trainer.processing_class.decode(own, skip_special_tokens=True) for own in ids]
    verdicts = [
        grade(text, questions[i // 4], finish_reason="stop" if own[-1] in trainer.eos_token_ids else "length")
        for i, (text, own) in enumerate(zip(texts, ids, strict=True))
    ]
    assert {v.truncated for v in verdicts} == {v.correct for v in verdicts} == {True, False}
    logged = {name: values for name, values in trainer._metrics["train"].items()}
    for name in ("well_formed", "correct", "truncated"):
        assert logged[name] == [pytest.approx(fmean(getattr(v, name) for v in verdicts))], name
    assert logged["no_answer"] == [pytest.approx(fmean(v.letter is None for v in verdicts))]
    spreads = [stdev(v.reward for v in verdicts[i : i + 4]) for i in range(0, 48, 4)]
    assert logged["rewards/published/group_std"] == [pytest.approx(fmean(spreads))]
    assert logged["tokens_per_second"][0] > 0
    sample = latest_sample(tmp_path)
    assert (sample["question"], sample["answer"]) == (questions[0].id, questions[0].answer_label)
    assert sample["completions"] == texts[:4] and sample["rewards"] == [v.reward for v in verdicts[:4]]
    assert sample["correct"] == [v.correct for v in verdicts[:4]]


def test_a_sample_holds_its_picture(make_trainer, tmp_path):
    [question] = make_questions("nodule_count", "train", 1, seed=3)
    generation_batch(make_trainer("shared", questions=[question] * 4))
    [encoded] = latest_sample(tmp_path)["pictures"]
    small = Image.open(io.BytesIO(base64.b64decode(encoded)))
    whole = Image.open(io.BytesIO(question.images[0])).convert("RGB")
    assert max(small.size) <= 180 and small.width * whole.height == small.height * whole.width
    expected, found = (torch.tensor(list(i.resize((8, 8)).convert("L").getdata())) for i in (whole, small))
    assert (expected - found).abs().max() < 16
    assert len(encoded) < 20_000


@pytest.mark.parametrize(
    ("update", "loss", "expected"), [("shared", "dapo", 2.0), ("stock", "dapo", 2.0), ("shared", "gspo", 2.0)]
)
def test_ratios_are_new_to_old_probability(make_trainer, update, loss, expected):
    """Old probabilities are halved; of the first group, which has no advantage, nothing is known on the shared path."""
    trainer = make_trainer(update, **{"grpo.loss_type": loss})
    batch = generation_batch(trainer)
    batch["advantages"][:4] = 0
    trainer._compute_loss(trainer.model, dict(batch))
    assert not any(name.startswith("ratio/") for name in trainer._metrics["train"])  # there is no older policy
    old = logps_of(trainer, batch)
    trainer._compute_loss(trainer.model, {**batch, "old_per_token_logps": old - torch.tensor(2.0).log()})
    for name in ("mean", "min", "max"):
        assert trainer._metrics["train"][f"ratio/{name}"] == [pytest.approx(expected, rel=1e-4)], name


def test_several_updates_log_their_ratios(make_trainer):
    """The first update after sampling has ratios of 1, the second has others."""
    settings = {"grpo.updates": 2, "grpo.micro_batch": 8, "grpo.reward": {"published": 1.0, "overlong": 0.1}}
    questions = make_questions("curb65,nodule_count,cup_to_disc_ratio", "train", 8, seed=3)
    trainer = make_trainer("shared", questions=questions, **settings, **{"grpo.max_steps": 4})
    trainer.train()
    first, second, third, fourth = trainer.state.log_history[:4]
    for row in (first, third):
        assert row["ratio/min"] == pytest.approx(1, abs=1e-4) and row["ratio/max"] == pytest.approx(1, abs=1e-4)
    for row in (second, fourth):
        assert row["ratio/min"] < 0.99 and row["ratio/max"] > 1.01


def test_pictures_have_an_effect_and_none_where_the_model_does_not_see_them(make_trainer):
    trainer = make_trainer("shared", "nodule_count,cup_to_disc_ratio")
    generation_batch(trainer)
    [effect] = trainer._metrics["train"].pop("picture_effect")
    blind = trainer.model.model.get_image_features

    def features(*args, **kwargs):
        output = blind(*args, **kwargs)
        output.pooler_output = tuple(torch.zeros_like(f) for f in output.pooler_output)
        return output

    trainer.model.model.get_image_features = features
    generation_batch(trainer)
    assert trainer._metrics["train"]["picture_effect"] == [0.0]
    assert effect > 1, effect


def test_text_questions_have_no_pictures_effect(make_trainer):
    trainer = make_trainer("shared", "curb65,apgar")
    generation_batch(trainer)
    assert "picture_effect" not in trainer._metrics["train"] and "well_formed" in trainer._metrics["train"]


def test_another_picture_is_of_the_same_size_and_not_the_same():
    a, b, c = torch.ones(4, 3), 2 * torch.ones(4, 3), 3 * torch.ones(6, 3)
    square, wide = torch.tensor([[1, 2, 2]]), torch.tensor([[1, 2, 3]])
    found = other_pictures([a, a, b, c], [square, square, square, wide])
    assert [f.flatten()[0].item() for f in found] == [2, 2, 1, 0]
    assert found[3].shape == c.shape


def test_watching_leaves_the_weights_byte_for_byte(steady_threads, make_trainer, monkeypatch):
    """With dropout, so that a random number drawn would be seen; a look at the pictures at every step."""
    lora = {"rank": 4, "alpha": 8, "dropout": 0.2}
    settings = {"model.lora": lora, "grpo.max_steps": 3, "grpo.learning_rate": 1e-3}
    monkeypatch.setattr(watched, "EVERY", 1)

    def trained():
        trainer = make_trainer("shared", FAMILIES, **settings)
        train_resumably(trainer, "reward")
        looks = sum("picture_effect" in row for row in trainer.state.log_history)
        return looks, {n: p.detach().clone() for n, p in trainer.model.named_parameters()}, trainer

    looks, seen, trainer = trained()
    assert looks == 3 and type(trainer) is watched.WatchedGroupedTrainer
    shutil.rmtree(trainer.args.output_dir)  # or the second would go on from its checkpoint
    monkeypatch.setattr(watched, "WatchedGroupedTrainer", lambda *a, watch, **k: GroupedTrainer(*a, **k))
    looks, unseen, trainer = trained()
    assert looks == 0 and type(trainer) is GroupedTrainer
    assert all(seen[name].equal(value) for name, value in unseen.items())
    assert any("lora_B" in name and value.any() for name, value in seen.items())  # it learnt
