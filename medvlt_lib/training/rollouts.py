"""How TRL's GRPO trainer samples: each group once from its prompt, with our engine; and the samples that are kept."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, read_jsonl, write_jsonl
from medvlt_lib.rollout.engine import Engine, Prompt, Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SIZE = 180  # pixels along the longer side of a picture that is kept with a sample


def rollout_with(engine: Engine, sampling: Sampling, max_prompt_length: int) -> Callable[[list, Any], dict[str, list]]:
    """A TRL rollout function. TRL repeats every prompt G = sampling.n times in a row; each group is sampled once.

    Raises UserError for too long a prompt.
    """

    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        step, training = trainer.state.global_step, trainer.model.training
        group = sampling.n if training else trainer.num_generations_eval
        for place, messages in enumerate(prompts):
            assert messages == prompts[place - place % group], "TRL no longer hands over a prompt's copies in a row"
        # A random stream is named by the step, the sampling within it and the place in the batch of all processes, so
        # that neither the number of processes nor a restart changes an answer.
        sampling_round, first = getattr(trainer, "round", 0), trainer.accelerator.process_index * len(prompts) // group
        distinct = [
            Prompt(f"{step}:{sampling_round}:{first + number}", messages, _images(messages))
            for number, messages in enumerate(prompts[::group])
        ]
        trainer.model.eval()
        completions = list(engine.generate(distinct, replace(sampling, n=group)))
        trainer.model.train(training)
        asked, answered = [p.id for p in distinct for _ in range(group)], [c.question_id for c in completions]
        assert answered == asked, "the engine's completions are not in the order of the prompts"
        longest = max(len(c.prompt_ids) for c in completions)
        if longest > max_prompt_length:
            raise UserError(
                f"a prompt is {longest} tokens long, grpo.max_prompt_length is {max_prompt_length}; "
                "raise it, or lower model.max_pixels."
            )
        return {
            "prompt_ids": [c.prompt_ids for c in completions],
            "completion_ids": [c.token_ids for c in completions],
            "logprobs": [c.logprobs for c in completions],
        }

    return rollout


def _images(messages: list[dict]) -> list:
    return [
        part["image"]
        for turn in messages
        if isinstance(turn["content"], list)
        for part in turn["content"]
        if part["type"] == "image"
    ]


def write_sample(folder: Path, step: int, prompt: list[dict], sample: dict[str, Any]) -> None:
    """Keep one group of a step as a file of `folder`: its prompt's text, its pictures as small JPEGs in base64, and
    what `sample` holds of its completions."""
    content = prompt[-1]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    row = {"step": step, "prompt": text, "pictures": [_small_jpeg(image) for image in _images(prompt)], **sample}
    write_jsonl(folder / f"{step:06d}.json", [row])


def _small_jpeg(image: Image) -> str:
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    small.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def latest_sample(folder: Path) -> dict[str, Any] | None:
    """The group that was kept last while an arm trains into `folder`; None where there is none yet."""
    files = _sample_files(folder)
    return read_json(files[-1]) if files else None


def gather_samples(folder: Path) -> None:
    """One samples.jsonl from the files of the single steps; a kill in the middle of this loses nothing."""
    kept = folder / "samples.jsonl"
    rows = [*(read_jsonl(kept) if kept.exists() else ()), *map(read_json, _sample_files(folder))]
    by_step = {row["step"]: row for row in rows}
    write_jsonl(kept, [by_step[step] for step in sorted(by_step)])
    shutil.rmtree(folder / "samples", ignore_errors=True)


def _sample_files(folder: Path) -> list[Path]:
    """The whole files of single steps, in order; what begins with a dot is being written, or was when a kill came."""
    return sorted((folder / "samples").glob("[0-9]*.json"))
