"""The data card of a run: what each set holds, where it came from, what cleaning dropped and changed, what leaks, and
samples to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlt_lib.core.files import atomic_write, write_json
from medvlt_lib.core.images import CHANGES
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.core.records import Question
from medvlt_lib.core.runs import Run
from medvlt_lib.core.tables import markdown_table
from medvlt_lib.data.pictures import LONGEST, SHORTEST, SIZE
from medvlt_lib.data.published import SOURCES

if TYPE_CHECKING:
    from transformers import ProcessorMixin

NOTICE = "Research and teaching material, not for clinical use."
SAMPLES = 6  # questions on the sheet, of each of the training and test sets
TOKEN_SAMPLE = 2000  # questions a set whose prompts are counted in tokens
PICTURE_CHANGES = {
    **CHANGES,
    SIZE: f"a picture whose shortest side is below {SHORTEST} pixels grows to that, and a training picture whose "
    f"longest side is above {LONGEST} shrinks to that",
}
SPREADS = {
    "longest_side_pixels": "longest side, pixels",
    "image_tokens": "tokens an image",
    "prompt_tokens": "tokens a prompt, text",
}


class Description:
    """Counts of one set, taken question by question, so that the set is never held."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter] = {
            name: Counter() for name in ("modality", "datasets", "options", "gold_letters", "licences")
        }
        self.flags: Counter = Counter()
        self.sizes: dict[str, tuple[int, int]] = {}  # width and height of every different picture, by its pixel id
        self.changes: Counter = Counter()  # of those pictures
        self.prompts: list[Question] = []
        self.samples: list[Question] = []

    def add(self, question: Question, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Count one question; `sizes` holds width and height of its pictures by pixel id."""
        self.counts["modality"][question.modality] += 1
        self.counts["datasets"][question.group] += 1
        self.counts["options"][len(question.options)] += 1
        self.counts["gold_letters"][question.answer_label] += 1
        self.counts["licences"][question.source.get("licence") or "not stated"] += 1
        self.flags["questions"] += 1
        self.flags["with_reasoning"] += question.reasoning is not None
        self.flags["noisy_labels"] += bool(question.noise and question.noise["label"])
        self.flags["noisy_traces"] += bool(question.noise and question.noise["trace"])
        changes = question.extra.get("picture_changes") or [[]] * len(question.images)
        for pixel_id, changed in zip(question.image_ids, changes, strict=True):
            if pixel_id not in self.sizes:
                self.sizes[pixel_id] = sizes[pixel_id]
                self.changes.update(changed)
        if len(self.prompts) < TOKEN_SAMPLE:
            self.prompts.append(Question(**{**vars(question), "modality": "text", "images": [], "image_ids": []}))
        shown = {sample.group for sample in self.samples}
        if len(self.samples) < SAMPLES and (question.group not in shown or self.flags["questions"] > 50):
            self.samples.append(question)

    def card(self, style: str, processor: ProcessorMixin | None) -> dict[str, Any]:
        """Everything as one dictionary; token counts are null where there is no processor."""
        from medvlt_lib.models.processor import image_tokens

        prompts = [prompt_text(question, style) for question in self.prompts]
        return {
            "questions": self.flags["questions"],
            **{name: dict(sorted(c.items(), key=lambda kv: str(kv[0]))) for name, c in self.counts.items()},
            "images": len(self.sizes),
            "pictures_changed": dict(self.changes),
            **{name: self.flags[name] for name in ("with_reasoning", "noisy_labels", "noisy_traces")},
            "longest_side_pixels": _spread([max(size) for size in self.sizes.values()]),
            "image_tokens": _spread([image_tokens(processor, *s) for s in self.sizes.values()] if processor else []),
            "prompt_tokens": _spread([len(processor.tokenizer.encode(p)) for p in prompts] if processor else []),
        }


def _spread(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {"p5": float(low), "median": float(middle), "p95": float(high), "max": float(max(values))}


def write_card(folder: Path, run_: Run, sets: dict, leaks: list[dict], dropped: bool) -> None:
    """Writes data_card.json, data_card.md and samples.png to 01_data."""
    from medvlt_lib.core.plots import gallery

    processor, why_not = _processor(run_)
    style = run_.profile.model.prompt_style
    card: dict[str, Any] = {name: written.description.card(style, processor) for name, written in sets.items()}
    card["sources"] = {
        name: {tally.name: {**tally.card(), "published": _published(tally.name)} for tally in written.tallies}
        for name, written in sets.items()
        if written.tallies
    }
    card["leakage"] = {"pairs": leaks, "dropped_from_training": dropped}
    card["tokens_note"] = why_not
    shown = [q for n in ("train_text", "train_image", "test") if n in sets for q in sets[n].description.samples[:4]]
    atomic_write(folder / "samples.png", lambda temporary: gallery(shown, 4).savefig(temporary, format="png", dpi=80))
    text = _markdown(card, list(sets), run_)
    atomic_write(folder / "data_card.md", lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
    write_json(folder / "data_card.json", card)


def _published(name: str) -> dict[str, int]:
    return SOURCES[name].rows if name in SOURCES else {}


def _processor(run_: Run):
    """(the model's processor or None, why there is none): data can be gathered where the model cannot be reached."""
    from medvlt_lib.models.loading import profile_processor

    try:
        return profile_processor(run_.profile), None
    except Exception as error:  # whatever stops it is not this stage's business
        return None, f"tokens were not counted: {run_.profile.model.name} cannot be loaded ({type(error).__name__})"


def _markdown(card: dict, sets: list[str], run_: Run) -> str:
    parts = [
        f"# Data card: run {run_.folder.name}, profile {run_.profile.profile}",
        f"**{NOTICE}**",
        markdown_table(overview_rows(card, sets)),
        *([f"{card['tokens_note']}."] if card["tokens_note"] else []),
        _picture_rules(card, sets),
        *_cleaning(card["sources"]),
        "## Leakage",
        *leakage_paragraphs(card["leakage"]),
        "## Samples",
        "![Sample questions](samples.png)",
    ]
    return "\n\n".join(parts) + "\n"


def overview_rows(card: dict, sets: list[str]) -> list[list]:
    """What each set holds, as rows of a table, its head first."""
    rows = [["", *sets]]
    for key in ("questions", "images", "with_reasoning", "noisy_labels", "noisy_traces"):
        rows.append([key.replace("_", " "), *(card[name][key] for name in sets)])
    for key in ("modality", "datasets", "options", "gold_letters", "licences", "pictures_changed"):
        rows.append([key.replace("_", " "), *(_counts(card[name][key]) for name in sets)])
    for key, label in SPREADS.items():
        rows.append([f"{label}: median (5 to 95 %)", *(_spread_text(card[name][key]) for name in sets)])
    return rows


def _counts(counts: dict) -> str:
    return ", ".join(f"{key}: {count}" for key, count in counts.items())


def _spread_text(spread: dict[str, float] | None) -> str:
    if spread is None:
        return ""
    return f"{spread['median']:.0f} ({spread['p5']:.0f} to {spread['p95']:.0f}, at most {spread['max']:.0f})"


def _picture_rules(card: dict, sets: list[str]) -> str:
    """What was done to the pictures that were changed, in words."""
    changed = Counter()
    for name in sets:
        changed.update(card[name]["pictures_changed"])
    if not changed:
        return "Every picture is used as it came."
    rules = [f"- {change}, {count} pictures: {PICTURE_CHANGES[change]}" for change, count in changed.items()]
    return "\n".join(["Pictures are 8-bit RGB. What was changed:", "", *rules])


def _cleaning(sources: dict) -> list[str]:
    rows = [["set", "source", "revision", "read", "kept", "dropped, by column", "changed", "published counts"]]
    examples = []
    for name, tallies in sources.items():
        for source, tally in tallies.items():
            counts = [_counts(tally[key]) for key in ("dropped", "changed", "published")]
            rows.append([name, source, tally["revision"], tally["read"], tally["kept"], *counts])
            examples += [f"- {source}, column {column}: {row}" for column, row in tally["examples"].items()]
    if len(rows) == 1:
        return []
    first = ["First dropped row of each kind:", "\n".join(examples)] if examples else []
    return ["## Sources and cleaning", markdown_table(rows), *first]


def leakage_paragraphs(leakage: dict) -> list[str]:
    """Which training questions equal validation or test questions: a sentence and a table, for a card."""
    return [leakage_sentence(leakage), markdown_table(leakage_rows(leakage))]


def leakage_rows(leakage: dict) -> list[list]:
    """The counts of `leakage_paragraphs`, as rows of a table, its head first."""
    return [[key.replace("_", " ") for key in leakage["pairs"][0]], *(list(row.values()) for row in leakage["pairs"])]


def leakage_sentence(leakage: dict) -> str:
    """What the counts of `leakage_rows` are, and whether such questions were dropped."""
    done = "were dropped from training" if leakage["dropped_from_training"] else "were left in"
    setting = str(leakage["dropped_from_training"]).lower()
    return (
        "Training questions that equal a validation or a test question; ids in leaks.jsonl. "
        f"They {done} (data.drop_leaks is {setting})."
    )
