"""SFT: what the loss falls on, by hand; answers alone; validation; what is refused."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.prompts import messages
from medvlt_lib.core.records import write_questions
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import sft
from medvlt_lib.training.sft_trainer import Collator, make_trainer

SHORT = {
    "model.name": "phantom:small", "sft.batch": 4, "sft.micro_batch": 4, "sft.max_steps": 6, "sft.save_every": 2,
    "eval.max_new_tokens": 48,
}  # fmt: skip


@pytest.fixture(scope="module")
def questions():
    """Two text questions, two with a picture, one with two pictures."""
    first, second = make_questions("nodule_count", "train", 2, seed=8)
    both = replace(first, id="both", images=first.images + second.images, image_ids=first.image_ids + second.image_ids)
    return [*make_questions("curb65,apgar", "train", 2, seed=8), first, second, both]


def by_hand(model, processor, question, answer: str) -> tuple[float, int]:
    """The sum of -log p over the answer's tokens and their number, from one unpadded row without our code."""
    import io

    from PIL import Image

    prompt = processor.apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
    pictures = [Image.open(io.BytesIO(picture)) for picture in question.images] or None
    whole = processor(text=[prompt + answer], images=pictures, return_tensors="pt")
    alone = processor(text=[prompt], images=pictures, return_tensors="pt")["input_ids"].shape[1]
    with torch.no_grad():
        logits = model(**whole).logits[0, :-1].double()
    ids = whole["input_ids"][0, 1:]
    chosen = torch.log(torch.softmax(logits, -1))[torch.arange(len(ids)), ids]
    return -chosen[alone - 1 :].sum().item(), len(ids) - (alone - 1)


@pytest.mark.parametrize("rows", [[0, 1], [2, 3], [4], [0, 4, 2, 1]], ids=["text", "picture", "two", "mixed"])
@pytest.mark.parametrize("wanted", ["full", "answer_only"])
def test_the_loss_is_cross_entropy_over_the_answers(questions, rows, wanted, tmp_path):
    profile = load_profile("tiny", {**SHORT, "sft.target": wanted})
    processor, model = profile_processor(profile), load_policy(profile)
    trainer = make_trainer(profile, model, processor, questions, tmp_path)
    batch = trainer.data_collator([{"row": row} for row in rows])
    with torch.no_grad():
        loss = trainer.compute_loss(model.eval(), batch).item()
    sums = []
    for question in (questions[row] for row in rows):
        thinking = f"<think> {question.reasoning} </think>\n" if wanted == "full" else ""
        answer = f"{thinking}<answer> {question.answer_label} </answer><|im_end|>"
        sums.append(by_hand(model, processor, question, answer))
    expected = sum(total for total, _ in sums) / sum(number for _, number in sums)
    assert expected > 0.02 and loss == pytest.approx(expected, rel=1e-5)


def test_answers_alone_need_no_chain_of_thought(tmp_path):
    bare = [replace(q, reasoning=None) for q in make_questions("curb65", "train", 8, seed=2)]
    write_questions(bare, tmp_path / "bare.parquet")
    with pytest.raises(UserError, match=r"bare\.parquet has no question with a chain of thought.*sft\.target answer"):
        sft.train(load_profile("tiny", SHORT), {"data": tmp_path / "bare.parquet"}, tmp_path / "refused")
    profile = load_profile("tiny", {**SHORT, "sft.target": "answer_only", "sft.learning_rate": 1e-3, "sft.epochs": 10})
    metrics = sft.train(profile, {"data": tmp_path / "bare.parquet"}, tmp_path / "alone")
    assert metrics["steps"] == 6 and metrics["last_loss"] < metrics["first_loss"]


def test_a_long_row_is_refused_by_its_name(questions):
    processor = profile_processor(load_profile("tiny"))
    assert Collator(processor, questions, "medvlthinker", 512)([{"row": 0}])["input_ids"].shape[0] == 1
    with pytest.raises(UserError, match=rf"question {questions[0].id} is \d+ tokens long, sft\.max_length is 40;"):
        Collator(processor, questions, "medvlthinker", 40)([{"row": 0}])


def test_a_run_that_collapses_keeps_its_best_step(tmp_path):
    """A rate that destroys the model: checkpoint/ holds the best validated step, last/ what is left."""
    write_questions(make_questions("curb65,nodule_count", "train", 24, seed=4), tmp_path / "train.parquet")
    write_questions(make_questions("curb65,nodule_count", "validation", 42, seed=4), tmp_path / "validation.parquet")
    inputs = {"data": tmp_path / "train.parquet", "validation": tmp_path / "validation.parquet"}
    watched = {"sft.validate_every": 2, "sft.validation_questions": 42, "sft.learning_rate": 3e-2}
    metrics = sft.train(load_profile("tiny", {**SHORT, **watched}), inputs, tmp_path / "arm")
    by_step = {row["step"]: row["validation_accuracy"] for row in metrics["validation"]}
    assert list(by_step) == [0, 2, 4, 6] and by_step[6] < 0.1 < by_step[metrics["best_step"]]
    assert metrics["checkpoint_step"] == metrics["best_step"] < 6
    kept, last = (load_file(tmp_path / "arm" / name / "model.safetensors") for name in ("checkpoint", "last"))
    assert any((kept[key] - last[key]).abs().max() > 0.05 for key in kept)
    rows = [row for row in read_jsonl(tmp_path / "arm" / "log.jsonl") if "validation_accuracy" in row]
    assert {row["step"]: row["validation_accuracy"] for row in rows} == by_step


def test_validation_where_no_process_holds_the_weights_is_refused():
    with pytest.raises(UserError, match=r"sft\.validate_every 5 .*launch\.strategy fsdp.*set sft\.validate_every null"):
        load_profile("full-3b", {"sft.validate_every": 5})
