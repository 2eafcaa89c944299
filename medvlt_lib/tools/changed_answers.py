"""What exporting a model changed: the arm as it was trained and the exported folder answer the same test questions.

Greedy answers are compared as texts and as option letters; and the log-probability of every token of the arm's own
answers is taken under both models, which shows a change long before an answer does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from medvlt_lib.core.config import Profile
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_model, load_policy, profile_processor
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

QUESTIONS = 100  # of the test questions, evenly spread, so that every data set of a sorted file is among them


def measured_change(profile: Profile, checkpoint: Path, exported: Path, test: Path) -> dict[str, Any]:
    """The arm in `checkpoint` against the merged model in `exported`, on questions of the parquet file `test`.

    The arm is loaded as it was trained (quantized, where it was); both compute in the profile's precision. One model is
    in memory at a time. Log-probability differences are absolute, in nats a token.
    """
    every = QuestionFiles([test])
    count = min(QUESTIONS, len(every))
    places = [i * len(every) // count for i in range(count)]
    questions = [every[i : i + 1][0] for i in places]
    m = profile.model
    before, own = _answers(profile, lambda: load_policy(profile, checkpoint).eval(), questions, "the arm as trained")
    after, other = _answers(profile, lambda: load_model(exported, m.dtype, m.device), questions, "the export", before)
    verdicts = [_verdicts(profile, questions, answers) for answers in (before, after)]
    gaps = (torch.tensor(own) - torch.tensor(other)).abs()
    return {
        "computed_in": m.dtype,
        "questions": count,
        "with_pictures": sum(q.modality == "image" for q in questions),
        "same_text": sum(a.token_ids == b.token_ids for a, b in zip(before, after, strict=True)),
        "same_letter": sum(a.letter == b.letter for a, b in zip(*verdicts, strict=True)),
        "right_before": sum(v.correct for v in verdicts[0]),
        "right_after": sum(v.correct for v in verdicts[1]),
        "tokens": len(own),
        "mean_logprob_difference": gaps.mean().item(),
        "largest_logprob_difference": gaps.max().item(),
    }


def in_words(change: dict[str, Any]) -> str:
    """One paragraph for the model card."""
    c = change
    mean, largest = f"{c['mean_logprob_difference']:.4f}", f"{c['largest_logprob_difference']:.3f}"
    return (
        f"The arm as it was trained and the exported weights answered {c['questions']} test questions "
        f"({c['with_pictures']} with pictures), greedily, computing in {c['computed_in']}. {c['same_text']} answers "
        f"are the same token by token, {c['same_letter']} choose the same option; {c['right_before']} were right "
        f"before, {c['right_after']} are now. The log-probability of a token of the arm's own answers ({c['tokens']} "
        f"tokens) differs by {mean} in the mean and {largest} at most."
    )


def _answers(
    profile: Profile,
    load: Callable[[], PreTrainedModel | PeftModel],
    questions: list[Question],
    who: str,
    scored: list[Completion] | None = None,
) -> tuple[list[Completion], list[float]]:
    """A model's greedy answers, and what it gives every token of the answers `scored` (by default its own)."""
    engine = TransformersEngine(load(), profile_processor(profile), profile.engine.batch_tokens)
    prompts = prompts_of(questions, profile.model.prompt_style)
    greedy = Sampling(temperature=0.0, max_new_tokens=profile.eval.max_new_tokens)
    answers = list(tqdm(engine.generate(prompts, greedy), desc=f"asking {who}", total=len(prompts), delay=2))
    logprobs = []
    for prompt, answer in zip(prompts, scored or answers, strict=True):
        logprobs += token_logprobs(engine, engine.inputs([prompt]), answer.token_ids)
    del engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return answers, logprobs


@torch.no_grad()
def token_logprobs(engine: TransformersEngine, inputs: dict[str, torch.Tensor], answer: list[int]) -> list[float]:
    """The log-probability of each token of an answer, given the prompt in `inputs` and the tokens before it."""
    tokens = torch.tensor([answer], device=inputs["input_ids"].device)
    whole = dict(inputs)
    for name, more in (
        ("input_ids", tokens),
        ("attention_mask", torch.ones_like(tokens)),
        ("mm_token_type_ids", torch.zeros_like(tokens)),
    ):
        if name in whole:
            whole[name] = torch.cat([whole[name], more], dim=1)
    positions = engine.positions(whole)
    whole.pop("mm_token_type_ids", None)
    logits = engine.model(**whole, position_ids=positions, use_cache=False, logits_to_keep=len(answer) + 1).logits
    logprobs = torch.log_softmax(logits[0, :-1].float(), dim=-1)
    return logprobs.gather(1, tokens[0, :, None]).flatten().tolist()


def _verdicts(profile: Profile, questions: list[Question], answers: list[Completion]) -> list:
    style, grader = profile.model.prompt_style, profile.eval.grader
    return [grade(a.text, q, grader, style, a.finish_reason) for q, a in zip(questions, answers, strict=True)]
