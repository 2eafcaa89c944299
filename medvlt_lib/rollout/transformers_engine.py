"""The reference engine: right everywhere, CPU included, on any Qwen2-VL or Qwen2.5-VL model.

A prompt is read once (its image encoded once), and its samples share its cache; finished samples leave the batch.
Prompts are batched in the order given under a budget of tokens, prompt and completion together. Where memory runs out
all the same, the budget is halved and the batch done again.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion
from medvlt_lib.models.processor import image_tokens
from medvlt_lib.models.supervised import END, chat_prompt
from medvlt_lib.rollout.engine import Prompt, Sampling, random_stream, suppressed_tokens
from medvlt_lib.rollout.shared_prompt import SharedPrompts

if TYPE_CHECKING:
    from peft import PeftModel
    from PIL.Image import Image
    from transformers import PreTrainedModel, ProcessorMixin

AT_ONCE = 2**20  # logits whose float32 copies are in memory at once


@dataclass(frozen=True)
class _Job:
    """`samples` samples of one prompt, numbered from `first`. The prompt is ready for the processor."""

    prompt: Prompt
    text: str
    pictures: list[Image]
    prompt_length: int
    first: int
    samples: int


@dataclass
class _Sample:
    """One completion in the making: sample `number` of the batch's prompt `prompt`."""

    prompt: int
    number: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class TransformersEngine:
    """`generate` on a transformers model and its processor.

    `batch_tokens` bounds the tokens in memory at once: samples x (longest prompt + max_new_tokens).
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, processor: ProcessorMixin, batch_tokens: int = 80_000
    ) -> None:
        self.model, self.processor, self.batch_tokens = model, processor, batch_tokens
        tokenizer = processor.tokenizer
        self.end, self.pad = tokenizer.convert_tokens_to_ids(END), tokenizer.pad_token_id
        self.suppressed = suppressed_tokens(tokenizer)

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions prompt by prompt, sample by sample, as batches finish.

        Raises UserError when one sample is too much for the memory.
        """
        new_jobs = (self._job(p, sampling) for p in prompts)
        put_back: deque[_Job] = deque()
        while batch := self._next_batch(put_back, new_jobs, sampling.max_new_tokens):
            try:
                done = self._batch(batch, sampling)
            except (RuntimeError, MemoryError) as error:
                if not _memory_ran_out(error):
                    raise
                self._halve_budget(batch, sampling)
                put_back.extendleft(reversed(batch))
                continue
            yield from done

    def _job(self, prompt: Prompt, sampling: Sampling) -> _Job:
        text = chat_prompt(self.processor, prompt.messages)
        pictures = [load_image(i) for i in prompt.images]
        prompt_length = len(self.processor.tokenizer(text).input_ids)
        prompt_length += sum(image_tokens(self.processor, *picture.size) for picture in pictures)
        return _Job(prompt, text, pictures, prompt_length, sampling.first, sampling.n)

    def _next_batch(self, put_back: deque[_Job], new_jobs: Iterator[_Job], limit: int) -> list[_Job]:
        """As many jobs in order as the budget holds; of the first one at least one sample."""
        batch: list[_Job] = []
        samples = longest = 0
        while job := put_back.popleft() if put_back else next(new_jobs, None):
            longest = max(longest, job.prompt_length)
            free = self.batch_tokens // (longest + limit) - samples
            if free < job.samples and batch:
                put_back.appendleft(job)
                break
            if free < job.samples and job.samples > 1:
                now = max(1, free)
                put_back.appendleft(replace(job, first=job.first + now, samples=job.samples - now))
                return [replace(job, samples=now)]
            batch.append(job)
            samples += job.samples
        return batch

    def _halve_budget(self, batch: list[_Job], sampling: Sampling) -> None:
        samples = sum(job.samples for job in batch)
        tokens = samples * (max(job.prompt_length for job in batch) + sampling.max_new_tokens)
        if samples == 1:
            raise UserError(
                f"memory runs out on one answer of {tokens} tokens; "
                "lower the max_new_tokens of the stage, or model.max_pixels."
            )
        self.batch_tokens = tokens // 2
        print(
            f"memory ran out with {samples} answers at once; going on with engine.batch_tokens = {self.batch_tokens}",
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
        # Read every prompt once.
        inputs = self._inputs(jobs)
        mask = inputs["attention_mask"]
        prompt_ids = [ids[real].tolist() for ids, real in zip(inputs["input_ids"], mask.bool(), strict=True)]
        shared = SharedPrompts(self.model.config.get_text_config().num_hidden_layers)
        logits, position = self._read_prompts(inputs, shared)

        # Begin every sample after its prompt, with random numbers of its own.
        samples = [_Sample(i, job.first + k) for i, job in enumerate(jobs) for k in range(job.samples)]
        prompt_of = [sample.prompt for sample in samples]
        shared.share(prompt_of, mask)
        logits, position = logits[prompt_of], position[prompt_of]
        uniform = self._random_numbers(samples, jobs, sampling)

        # Decode token by token. `batch` are the samples still computed, `running` those of them that have not ended.
        batch = samples
        running = torch.ones(len(batch), dtype=torch.bool, device=logits.device)
        for step in range(sampling.max_new_tokens):
            chosen, logprobs = self._choose(logits, uniform[:, step], sampling.temperature)
            _append(batch, running, chosen, logprobs)
            running = running & (chosen != self.end)
            if not running.any() or step == sampling.max_new_tokens - 1:
                break
            if running.float().mean() < 0.8:  # copying the cache pays only when enough samples leave
                kept = running.nonzero().flatten()
                shared.keep_samples(kept)
                batch = [batch[i] for i in kept.tolist()]
                running, chosen, position, uniform = (t[kept] for t in (running, chosen, position, uniform))
            position = position + 1
            logits = self._decode(chosen, shared, position)

        return [self._completion(s, jobs[s.prompt].prompt.id, prompt_ids[s.prompt]) for s in samples]

    def _read_prompts(
        self, inputs: dict[str, torch.Tensor], shared: SharedPrompts
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill the cache. Returns the logits (P, V) after each prompt's last token, and that token's position (P,)."""
        positions = self.positions(inputs)
        inputs = {name: value for name, value in inputs.items() if name != "mm_token_type_ids"}
        # As an index, not as a number: a number gives the output layer a view of the hidden states, which in bf16 on a
        # CPU makes torch copy that layer's weights for every prompt.
        last = torch.tensor([-1], device=positions.device)
        out = self.model(
            **inputs, position_ids=positions, past_key_values=shared.cache, use_cache=True, logits_to_keep=last
        )
        return out.logits[:, -1], positions.amax(dim=(0, 2))

    def _random_numbers(self, samples: list[_Sample], jobs: list[_Job], sampling: Sampling) -> torch.Tensor:
        """(B, max_new_tokens) uniform numbers, each row from its sample's own stream."""
        rows = [
            random_stream(sampling.seed, jobs[s.prompt].prompt.id, s.number, sampling.max_new_tokens) for s in samples
        ]
        return torch.from_numpy(np.stack(rows)).to(self.model.device)

    def positions(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Three-axis positions (3, B, T): by image grid where there are images, else 0, 1, 2, ... after the padding."""
        mask = inputs["attention_mask"]
        if "image_grid_thw" in inputs:
            names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
            inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model  # under LoRA
            return inner.model.get_rope_index(**{k: inputs[k] for k in names})[0]
        return (mask.cumsum(-1) - 1).clamp(min=0).expand(3, *mask.shape)

    def _decode(self, chosen: torch.Tensor, shared: SharedPrompts, position: torch.Tensor) -> torch.Tensor:
        """The logits (B, V) after one more token of every sample. chosen (B,), position (B,)."""
        positions = position[None, :, None].expand(3, -1, 1)
        with shared.decoding(self.model):
            out = self.model(
                input_ids=chosen[:, None], position_ids=positions, past_key_values=shared.cache, use_cache=True
            )
        return out.logits[:, -1]

    def _choose(
        self, logits: torch.Tensor, uniform: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One token a sample and its log-probability: greedy, or by inverting the distribution at `uniform` (B,). With
        a large vocabulary some samples at a time, since it takes several float32 copies of their logits."""
        rows = max(1, AT_ONCE // logits.shape[1])
        parts = zip(logits.split(rows), uniform.split(rows), strict=True)
        chosen, logprobs = zip(*(self._choose_rows(own, draws, temperature) for own, draws in parts), strict=True)
        return torch.cat(chosen), torch.cat(logprobs)

    def _choose_rows(
        self, logits: torch.Tensor, uniform: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
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

    def _completion(self, sample: _Sample, prompt_id: str, prompt_ids: list[int]) -> Completion:
        reason = "stop" if sample.tokens[-1] == self.end else "length"
        text = self.processor.tokenizer.decode(sample.tokens, skip_special_tokens=True)
        return Completion(prompt_id, sample.number, text, sample.tokens, sample.logprobs, reason, prompt_ids)


def _append(batch: list[_Sample], running: torch.Tensor, chosen: torch.Tensor, logprobs: torch.Tensor) -> None:
    """Add one step's tokens to the samples that have not ended. All tensors (B,)."""
    for sample, runs, token, logprob in zip(batch, running.tolist(), chosen.tolist(), logprobs.tolist(), strict=True):
        if runs:
            sample.tokens.append(token)
            sample.logprobs.append(logprob)


def _memory_ran_out(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
