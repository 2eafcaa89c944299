"""The reference engine: right everywhere, CPU included, on any Qwen2-VL or Qwen2.5-VL model.

A prompt is prefilled once (its image encoded once), and its samples share its cache; finished rows leave the batch.
Prompts are batched in the order given under a budget of tokens, prompt and completion together; where memory runs out all
the same, the budget is halved and the batch done again.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion
from medvlt_lib.models.processor import image_tokens
from medvlt_lib.rollout.engine import Prompt, Sampling, random_stream, suppressed
from medvlt_lib.rollout.shared_prompt import SharedPrompts


@dataclass(frozen=True)
class _Job:
    """`count` samples, from number `first`, of one prompt that is ready for the processor and has `length` tokens."""

    prompt: Prompt
    text: str
    pictures: list
    length: int
    first: int
    count: int


class TransformersEngine:
    """`generate` on a transformers model and its processor; `batch_tokens` bounds the tokens in memory at once: rows x
    (longest prompt + max_new_tokens)."""

    def __init__(self, model, processor, batch_tokens: int = 80_000) -> None:
        self.model, self.processor, self.batch_tokens = model, processor, batch_tokens
        tokenizer = processor.tokenizer
        self.end, self.pad = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.pad_token_id
        self.suppressed = suppressed(tokenizer)

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions prompt by prompt, sample by sample, as batches finish. Raises UserError when one row is too much for the memory."""
        coming = (self._job(p, sampling) for p in prompts)
        waiting: deque[_Job] = deque()
        while batch := self._take(waiting, coming, sampling.max_new_tokens):
            try:
                done = self._batch(batch, sampling)
            except (RuntimeError, MemoryError) as error:
                if not _memory_ran_out(error):
                    raise
                self._halve(batch, sampling)
                waiting.extendleft(reversed(batch))
                continue
            yield from done

    def _job(self, prompt: Prompt, sampling: Sampling) -> _Job:
        text = self.processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
        pictures = [load_image(i) for i in prompt.images]
        length = len(self.processor.tokenizer(text).input_ids)
        length += sum(image_tokens(self.processor, *picture.size) for picture in pictures)
        return _Job(prompt, text, pictures, length, sampling.first, sampling.n)

    def _take(self, waiting: deque[_Job], coming: Iterator[_Job], limit: int) -> list[_Job]:
        """The next batch: as many jobs in order as the budget holds, of the first at least one sample."""
        batch: list[_Job] = []
        rows = longest = 0
        while job := waiting.popleft() if waiting else next(coming, None):
            longest = max(longest, job.length)
            room = self.batch_tokens // (longest + limit) - rows
            if room < job.count and batch:
                waiting.appendleft(job)
                break
            if room < job.count and job.count > 1:
                fits = max(1, room)
                waiting.appendleft(replace(job, first=job.first + fits, count=job.count - fits))
                return [replace(job, count=fits)]
            batch.append(job)
            rows += job.count
        return batch

    def _halve(self, batch: list[_Job], sampling: Sampling) -> None:
        rows = sum(job.count for job in batch)
        tokens = rows * (max(job.length for job in batch) + sampling.max_new_tokens)
        if rows == 1:
            raise UserError(
                f"memory runs out on one answer of {tokens} tokens; lower the max_new_tokens of the stage, or model.max_pixels."
            )
        self.batch_tokens = tokens // 2
        print(
            f"memory ran out with {rows} answers at once; going on with engine.batch_tokens = {self.batch_tokens}",
            file=sys.stderr,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def inputs(self, prompts: list[Prompt]) -> dict[str, torch.Tensor]:
        """What the model takes for left-padded prompts, each image once."""
        return self._inputs([self._job(p, Sampling()) for p in prompts])

    def _inputs(self, jobs: list[_Job]) -> dict[str, torch.Tensor]:
        pictures = [picture for job in jobs for picture in job.pictures] or None
        texts = [job.text for job in jobs]
        batch = self.processor(text=texts, images=pictures, padding=True, padding_side="left", return_tensors="pt")
        return dict(batch.to(self.model.device))

    @torch.no_grad()
    def _batch(self, jobs: list[_Job], sampling: Sampling) -> list[Completion]:
        limit = sampling.max_new_tokens
        inputs = self._inputs(jobs)
        heads = [
            ids[real].tolist() for ids, real in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        ]
        logits, prompts, mask, position = self._prefill(inputs)
        samples = [
            (i, job.first + k) for i, job in enumerate(jobs) for k in range(job.count)
        ]  # (prompt, sample) of each row
        of = [i for i, _ in samples]
        prompts.share(of, mask)
        logits, position = logits[of], position[of]
        streams = [torch.from_numpy(random_stream(sampling.seed, jobs[i].prompt.id, k, limit)) for i, k in samples]
        uniform = torch.stack(streams).to(logits.device)  # (rows, limit)
        tokens: list[list[int]] = [[] for _ in samples]
        logprobs: list[list[float]] = [[] for _ in tokens]
        rows = torch.arange(len(tokens), device=logits.device)  # the rows still in the batch
        running = torch.ones_like(rows, dtype=torch.bool)  # those of them that have not ended
        for step in range(limit):
            chosen, logprob = self._choose(logits, uniform[rows, step], sampling.temperature)
            for row, token, value, alive in zip(
                rows.tolist(), chosen.tolist(), logprob.tolist(), running.tolist(), strict=True
            ):
                if alive:
                    tokens[row].append(token)
                    logprobs[row].append(value)
            running = running & (chosen != self.end)
            if not running.any() or step == limit - 1:
                break
            if running.float().mean() < 0.8:  # copying the cache pays only when enough rows leave
                keep = running.nonzero().flatten()
                prompts.keep_rows(keep)
                rows, running, position, chosen = (t[keep] for t in (rows, running, position, chosen))
            position = position + 1
            logits = self._decode(chosen, prompts, position)
        rows = zip(samples, tokens, logprobs, strict=True)
        return [self._completion(jobs[i].prompt.id, k, ids, values, heads[i]) for (i, k), ids, values in rows]

    def _prefill(self, inputs: dict[str, torch.Tensor]):
        """Last-token logits (P, V), the cache, the mask (P, T) and each prompt's last position (P,)."""
        prompts = SharedPrompts(self.model.config.get_text_config().num_hidden_layers)
        positions, mask = self.positions(inputs), inputs["attention_mask"]
        inputs.pop("mm_token_type_ids", None)
        out = self.model(
            **inputs, position_ids=positions, past_key_values=prompts.cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1], prompts, mask, positions.amax(dim=(0, 2))

    def positions(self, inputs: dict) -> torch.Tensor:
        """Three-axis positions (3, B, T): by image grid where there are images, else 0, 1, 2, ... after the padding."""
        mask = inputs["attention_mask"]
        if "image_grid_thw" in inputs:
            names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
            inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model  # under LoRA
            return inner.model.get_rope_index(**{k: inputs[k] for k in names})[0]
        return (mask.cumsum(-1) - 1).clamp(min=0).expand(3, *mask.shape)

    def _decode(self, chosen: torch.Tensor, prompts: SharedPrompts, position: torch.Tensor) -> torch.Tensor:
        positions = position[None, :, None].expand(3, -1, 1)
        with prompts.decoding(self.model):
            out = self.model(
                input_ids=chosen[:, None], position_ids=positions, past_key_values=prompts.cache, use_cache=True
            )
        return out.logits[:, -1]

    def _choose(
        self, logits: torch.Tensor, uniform: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One token a row and its log-probability: greedy, or by inverting the distribution at `uniform` (rows,)."""
        logits = logits.float()
        logits[:, self.suppressed] = -torch.inf
        logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
        if temperature == 0:
            chosen = logprobs.argmax(-1)
        else:
            cumulative = logprobs.exp().cumsum(-1)
            chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).squeeze(1)
            chosen = chosen.clamp(max=logits.shape[1] - 1)
        return chosen, logprobs.gather(1, chosen[:, None]).squeeze(1)

    def _completion(
        self, prompt: str, sample: int, tokens: list[int], logprobs: list[float], head: list[int]
    ) -> Completion:
        reason = "stop" if tokens[-1] == self.end else "length"
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return Completion(prompt, sample, text, tokens, logprobs, reason, head)


def _memory_ran_out(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
