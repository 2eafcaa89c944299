"""`medvlt smol train` on the stand-ins: the loss falls, an interrupted run ends as an uninterrupted one, and what it
saves makes the model that was trained."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json
from medvlt_lib.models import smol
from medvlt_lib.models.loading import load_model
from medvlt_lib.phantom.rationale import judge
from medvlt_lib.smol import lessons, train
from medvlt_lib.smol.lessons import RECIPE, Lessons, described, plain_glance
from medvlt_lib.tiny import pretrain
from medvlt_lib.tiny.lessons import Cycle, Recipe, lesson

SHORT = Recipe(
    (
        Cycle(3, captions=4, text_questions=0, image_questions=0, learning_rate=3e-3),
        Cycle(2, captions=2, text_questions=1, image_questions=1, learning_rate=1e-3),
    ),
    lookup_steps=0, warmup=1, save_every=2,
)  # fmt: skip


needs_compiler = pytest.mark.skipif(not train.can_compile(), reason="torch compiles with g++, which is missing")


class Stopped(Exception):
    pass


@pytest.fixture
def short(stand_in, steady_threads, monkeypatch):
    """The stand-ins, in float32 whatever the CPU multiplies, and not compiled, which takes longer than they do."""
    monkeypatch.setattr(pretrain, "in_bf16", lambda: False)
    monkeypatch.setattr(train, "can_compile", lambda: False)


def tensors(file):
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


def test_an_interrupted_run_ends_with_the_same_weights(short, tmp_path, monkeypatch):
    whole, _ = tensors(train.train(tmp_path / "whole", SHORT))
    step, done = train.train_step, []

    def stops(*arguments):
        if len(done) == 3:
            raise Stopped
        done.append(1)
        return step(*arguments)

    monkeypatch.setattr(train, "train_step", stops)
    with pytest.raises(Stopped):
        train.train(tmp_path / "parts", SHORT)
    assert (tmp_path / "parts" / "training.pt").is_file()
    monkeypatch.setattr(train, "train_step", step)
    parts, _ = tensors(train.train(tmp_path / "parts", SHORT))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert [p.name for p in sorted((tmp_path / "parts").iterdir())] == ["trained.safetensors", "training_log.json"]
    assert [row["step"] for row in read_json(tmp_path / "parts" / "training_log.json")] == [2, 4, 5]


def test_what_is_saved_makes_the_model_that_was_trained(short, tmp_path):
    """Vision tower, merger and LoRA, in bf16; the folder that is built with them answers as the learner does."""
    learners = []
    make = train.learner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "learner", lambda *a: learners.append(make(*a)) or learners[-1])
        file = train.train(tmp_path / "out", SHORT)
    saved, metadata = tensors(file)
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16} and metadata == {"scale": "2.0"}
    kinds = {"visual": 0, "lora_A": 0, "lora_B": 0}
    for name in saved:
        kinds[next(kind for kind in kinds if kind in name)] += 1
    assert kinds["lora_A"] == kinds["lora_B"] == 3 * 7 and kinds["visual"] > 30
    assert not any("embed_tokens" in name or "lm_head" in name for name in saved)
    built, processor = load_model(smol.smol_folder(file)), smol.untrained(None)[1]
    [part] = Lessons(processor, SHORT).batch(0)
    inputs = {name: value for name, value in part.items() if name != "labels"}
    with torch.no_grad():
        theirs, ours = learners[0].eval()(**inputs).logits, built(**inputs).logits
        before = smol.untrained(None)[0](**inputs).logits
    real = part["attention_mask"].bool()
    assert (ours - theirs)[real].abs().max() < 0.1 * (before - theirs)[real].abs().max()


def test_the_loss_falls_on_a_batch_seen_again(short):
    model, processor = smol.untrained(None)
    learner, taught = train.learner(model, 0), Lessons(processor, SHORT)
    weights = [weight for weight in learner.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    losses = [train.train_step(learner, optimizer, taught.batch(0)) for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]


def test_in_bf16_only_frozen_weights_are_cast(short, monkeypatch):
    """Rotary frequencies in bf16 would turn positions by tenths of a radian."""
    monkeypatch.setattr(pretrain, "in_bf16", lambda: True)
    learner = train.learner(smol.untrained(None)[0], 0)
    for name, weight in learner.named_parameters():
        assert weight.dtype == (torch.float32 if weight.requires_grad else torch.bfloat16), name
    assert {buffer.dtype for name, buffer in learner.named_buffers() if "inv_freq" in name} == {torch.float32}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
def test_the_loss_is_the_mean_over_the_answers_tokens(compiled, short, monkeypatch):
    """In two parts, beside the whole logits of the model as it was: a new LoRA changes nothing."""
    monkeypatch.setattr(lessons, "PART", 2)
    monkeypatch.setattr(train, "can_compile", lambda: compiled)
    model, processor = smol.untrained(None)
    learner, parts = train.learner(smol.untrained(None)[0], 0), Lessons(processor, SHORT).batch(4)
    assert len(parts) == 2
    expected = torch.cat(
        [
            torch.nn.functional.cross_entropy(
                model(**{k: v for k, v in part.items() if k != "labels"}).logits[:, :-1].flatten(0, 1),
                part["labels"][:, 1:].flatten(), reduction="none",
            )[part["labels"][:, 1:].flatten() != -100]
            for part in parts
        ]
    ).mean()  # fmt: skip
    weights = [weight for weight in learner.parameters() if weight.requires_grad]
    loss = train.train_step(learner, torch.optim.SGD(weights, lr=0.0), parts)
    assert abs(loss - expected.item()) < 1e-4


def test_another_recipe_s_or_a_torn_state_is_a_sentence(short, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_step", lambda *_: 1.0)
    monkeypatch.setattr(train, "write_trained", lambda *_: (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        train.train(tmp_path, SHORT)
    with pytest.raises(UserError, match=r"training.pt belongs to another recipe; delete it"):
        train.train(tmp_path, replace(SHORT, seed=1))
    (tmp_path / "training.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"training.pt cannot be read; delete it"):
        train.train(tmp_path, SHORT)


def test_what_would_ship_is_small():
    """A LoRA of that rank on SmolLM2's shapes, and the vision tower of `base` with a merger as wide as it, in bf16."""
    per_layer = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)
    vision = sum(p.numel() for p in load_model(smol.shipped("base")).model.visual.parameters()) + 512 * 320 + 320
    assert 2 * (30 * per_layer * train.LORA.rank + vision) < 12e6


def test_lessons_are_plain_sentences_and_worked_out_or_at_a_glance():
    from random import Random

    from medvlt_lib.phantom.questions import make_questions

    rng, kinds = Random(0), {"worked": 0, "glance": 0, "answer": 0}
    for question in make_questions("all", "train", 160, trace_style="plain", wording="plain"):
        style, answer = lesson(question, rng, plain_glance)
        thinking = answer.partition("<think> ")[2].partition(" </think>")[0]
        kind = "answer" if style == "no-think" else "glance" if thinking.startswith("At a glance it is ") else "worked"
        kinds[kind] += 1
        if kind == "worked":
            assert judge(thinking, question.family, question.extra["facts"], question.options).grounded
            assert answer.endswith(f"<answer> {question.answer_label} </answer>")
    assert min(kinds.values()) > 10 and kinds["worked"] > 50
    for question, text in described(8, seed=1):
        assert text[0].isupper() and text.endswith(".") and question.images and " fits" not in text


def test_the_recipe_sees_first_and_then_answers():
    seeing, *answering = RECIPE.cycles
    assert not seeing.text_questions and not seeing.image_questions and seeing.captions
    assert answering and all(cycle.text_questions and cycle.image_questions for cycle in answering)
