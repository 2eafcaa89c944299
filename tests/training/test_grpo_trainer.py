"""GRPO moves in the right direction, its groups belong to their prompts, and its pictures belong to their questions."""

from types import SimpleNamespace

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.training.grpo_trainer import make_trainer
from medvlt_lib.training.rollouts import rollout_with

SMALL = {
    "model.name": "phantom:small", "grpo.prompts": 1, "grpo.group_size": 16, "grpo.micro_batch": 16,
    "grpo.max_steps": 10,
    "grpo.learning_rate": 2e-4, "grpo.max_completion_length": 64, "grpo.save_every": 100,
}  # fmt: skip


def share_right(model, processor, question) -> float:
    """How often the right letter is answered, in 64 samples that draw the same random numbers every time."""
    engine = TransformersEngine(model.eval(), processor)
    completions = engine.generate(prompts_of([question]), Sampling(64, 1.0, 64, seed=11))
    return sum(grade(c.text, question).letter == question.answer_label for c in completions) / 64


@pytest.mark.parametrize(("family", "number"), [("curb65", 0), ("nodule_count", 2)], ids=["text", "image"])
def test_ten_steps_on_one_prompt_raise_the_right_letter(family, number, tmp_path):
    """With a reward of 1 - r, or with advantages of the other sign, the share falls to nothing instead."""
    question = make_questions(family, "train", 6, seed=4)[number]
    profile = load_profile("tiny", SMALL)
    model, processor = load_policy(profile, trainable=True), profile_processor(profile)
    before = share_right(model, processor, question)
    make_trainer(profile, model, processor, [question], tmp_path).train()
    after = share_right(model, processor, question)
    assert 0.2 < before < 0.6 and after > before + 0.25, (before, after)


def test_permuted_pictures_change_the_log_probabilities(tmp_path):
    """TRL's log-probabilities are the engine's while every question has its own picture, and others when two swap."""
    profile = load_profile("tiny", {**SMALL, "grpo.prompts": 3, "grpo.group_size": 4, "grpo.micro_batch": 12})
    questions = make_questions("curb65,nodule_count,lesion_site", "train", 3, seed=4)
    model = load_policy(profile, trainable=True).train()
    trainer = make_trainer(profile, model, profile_processor(profile), questions, tmp_path)
    rows = trainer.train_dataset.__getitems__([number for number in range(3) for _ in range(4)])
    batch = trainer._generate_and_score_completions(rows)
    patches, (one, two) = batch["pixel_values"], batch["image_grid_thw"].reshape(2, 4, 3)
    assert one.equal(two) and batch["num_images"] == [0] * 4 + [1] * 8

    def log_probabilities(pixels):
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(
                model.eval(),
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                batch["completion_ids"].shape[1],
                **{key: batch[key] for key in ("image_grid_thw", "num_images", "mm_token_type_ids")},
                pixel_values=pixels,
            )[0]

    def farthest(pixels):
        """By question: how far TRL's log-probabilities are from those that the engine sampled with."""
        away = (log_probabilities(pixels) - batch["sampling_per_token_logps"]).abs() * batch["completion_mask"]
        return away.reshape(3, -1).amax(dim=1)

    assert farthest(patches).max() < 1e-3
    text, first, second = farthest(patches.reshape(2, -1, patches.shape[1]).flip(0).reshape(patches.shape))
    assert text < 1e-3 and first > 0.05 and second > 0.05, (text, first, second)


def rollout(prompts, reorder=lambda completions: completions):
    """What the rollout function returns for `prompts`, groups of 2, from an engine that answers with the prompt."""

    class Engine:
        def generate(self, asked, sampling):
            done = [
                SimpleNamespace(
                    question_id=p.id, prompt_ids=[1], token_ids=[len(str(p.messages))], logprobs=[0.0], text=""
                )
                for p in asked
                for _ in range(sampling.n)
            ]
            return iter(reorder(done))

    class Model(torch.nn.Module):
        pass

    accelerator = SimpleNamespace(process_index=0, is_main_process=False)
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=0), model=Model().train(), accelerator=accelerator)
    return rollout_with(Engine(), Sampling(n=2), 100)(prompts, trainer)


def turn(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_completions_of_a_group_belong_to_one_prompt():
    a, b = turn("short"), turn("much longer")
    lengths = [len(str(prompt)) for prompt in (a, a, b, b)]
    assert rollout([a, a, b, b])["completion_ids"] == [[length] for length in lengths]
    with pytest.raises(AssertionError, match="copies in a row"):
        rollout([a, b, a, b])
    with pytest.raises(AssertionError, match="order of the prompts"):
        rollout([a, a, b, b], reorder=lambda completions: completions[::-1])
    with pytest.raises(AssertionError, match="order of the prompts"):
        rollout([a, a, b, b], reorder=lambda completions: completions[:3])
