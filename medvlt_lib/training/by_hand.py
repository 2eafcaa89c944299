"""GRPO by hand: the whole algorithm on one page, without a trainer library, for text and pictures.

Left out: several devices, accumulation over micro-batches, checkpoints, schedules. What is here gives the losses and
gradients of TRL's trainer (tests/training/test_by_hand.py). Sources: GRPO arXiv 2402.03300 eq. 3; Dr. GRPO 2503.20783;
DAPO 2503.14476; GSPO 2507.18071; CISPO 2506.13585; the KL estimate k3, http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.sections import Grpo
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def train(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batches: Iterable[list[Question]],
    reward: Callable[[Completion, Question], float],
    g: Grpo,
    reference: PreTrainedModel | None = None,
) -> Iterator[dict[str, Any]]:
    """Reinforce `model`, one step for every batch of questions; each step's figures come back as they are made.

    `reference` is a frozen copy of the model, needed where `g.beta` is not 0.
    """
    engine = TransformersEngine(model, processor)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=g.learning_rate, weight_decay=g.weight_decay)
    for step, questions in enumerate(batches):
        # 1: sample a group of completions of every question.
        model.eval()
        sampling = Sampling(g.group_size, g.temperature, g.max_completion_length, g.seed + step)
        completions = list(engine.generate(prompts_of(questions), sampling))
        # 2: score them, and compare every reward with its own group.
        by_id = {q.id: q for q in questions}
        rewards = torch.tensor([[reward(c, by_id[c.question_id]) for c in completions]]).view(-1, g.group_size)
        advantages = group_advantages(rewards, g.scale_rewards).flatten()  # (rows,)
        # 3: raise the probability of what was better than its group, within the trust region.
        model.train()
        inputs, mask = as_rows(processor, completions, by_id)
        with torch.no_grad():
            old = token_logprobs(model, inputs, mask)
            known = token_logprobs(reference, inputs, mask) if g.beta else None
        for _ in range(g.updates):
            new = token_logprobs(model, inputs, mask)
            loss = policy_loss(
                new, old, advantages, mask, g.loss_type, g.epsilon, g.beta, known, g.max_completion_length
            )
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, g.gradient_clip)
            optimizer.step()
        clipped = (((new.detach() - old).exp() - 1).abs()[mask] > g.epsilon).float().mean()
        figures = {"reward": rewards.mean(), "loss": loss, "gradient_norm": norm, "clipped": clipped}
        yield {
            "step": step,
            **{k: v.item() for k, v in figures.items()},
            "rewards": rewards,
            "completions": completions,
        }


def group_advantages(rewards: torch.Tensor, scale: str = "group") -> torch.Tensor:
    """(groups, G) rewards to advantages: minus the group's mean, over the group's or batch's deviation, or nothing."""
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "none":
        return centred
    deviation = rewards.std(1, keepdim=True) if scale == "group" else rewards.std()
    return centred / (deviation + 1e-4)


def as_rows(
    processor: ProcessorMixin, completions: list[Completion], questions: dict[str, Question]
) -> tuple[dict, torch.Tensor]:
    """Model inputs of prompt and completion (rows, P + T), padded on both sides; the completions' mask (rows, T)."""
    prompts = [torch.tensor(c.prompt_ids) for c in completions]
    answers = [torch.tensor(c.token_ids) for c in completions]
    pad = processor.tokenizer.pad_token_id
    left = torch.nn.utils.rnn.pad_sequence(prompts, True, pad, padding_side="left")
    right = torch.nn.utils.rnn.pad_sequence(answers, True, pad)
    mask = torch.arange(right.shape[1]) < torch.tensor([len(a) for a in answers])[:, None]  # (rows, T)
    real = torch.arange(left.shape[1]) >= left.shape[1] - torch.tensor([len(p) for p in prompts])[:, None]
    ids = torch.cat([left, right], 1)
    inputs = {"input_ids": ids, "attention_mask": torch.cat([real, mask], 1).long()}
    pictures = [load_image(i) for c in completions for i in questions[c.question_id].images]
    if pictures:
        inputs |= processor.image_processor(pictures, return_tensors="pt")
        image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        inputs["mm_token_type_ids"] = (ids == image).long()
    return dict(inputs), mask


def token_logprobs(model: PreTrainedModel, inputs: dict[str, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """The log-probability of every completion token (rows, T); 0 where a completion is padded."""
    length = mask.shape[1]
    logits = model(**inputs, logits_to_keep=length + 1).logits[:, :-1].float()  # each position predicts the next token
    chosen = inputs["input_ids"][:, -length:, None]
    return torch.log_softmax(logits, -1).gather(2, chosen).squeeze(2) * mask


def policy_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    loss_type: str = "dapo",
    epsilon: float = 0.2,
    beta: float = 0.0,
    known: torch.Tensor | None = None,
    max_length: int = 1,
) -> torch.Tensor:
    """The objective, as a loss: log-probabilities (rows, T) now, at sampling, of the reference; advantages (rows,)."""
    ratio = (new - old).exp()
    if loss_type == "gspo":  # one ratio a sequence: the geometric mean of its tokens' ratios
        ratio = ((new - old) * mask).sum(1, keepdim=True).div(mask.sum(1, keepdim=True)).exp().expand_as(new)
    gain = advantages[:, None]
    if loss_type == "cispo":  # the ratio is a weight without gradient, cut from above
        token = -ratio.clamp(max=1 + epsilon).detach() * gain * new
    else:
        token = -torch.min(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    if beta:
        token = token + beta * ((known - new).exp() - (known - new) - 1)
    if loss_type in ("grpo", "gspo"):  # the mean of every completion, then over completions
        return ((token * mask).sum(1) / mask.sum(1)).mean()
    if loss_type == "dr_grpo":  # a sum over a constant: no reward for being short or long
        return (token * mask).sum() / (len(mask) * max_length)
    return (token * mask).sum() / mask.sum()  # bnpo, dapo, cispo: the mean over all tokens
