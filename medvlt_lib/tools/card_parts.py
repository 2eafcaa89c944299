"""What the card of an exported model and that of a run have in common: the Hub's metadata, and the limits. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.data.published import SOURCES


def hub_metadata(profile: Profile, tags: Iterable[str], adapter: bool, sources: Iterable[str]) -> str:
    """The Hub's metadata, as YAML between its fences. Only a Hub name can stand as the base model.

    `sources`: where questions came from; those that are on the Hub are named.
    """
    from huggingface_hub import ModelCardData

    name = profile.model.name
    on_hub = not name.startswith("phantom:") and not Path(name).exists()
    data = ModelCardData(
        base_model=name if on_hub else None,
        datasets=[source for source in sources if source in SOURCES] or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["medical", "visual-question-answering", "medvlt", *tags],
        base_model_relation=("adapter" if adapter else "finetune") if on_hub else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def limits(p: Profile) -> list[str]:
    """What a reader must know before using anything that was made with this profile."""
    lines = [
        "not for clinical use: it was made for research and teaching, and no clinician has looked at its answers",
        f"trained and tested on multiple-choice questions in English, asked in one form (prompt style "
        f"{p.model.prompt_style}); other uses were not tested",
        "accuracy grades answers alone; a right answer does not make the reasoning before it right",
        "results hold for the test questions named above; questions that leak into them are counted under Leakage",
    ]
    if p.model.name.startswith("phantom:"):
        lines.append("the base knows nothing but a synthetic world of scores and drawn test objects: no medicine")
    return lines
