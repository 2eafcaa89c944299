"""GRPO through TRL, with completions sampled by one of our engines.

What TRL's trainer sees: conversational prompts, an `images` column that is empty for text questions (so that one batch
may mix both), and a rollout function that samples each group once from its prompt.
"""

from __future__ import annotations

from dataclasses import replace

from medvlt_lib.prompts import prompt_text
from medvlt_lib.records import Question, load_image
from medvlt_lib.rollout.engine import Engine, Prompt, Sampling


def training_rows(questions: list[Question], style: str = "medvlthinker"):
    """Questions as the data set TRL's GRPO trainer reads."""
    from datasets import Dataset, Features, Image, List, Value

    turn = {"role": Value("string"), "content": Value("string")}
    features = Features({"prompt": List(turn), "images": List(Image()), "answer_label": Value("string"), "answer": Value("string")})
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt_text(q, style)}],
            "images": [load_image(i) for i in q.images],
            "answer_label": q.answer_label,
            "answer": q.answer,
        }
        for q in questions
    ]
    return Dataset.from_list(rows, features=features)


def rollout_with(engine: Engine, sampling: Sampling):
    """A TRL rollout function. TRL repeats every prompt G = sampling.n times in a row; each group is sampled once."""

    def rollout(prompts: list, trainer) -> dict[str, list]:
        group = sampling.n if trainer.model.training else trainer.num_generations_eval
        heads = [
            Prompt(f"{trainer.state.global_step}:{trainer.accelerator.process_index}:{i}", messages, _images(messages))
            for i, messages in enumerate(prompts[::group])
        ]
        was_training = trainer.model.training
        trainer.model.eval()
        done = list(engine.generate(heads, replace(sampling, n=group)))
        trainer.model.train(was_training)
        inputs = [engine.prompt_ids(head) for head in heads]
        return {
            "prompt_ids": [ids for ids in inputs for _ in range(group)],
            "completion_ids": [c.token_ids for c in done],
            "logprobs": [c.logprobs for c in done],
        }

    return rollout


def _images(messages: list[dict]) -> list:
    return [part["image"] for turn in messages if isinstance(turn["content"], list) for part in turn["content"] if part["type"] == "image"]
