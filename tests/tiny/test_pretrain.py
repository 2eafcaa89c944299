"""Pretraining: the right tokens carry the loss, and a stopped run continues to the same weights."""

from dataclasses import asdict
from random import Random

import pytest
import torch

from medvlt_lib.core.errors import UserError
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.tiny.architecture import build_tiny_processor
from medvlt_lib.tiny.lessons import PROMPT_WEIGHT, Cycle, Lessons, Recipe, captions, lesson, lookup_question
from medvlt_lib.tiny.pretrain import learning_rate, pretrain, weighted_loss

SHORT = Recipe((Cycle(4, 4, 4, 4),), lookup_steps=1, lookup_batch=4, warmup=1, save_every=2)


def test_weights_fall_on_answer_and_prompt_text_only():
    processor = build_tiny_processor()
    batch = Lessons(processor, SHORT).batch(2)[0]
    ids, weights = batch["input_ids"], batch["weights"]
    assert (weights[ids == processor.image_token_id] == 0).all()
    assert (weights[batch["attention_mask"] == 0] == 0).all()
    text = processor.tokenizer.decode(ids[0][weights[0] == 1])
    assert text.endswith("</answer><|im_end|>")
    assert "pneumonia" not in text
    assert "pneumonia" in processor.tokenizer.decode(ids[0][weights[0] == PROMPT_WEIGHT])


def test_loss_is_cross_entropy_by_weight():
    logits, ids = torch.randn(1, 3, 7), torch.tensor([[1, 2, 3]])
    logp = logits.log_softmax(-1)
    expected = -(0.2 * logp[0, 0, 2] + 1.0 * logp[0, 1, 3])
    assert weighted_loss(logits, ids, torch.tensor([[9.0, 0.2, 1.0]])).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_a_glance_has_no_working():
    question, rng = make_questions("curb65", "train", 1)[0], Random(0)
    seen = {("at a glance" in text, style) for style, text in (lesson(question, rng) for _ in range(200))}
    assert (True, "medvlthinker") in seen
    assert (False, "medvlthinker") in seen
    assert (True, "no-think") not in seen
    lookup = lookup_question(Random(1))
    assert lookup.answer in lookup.question


def test_a_caption_holds_the_working_of_every_question_on_the_picture():
    rows = captions(make_questions("bleed_type,midline_shift,dark_nuclei", "train", 6))
    assert len(rows) == 4
    assert "septum" in rows[0][1]
    assert "bleed" in rows[0][1]
    assert "total" in rows[1][1]


def test_learning_rate_warms_up_and_falls():
    recipe = Recipe((Cycle(100, learning_rate=1.0), Cycle(50, learning_rate=0.5)), lookup_steps=0, warmup=10)
    assert learning_rate(recipe, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 10) == pytest.approx(1.0)
    assert learning_rate(recipe, 55) == pytest.approx(0.525)
    assert learning_rate(recipe, 100) == pytest.approx(0.5)
    assert learning_rate(recipe, 150) == pytest.approx(0.025)


def test_a_stopped_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    pretrain("small", tmp_path / "whole", SHORT)
    batches = Lessons.batch

    def stop(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return batches(self, step)

    monkeypatch.setattr(Lessons, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain("small", tmp_path / "stopped", SHORT)
    monkeypatch.setattr(Lessons, "batch", batches)
    pretrain("small", tmp_path / "stopped", SHORT)
    whole, stopped = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "stopped"))
    assert whole == stopped
    assert not (tmp_path / "stopped" / "training.pt").exists()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    (tmp_path / "training.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="delete it"):
        pretrain("small", tmp_path, SHORT)
    torch.save({"recipe": asdict(Recipe((Cycle(9),)))}, tmp_path / "training.pt")
    with pytest.raises(UserError, match="another recipe"):
        pretrain("small", tmp_path, SHORT)


class Program:
    """A pickle that writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.write_text, ("run",)


def test_a_checkpoint_cannot_run_a_program(tmp_path):
    torch.save({"recipe": Program(tmp_path / "ran.txt")}, tmp_path / "training.pt")
    with pytest.raises(UserError, match="delete it"):
        pretrain("small", tmp_path, SHORT)
    assert not (tmp_path / "ran.txt").exists()
