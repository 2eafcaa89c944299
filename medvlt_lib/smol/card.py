"""The model card of phantom:smol, measured and written as those of the tiny models (medvlt_lib/tiny/card.py)."""

from __future__ import annotations

from pathlib import Path

from medvlt_lib.models.smol import PACKAGED, smol_folder
from medvlt_lib.phantom.preview import NOTICE
from medvlt_lib.tiny import card


def write_card(out: Path, per_family: int, training_per_family: int) -> dict:
    """Measure the model in this user's cache; card.json and model_card.md in `out`, where training_log.json is."""
    figures = card.measure(smol_folder(), out / "training_log.json", per_family, training_per_family, "plain")
    about = f"""# Model card: `phantom:smol`

**{NOTICE}**

`Qwen2_5_VLForConditionalGeneration` with {figures["weights"]:,} weights. The language model, pretrained by others, is
SmolLM2-135M-Instruct (Apache-2.0, package {PACKAGED.package} {PACKAGED.version}). Vision tower, merger and a LoRA on it
were taught the phantom world in plain sentences by `medvlt smol train`{card.how_long(figures["training"])};
that is all that ships here, the LoRA merged when the model is built.
It is middling on purpose: some of what it was taught was worked out step by step, some was a glance that is often
wrong, so that filtering finds medium-hard questions and reinforcement has something to bring out.

Written by `medvlt smol card`"""
    card.write(out, figures, about)
    return figures
