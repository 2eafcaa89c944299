"""Forgetting, measured: a model's perplexity on plain English that has nothing to do with the questions.

The text, assets/studies/plain_language.txt, is ten short passages of everyday prose that were written for this library,
one a line. Each passage is read by itself, without chat layout, and its first token is not counted. Measured of models
that know English: the study `pretrained` asks for it (the look `language`), the studies of the tiny models do not.
What it does not show: how the model would write, or what became of any other ability.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.files import file_hash
from medvlt_lib.study.cells import STUDIES

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile

TEXT = STUDIES / "plain_language.txt"


def language_of(profile: Profile, checkpoint: Path | None, text: Path = TEXT) -> dict[str, Any]:
    """The perplexity of a profile's model, or of an arm's checkpoint of it, on the passages of a text, one a line:
    exp of the mean negative log-likelihood of their tokens, with the number of those and the hash of the text."""
    import torch
    from peft import PeftModel

    from medvlt_lib.models.loading import load_policy, profile_processor
    from medvlt_lib.models.supervised import summed_loss

    model, tokenizer = load_policy(profile, checkpoint).eval(), profile_processor(profile).tokenizer
    bare: Any = model.get_base_model() if isinstance(model, PeftModel) else model  # with its adapter in place
    total, count = 0.0, 0
    with torch.inference_mode():
        for passage in text.read_text(encoding="utf-8").splitlines():
            ids = tokenizer(passage, return_tensors="pt").input_ids.to(bare.device)  # (1, T)
            total += float(summed_loss(bare, {"input_ids": ids}, ids))
            count += ids.shape[1] - 1
    return {"perplexity": math.exp(total / count), "tokens": count, "text": file_hash(text)[:16]}
