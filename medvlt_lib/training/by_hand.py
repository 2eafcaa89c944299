"""GRPO by hand: the whole algorithm on one page, without a trainer library, for text and pictures.

Left out: several devices, micro-batches, checkpoints, schedules; and the trainer cuts a batch into `updates` parts, one
for each update: here each takes it whole. Losses and gradients are TRL's. GRPO arXiv 2402.03300 eq. 3; Dr. GRPO
2503.20783; DAPO 2503.14476; GSPO 2507.18071; CISPO 2506.13585; the KL estimate k3, joschu.net/blog/kl-approx.html.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, ProcessorMixin

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.sections import Grpo
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine


def train(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batches: Iterable[list[Question]],
    reward: Callable[[Completion, Question], float],
    g: Grpo,
    reference: PreTrainedModel | None = None,
) -> Iterator[dict]:
    """Reinforce `model`, one step for every batch of questions; each step's figures come back as they are made.

    `reference` is a frozen copy of the model: needed where g.beta is not 0; where it is given, the KL is measured.
    """
    if g.beta and reference is None:
        raise UserError(f"grpo.beta is {g.beta}, and there is no reference to stay near; give one, or set beta to 0.")
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
        rewards = torch.tensor([float(reward(c, by_id[c.question_id])) for c in completions]).view(-1, g.group_size)
        advantages = group_advantages(rewards, g.scale_rewards).flatten().to(model.device)  # (rows,)
        # 3: raise the probability of what was better than its group, within the trust region.
        model.train()
        pictures = [load_image(i) for c in completions for i in by_id[c.question_id].images]
        inputs, mask = as_rows(model, processor, completions, pictures)
        with torch.no_grad():
            known = token_logprobs(reference, inputs, mask) if reference else None
        old = None
        for _ in range(g.updates):
            new = token_logprobs(model, inputs, mask)
            old = new.detach() if old is None else old  # of the policy that sampled, which the first update begins with
            loss, seen = policy_loss(new, old, known, advantages, mask, g)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, g.gradient_clip)
            optimizer.step()
        figures = {"reward": rewards.mean(), "loss": loss, "gradient_norm": norm, **seen}
        yield {"step": step, "rewards": rewards, "completions": completions} | {k: v.item() for k, v in figures.items()}


def group_advantages(rewards: Tensor, scale: str = "group") -> Tensor:
    """(groups, G) rewards to advantages: minus the group's mean, over the group's or batch's deviation, or nothing."""
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "none":
        return centred
    deviation = rewards.std(1, keepdim=True) if scale == "group" else rewards.std()
    return centred / (deviation + 1e-4)


def as_rows(model: PreTrainedModel, processor: ProcessorMixin, completions: list[Completion], pictures: list) -> tuple:
    """Model inputs of prompt and completion (rows, P + T), padded on both sides; the completions' mask (rows, T)."""
    prompts = [torch.tensor(c.prompt_ids) for c in completions]
    answers = [torch.tensor(c.token_ids) for c in completions]
    ids = torch.cat([pad_sequence(prompts, True, padding_side="left"), pad_sequence(answers, True)], 1)
    real = pad_sequence([torch.ones_like(p) for p in prompts], True, padding_side="left")
    mask = pad_sequence([torch.ones_like(a) for a in answers], True)
    inputs = {"input_ids": ids, "attention_mask": torch.cat([real, mask], 1)}
    if pictures:
        inputs |= processor.image_processor(pictures, return_tensors="pt")
        inputs["mm_token_type_ids"] = (ids == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    return {name: value.to(model.device) for name, value in inputs.items()}, mask.bool().to(model.device)


def token_logprobs(model: PreTrainedModel, inputs: dict[str, Tensor], mask: Tensor) -> Tensor:
    """The log-probability of every completion token (rows, T); 0 where a completion is padded."""
    logits = model(**inputs, logits_to_keep=mask.shape[1] + 1).logits[:, :-1].float()  # each predicts the next token
    chosen = inputs["input_ids"][:, -mask.shape[1] :, None]
    return torch.log_softmax(logits, -1).gather(2, chosen).squeeze(2) * mask


def policy_loss(
    new: Tensor, old: Tensor, known: Tensor | None, advantages: Tensor, mask: Tensor, g: Grpo
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective, as a loss, from log-probabilities (rows, T) now, at sampling and of the reference, and advantages
    (rows,); with the share of tokens out of the trust region and, where there is a reference, the KL."""
    low, high = 1 - g.epsilon, 1 + (g.epsilon_high or g.epsilon)  # a high of its own: DAPO's clip-higher
    gain, lengths = advantages[:, None], mask.sum(1, keepdim=True)
    ratio = (new - old).exp()
    if g.loss_type == "gspo":  # one ratio a sequence: the geometric mean of its tokens' ratios
        ratio = ((new - old).sum(1, keepdim=True) / lengths).exp().expand_as(new)
    if g.loss_type == "cispo":  # the ratio is a weight without gradient, cut from above
        token = -ratio.clamp(max=high).detach() * gain * new
    else:
        token = -torch.min(ratio * gain, ratio.clamp(low, high) * gain)
    seen = {"clipped": ((ratio < low) | (ratio > high))[mask].float().mean()}
    if known is not None:
        kl = (known - new).exp() - (known - new) - 1  # never negative, and 0 where the two agree
        token, seen["kl"] = token + g.beta * kl, kl[mask].mean()
    if g.loss_type in ("grpo", "gspo"):  # the mean of every completion, then over completions
        return (token * mask / lengths).sum(1).mean(), seen
    if g.loss_type == "dr_grpo":  # a sum over a constant: no reward for being short or long
        return (token * mask).sum() / (len(mask) * g.max_completion_length), seen
    return (token * mask).sum() / mask.sum(), seen  # bnpo, dapo, cispo: the mean over all tokens
