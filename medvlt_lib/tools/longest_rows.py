"""The longest rows that a profile allows: a question that fills its limit, with one picture of the largest size."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from medvlt_lib.core.images import png
from medvlt_lib.core.prompts import messages, target
from medvlt_lib.core.records import Question
from medvlt_lib.models.loading import shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.models.supervised import END, chat_prompt

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile

WORD = " the"  # one token, of which texts are made
LONGEST_SIDE = 1024  # pixels, of a picture in the published sets


def stand_in_processor(profile: Profile) -> Any:
    """The shipped models' processor, which lays out pictures as Qwen's does, with a profile's pixel limits."""
    processor = load_processor(shipped("base"))
    published = None if profile.model.name.startswith("phantom:") else LONGEST_SIDE**2
    limits = {"shortest_edge": profile.model.min_pixels, "longest_edge": profile.model.max_pixels or published}
    for key, value in limits.items():
        if value is not None:
            processor.image_processor.size[key] = value
    return processor


def longest_question(processor: Any, style: str, length: int, answer: str | None = None) -> Question:
    """A question with a picture, `length` tokens long as a prompt, or together with its answer in the style `answer`.
    The words that make it so long are its reasoning, where the answer has any, or the question's.

    It is longer only where picture and instruction alone are.
    """
    short = _question(_largest_picture(processor), style)
    own = _tokens(processor, short, style, answer)
    words = WORD * max(0, length - own)
    if answer not in (None, "no-think"):
        short.reasoning = f"{short.reasoning}{words}"
    else:
        short.question = f"{short.question}{words}"
    return short


def _question(picture: bytes, style: str) -> Question:
    options = {"A": "the", "B": "the the"}
    return Question(
        "longest", "plan", "train", "image", "the", options, "A", "the", images=[picture], reasoning="the the"
    )


def _tokens(processor: Any, question: Question, style: str, answer: str | None) -> int:
    return _encoded(processor, question, style, answer)["input_ids"].shape[1]


def _encoded(processor: Any, question: Question, style: str, answer: str | None = None) -> dict[str, torch.Tensor]:
    text = chat_prompt(processor, messages(question, style))
    if answer is not None:
        text += target(question.reasoning or "", question.answer_label, answer) + END
    picture = Image.open(io.BytesIO(question.images[0]))
    return processor(text=[text], images=[picture], return_tensors="pt")


def _largest_picture(processor: Any) -> bytes:
    """A blank picture that becomes as many tokens as the pixel limit allows."""
    images = processor.image_processor
    side = images.patch_size * images.merge_size
    most = images.size["longest_edge"] // side**2
    rows = max(range(max(1, math.isqrt(most) // 2), math.isqrt(most) + 1), key=lambda n: most // n * n)
    return png(Image.new("RGB", (most // rows * side, rows * side)))


def completions_batch(profile: Profile, processor: Any) -> dict[str, Any]:
    """A micro-batch of GRPO as TRL hands it to the loss: whole groups, or a part of one, all of the largest size."""
    g = profile.grpo
    question = longest_question(processor, profile.model.prompt_style, g.max_prompt_length)
    one = _encoded(processor, question, profile.model.prompt_style)
    rows, longest = g.micro_batch, g.max_completion_length
    word = processor.tokenizer(WORD).input_ids[-1]
    pixels, patches = one["pixel_values"], len(one["pixel_values"])
    copies = torch.zeros(rows * patches, pixels.shape[1])  # (rows * patches, width): TRL has a copy for every row
    for row in range(rows):
        copies[row * patches, 0] = row // g.group_size + 1  # another picture for every group
    random = torch.Generator().manual_seed(0)
    completions = torch.full((rows, longest), word)
    image = (one["input_ids"] == processor.image_token_id).long()
    return {
        "prompt_ids": one["input_ids"].repeat(rows, 1),
        "prompt_mask": one["attention_mask"].repeat(rows, 1),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.randn(rows, generator=random),
        "old_per_token_logps": torch.zeros(rows, longest),
        "ref_per_token_logps": torch.zeros(rows, longest),
        "num_items_in_batch": torch.tensor(rows * longest),
        "pixel_values": copies,
        "image_grid_thw": one["image_grid_thw"].repeat(rows, 1),
        "num_images": [1] * rows,
        "mm_token_type_ids": torch.cat([image.repeat(rows, 1), torch.zeros_like(completions)], dim=1),
    }
