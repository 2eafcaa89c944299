"""vLLM in this process: the engine for one GPU and more. Written for vLLM 0.31, usable from 0.26; not run on a GPU yet.

Prompts are handed over un-expanded, with one image token an image, which vLLM expands. `n` samples share a prompt
through prefix caching. Image tokens are biased away, since a sampled one breaks the next forward pass. A LoRA adapter
is swapped in place, never merged into 4-bit weights. At the first prompt of each kind, text and image, vLLM's prompt
length must equal the processor's: a wrong expansion would train on other positions without a word.

Several engines at once, on one machine or more, are Ray's work: medvlt_lib/rollout/cluster.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion
from medvlt_lib.rollout.engine import Prompt, Sampling, suppressed_tokens

if TYPE_CHECKING:
    from transformers import ProcessorMixin
    from vllm import LLM, RequestOutput

CHUNK = 256  # prompts handed over at once (MedVLThinker: 512 for the probe)
NEVER = -100.0  # added to the logits of tokens that must not be sampled


def engine_keywords(profile: Profile, checkpoint: Path | None = None) -> dict[str, Any]:
    """What `vllm.LLM` is given for a profile, on its base model or an arm's checkpoint; adapters are swapped in
    later."""
    from medvlt_lib.models.loading import check_base, is_adapter, resolve

    m, e = profile.model, profile.engine
    adapter = checkpoint is not None and is_adapter(checkpoint)
    if checkpoint is not None and adapter:
        check_base(checkpoint, m.name)
    full_weights = checkpoint is not None and not adapter
    pixels = {k: v for k, v in (("min_pixels", m.min_pixels), ("max_pixels", m.max_pixels)) if v is not None}
    keywords: dict[str, Any] = {
        "model": str(checkpoint) if full_weights else resolve(m.name),
        "revision": None if full_weights else m.revision,
        "dtype": "bfloat16" if m.quantization == "nf4" else m.dtype,  # vLLM has no bitsandbytes core: the base in bf16
        "tensor_parallel_size": e.tensor_parallel,
        "gpu_memory_utilization": e.gpu_memory,
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": e.max_images, "video": 0},
        "seed": 0,
    }
    if pixels:
        keywords["mm_processor_kwargs"] = pixels
    if m.lora is not None or adapter:
        keywords |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": max(8, m.lora.rank if m.lora else 64)}
    return keywords


def sampling_keywords(sampling: Sampling, prompt_id: str, end: int, never: list[int]) -> dict[str, Any]:
    """What `vllm.SamplingParams` is given for one prompt; sample k of it draws from seed + k."""
    digest = hashlib.sha256(f"{sampling.seed}:{prompt_id}".encode()).digest()
    return {
        "n": sampling.n,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": sampling.max_new_tokens,
        "seed": int.from_bytes(digest[:4], "big") // 2 + sampling.first,
        "stop_token_ids": [end],
        "logprobs": 0,  # of the sampled token alone
        "logit_bias": dict.fromkeys(never, NEVER),
        "skip_special_tokens": True,
    }


class VllmEngine:
    """`generate` on a `vllm.LLM`; `swap` puts an adapter folder in place of the last one."""

    def __init__(self, llm: LLM, processor: ProcessorMixin) -> None:
        self.llm, self.processor, self.adapter = llm, processor, None
        tokenizer = processor.tokenizer
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.suppressed = suppressed_tokens(tokenizer)
        self._checked: set[bool] = set()

    def swap(self, adapter: Path) -> None:
        """Answer with this LoRA adapter from now on, read again from its folder."""
        from vllm.lora.request import LoRARequest

        self.adapter = LoRARequest(lora_name="adapter", lora_int_id=1, lora_path=str(adapter), load_inplace=True)

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions prompt by prompt, sample by sample, as chunks finish.

        Raises UserError when vLLM and the processor read a prompt differently.
        """
        from vllm import SamplingParams

        remaining = iter(prompts)
        while chunk := list(islice(remaining, CHUNK)):
            inputs = [self._vllm_input(p) for p in chunk]
            params = [SamplingParams(**sampling_keywords(sampling, p.id, self.end, self.suppressed)) for p in chunk]
            outputs = self.llm.generate(inputs, params, use_tqdm=False, lora_request=self.adapter)
            for prompt, vllm_input, output in zip(chunk, inputs, outputs, strict=True):
                self._check_prompt_length(prompt, vllm_input, output)
                yield from self._completions(prompt, output, sampling.first)

    def _vllm_input(self, prompt: Prompt) -> dict[str, Any]:
        text = self.processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
        if not prompt.images:
            return {"prompt": text}
        return {"prompt": text, "multi_modal_data": {"image": [load_image(i) for i in prompt.images]}}

    def _check_prompt_length(self, prompt: Prompt, vllm_input: dict[str, Any], output: RequestOutput) -> None:
        """Once for text and once for images: as many prompt tokens as the processor makes."""
        has_images = bool(prompt.images)
        if has_images in self._checked:
            return
        self._checked.add(has_images)
        pictures = vllm_input.get("multi_modal_data", {}).get("image")
        expected = len(self.processor(text=[vllm_input["prompt"]], images=pictures).input_ids[0])
        if len(output.prompt_token_ids) != expected:
            raise UserError(
                f"vLLM reads {prompt.id} as {len(output.prompt_token_ids)} tokens, the processor as {expected}; "
                "their versions or pixel limits differ, use engine.kind transformers."
            )

    def _completions(self, prompt: Prompt, output: RequestOutput, first: int) -> Iterator[Completion]:
        """The samples of one prompt in order, which vLLM does not promise."""
        prompt_ids = list(output.prompt_token_ids)
        for number, sample in enumerate(sorted(output.outputs, key=lambda o: o.index), first):
            ids, logprobs = list(sample.token_ids), None
            if sample.logprobs:
                logprobs = [by_token[token].logprob for by_token, token in zip(sample.logprobs, ids, strict=True)]
            reason = "length" if sample.finish_reason == "length" else "stop"
            yield Completion(prompt.id, number, sample.text, ids, logprobs, reason, prompt_ids)


def build_vllm_engine(profile: Profile, checkpoint: Path | None = None) -> VllmEngine:
    """The engine on a profile's base model or an arm's checkpoint.

    Raises UserError where vLLM is not installed or does not start.
    """
    try:
        from vllm import LLM
    except ImportError as error:
        raise UserError(
            f"engine.kind is vllm, but vLLM does not load ({error}); "
            "install requirements/gpu.txt or set engine.kind transformers."
        ) from None
    from medvlt_lib.models.loading import is_adapter, profile_processor

    try:
        engine = VllmEngine(LLM(**engine_keywords(profile, checkpoint)), profile_processor(profile))
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"vLLM does not start ({first_line(error)}); lower engine.gpu_memory, or set engine.kind transformers."
        ) from error
    if checkpoint is not None and is_adapter(checkpoint):
        engine.swap(checkpoint)
    return engine
