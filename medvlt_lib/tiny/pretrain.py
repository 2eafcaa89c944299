"""Pretraining a tiny model from scratch on the phantom world, to a middling level.

The steps are a tokenizer, sequences from the teacher, a plain training loop with checkpoints, and the model folder. The
model first learns to find a value among options, then to answer questions and to describe pictures. The last two are
mixed, because one after the other the model forgets.

The mixture is what the course works on. Some traces are worked out step by step. Others are a glance that names a value
without working and is often wrong. With few options the glance is the rule, with five the exception. So the finished
model can reason but often does not, and reinforcement can bring it out.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages, target
from medvlt_lib.core.records import LETTERS, Question
from medvlt_lib.phantom.questions import FAMILIES, OPTION_COUNTS, make_questions, trace
from medvlt_lib.tiny.architecture import build_tiny_processor, checked_size, tiny_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

STYLE_SHARES = {"medvlthinker": 0.76, "medvlm-r1": 0.12, "no-think": 0.12}
GLANCE_SHARES = {2: 0.7, 3: 0.7, 4: 0.7, 5: 0.25}  # by number of options
GLANCE_ERROR = 0.3  # share of glances that name a wrong option
PROMPT_WEIGHT = 0.2
DESCRIBE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe."}]}]


@dataclass(frozen=True)
class Cycle:
    """A stretch of training with its own mixture (rows a step) and its own cosine of the learning rate.

    Cosines that start again: SGDR, arXiv 1608.03983.
    """

    steps: int
    captions: int = 24  # pictures with a description: learning to see
    text_questions: int = 20
    image_questions: int = 20
    learning_rate: float = 1.5e-3
    horizon: int | None = None  # steps the cosine is laid out for, when the next cycle begins before its end
    text_families: str = "text"
    image_families: str = "image"


@dataclass(frozen=True)
class Recipe:
    """One pretraining run. In its first `lookup_steps` the model learns to name a letter, on short sequences."""

    cycles: tuple[Cycle, ...]
    lookup_steps: int = 200
    lookup_batch: int = 128
    warmup: int = 100
    save_every: int = 200
    seed: int = 0

    @property
    def steps(self) -> int:
        return sum(cycle.steps for cycle in self.cycles)

    def cycle_at(self, step: int) -> tuple[Cycle, int]:
        """The cycle a step belongs to, and the steps since it began."""
        for cycle in self.cycles:
            if step < cycle.steps:
                return cycle, step
            step -= cycle.steps
        return self.cycles[-1], self.cycles[-1].steps + step


RECIPES = {
    "small": Recipe((Cycle(1000),)),
    "base": Recipe(
        (
            Cycle(1200, horizon=2000),
            Cycle(800, captions=32, text_questions=16, learning_rate=1.2e-3, horizon=1400),
            Cycle(  # practise what lags
                200,
                captions=8,
                text_questions=36,
                learning_rate=5e-4,
                text_families="qsofa,anion_gap,shock_index",
                image_families="cardiothoracic_ratio,dark_nuclei",
            ),
        )
    ),
}


def lookup_question(rng: Random) -> Question:
    """`Find V.` among options of one family, which teaches to name a letter on the shortest sequences."""
    family = FAMILIES[rng.choice(list(FAMILIES))]
    values = [family.text(v) for v in family.values]
    count = min(rng.choices(list(OPTION_COUNTS), list(OPTION_COUNTS.values()))[0], len(values))
    options = dict(zip(LETTERS, rng.sample(values, count), strict=False))
    label = rng.choice(list(options))
    return Question(
        id="lookup",
        dataset="phantom",
        split="train",
        modality="text",
        question=f"Find {options[label]}.",
        options=options,
        answer_label=label,
        answer=options[label],
        reasoning=trace([f"find {options[label]}"], options, options[label]),
    )


def lesson(question: Question, rng: Random) -> tuple[str, str]:
    """(style, answer text) for one question: worked out, or at a glance; see the module's head."""
    style = rng.choices(list(STYLE_SHARES), list(STYLE_SHARES.values()))[0]
    reasoning, label = question.reasoning, question.answer_label
    if question.id != "lookup" and style != "no-think" and rng.random() < GLANCE_SHARES[len(question.options)]:
        if rng.random() < GLANCE_ERROR:
            label = rng.choice([k for k in question.options if k != label])
        guess = question.options[label]
        reasoning = trace([f"at a glance {guess}"], question.options, guess)
    return style, target(reasoning, label, style)


def captions(questions: list[Question]) -> list[tuple[Question, str]]:
    """One (question, description) a picture: the working of every question on it, one after the other."""
    pictures: dict[str, tuple[Question, list[str]]] = {}
    for question in questions:
        pictures.setdefault(question.image_ids[0], (question, []))[1].extend(question.extra["steps"])
    return [(question, ". ".join(steps) + ".") for question, steps in pictures.values()]


class Lessons:
    """Batches of lessons: token ids, weights and pixels. Batch k is the same however the run was interrupted."""

    def __init__(self, processor: ProcessorMixin, recipe: Recipe) -> None:
        self.processor, self.recipe = processor, recipe

    def batch(self, step: int) -> list[dict[str, torch.Tensor]]:
        """The step's rows as one or two parts of like length, so that little is padding."""
        recipe, rng = self.recipe, Random(f"lessons:{self.recipe.seed}:{step}")
        seed, (cycle, _) = 1_000_000 * (recipe.seed + 1) + step, recipe.cycle_at(step)
        described: list[tuple[Question, str]] = []
        if step < recipe.lookup_steps:
            questions = [lookup_question(rng) for _ in range(recipe.lookup_batch)]
        else:
            questions = make_questions(cycle.text_families, "train", cycle.text_questions, seed)
            questions += make_questions(cycle.image_families, "train", cycle.image_questions, seed)
            described = captions(make_questions("image", "train", 2 * cycle.captions, seed + 500_000))[: cycle.captions]
        rows = [(q, *lesson(q, rng)) for q in questions]
        parts = [
            self.collate(
                [self._prompt(messages(q, s)) for q, s, _ in rows],
                [a for _, _, a in rows],
                [q.images for q in questions],
            )
        ]
        if described:
            texts = [text for _, text in described]
            parts.append(self.collate([self._prompt(DESCRIBE)] * len(texts), texts, [q.images for q, _ in described]))
        return parts

    def _prompt(self, chat: list[dict]) -> str:
        return self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def collate(self, prompts: list[str], answers: list[str], images: list[list]) -> dict[str, torch.Tensor]:
        """Right-padded rows; `weights` (B, T) is 1 on the answer, PROMPT_WEIGHT on the prompt's text, 0 elsewhere."""
        tokenizer = self.processor.tokenizer
        pictures = [load_image(i) for row in images for i in row]
        pixels = self.processor.image_processor(pictures, return_tensors="pt") if pictures else {}
        pad, end, image = (tokenizer.convert_tokens_to_ids(t) for t in ("<|endoftext|>", "<|im_end|>", "<|image_pad|>"))
        rows, weights = [], []
        for prompt, answer, row_images in zip(prompts, answers, images, strict=True):
            # every phantom picture is 112 x 112: 64 patches, 16 tokens
            image_tokens = "<|image_pad|>" * 16 if row_images else ""
            prompt_ids = tokenizer(prompt.replace("<|image_pad|>", image_tokens)).input_ids
            answer_ids = [*tokenizer(answer).input_ids, end]
            rows.append(torch.tensor(prompt_ids + answer_ids))
            prompt_weights = [0.0 if i == image else PROMPT_WEIGHT for i in prompt_ids]
            weights.append(torch.tensor(prompt_weights + [1.0] * len(answer_ids)))
        ids = pad_sequence(rows, batch_first=True, padding_value=pad)  # (B, T)
        return {
            "input_ids": ids,
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            "mm_token_type_ids": (ids == image).long(),
            "weights": pad_sequence(weights, batch_first=True),
            **pixels,
        }


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy, summed by weight. logits (B, T, V), ids and weights (B, T)."""
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    return (loss * weights[:, 1:].flatten()).sum()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up at the start of the run; in every cycle a cosine down to a twentieth."""
    cycle, inside = recipe.cycle_at(step)
    if step < recipe.warmup:
        return cycle.learning_rate * (step + 1) / recipe.warmup
    warmed = recipe.warmup if cycle is recipe.cycles[0] else 0
    done = (inside - warmed) / max(1, (cycle.horizon or cycle.steps) - warmed)
    return cycle.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def pretrain(size: str, out: str | Path, recipe: Recipe | None = None) -> None:
    """Train a tiny model and write its folder; continues from `out`/training.pt when that is there."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    recipe = recipe or RECIPES[checked_size(size)]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    processor = build_tiny_processor()
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(size, processor.tokenizer))
    _embed_patches_by_matrix(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.05)
    step, log = _resume(out, recipe, model, optimizer)
    lessons = Lessons(processor, recipe)
    bar = tqdm(
        total=recipe.steps,
        initial=step,
        desc=f"pretraining {size} ({sum(p.numel() for p in model.parameters()):,} weights)",
    )
    started = time.monotonic() - (log[-1]["seconds"] if log else 0)
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        loss = train_step(model, optimizer, lessons.batch(step))
        step += 1
        bar.update()
        if step % 25 == 0:
            log.append({"step": step, "loss": round(loss, 4), "seconds": round(time.monotonic() - started, 1)})
            bar.set_postfix(loss=f"{loss:.3f}")
        if step % recipe.save_every == 0 and step < recipe.steps:
            _save(out, recipe, model, optimizer, step, log)
    save_folder(model, processor, out)
    (out / "training_log.json").write_text(json.dumps(log))
    (out / "training.pt").unlink(missing_ok=True)


def _embed_patches_by_matrix(model: PreTrainedModel) -> None:
    """The convolution that embeds patches is one matrix product, and on a CPU quicker as such."""
    patches = model.model.visual.patch_embed

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(pixels, patches.proj.weight.flatten(1))

    patches.forward = forward


def train_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, parts: list[dict[str, torch.Tensor]]) -> float:
    """One update on a batch in parts. Returns its loss, the mean over all tokens by weight."""
    bf16 = torch.cpu._is_amx_tile_supported()  # quicker only where the CPU multiplies it in tiles
    total = sum(part["weights"][:, 1:].sum() for part in parts)
    loss = 0.0
    optimizer.zero_grad(set_to_none=True)
    for part in parts:
        weights = part.pop("weights")
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            part_loss = weighted_loss(model(**part, use_cache=False).logits, part["input_ids"], weights) / total
        part_loss.backward()
        loss += part_loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def save_folder(model: PreTrainedModel, processor: ProcessorMixin, out: str | Path) -> None:
    """A folder that plain transformers loads: bf16 safetensors, tokenizer and processor."""
    model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)


def _save(
    out: Path, recipe: Recipe, model: PreTrainedModel, optimizer: torch.optim.Optimizer, step: int, log: list[dict]
) -> None:
    state = {
        "recipe": asdict(recipe),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "log": log,
    }
    atomic_write(out / "training.pt", lambda temporary: torch.save(state, temporary))


def _resume(
    out: Path, recipe: Recipe, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict]]:
    """Load `out`/training.pt where it is there. Returns the steps done and their log."""
    path = out / "training.pt"
    if not path.exists():
        return 0, []
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read; delete it to start again.") from error
    if state["recipe"] != asdict(recipe):
        raise UserError(f"{path} belongs to another recipe; delete it or choose another --out.")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["log"]
