"""Where torchvision loads: does plain AutoProcessor give the ids and pixels of the loader that does without it?

    python benchmarks/processor_parity.py

Needs a torch and torchvision that fit each other (a CPU build of torch cannot load the torchvision wheel).
"""

from __future__ import annotations

import numpy as np
import torch
import torchvision
import transformers
from PIL import Image
from transformers import AutoProcessor

from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages
from medvlt_lib.models.loading import shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.tiny.architecture import SIZES

print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, transformers {transformers.__version__}")
for size in SIZES:
    plain, ours = AutoProcessor.from_pretrained(shipped(size)), load_processor(shipped(size), without_torchvision=True)
    same, furthest = True, 0.0
    pictures = [(messages(q), load_image(q.images[0])) for q in make_questions("image", "test", 80)]
    for chat, picture in pictures:
        one, two = (
            p(
                text=[p.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)],
                images=[picture],
                return_tensors="pt",
            )
            for p in (plain, ours)
        )
        same &= torch.equal(one["input_ids"], two["input_ids"])
        furthest = max(furthest, (one["pixel_values"] - two["pixel_values"]).abs().max().item())
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 417, 3), dtype=np.uint8))
    one, two = (p.image_processor([noise], return_tensors="pt") for p in (plain, ours))
    resized = (one["pixel_values"] - two["pixel_values"]).abs().max().item()
    print(
        f"{size}: AutoProcessor gives {type(plain).__name__}; ids equal on {len(pictures)} questions: {same}; "
        f"largest pixel difference {furthest:.1e}; on one image that must be resized {resized:.1e}"
    )
