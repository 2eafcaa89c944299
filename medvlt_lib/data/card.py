"""The data card of a run: what each set holds, where it came from, what cleaning dropped, what leaks, and samples to look at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from medvlt_lib.core.files import atomic_write, write_json
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.core.records import Question
from medvlt_lib.core.runs import Run
from medvlt_lib.data.published import SOURCES

NOTICE = "Research and teaching material, not for clinical use."
SAMPLES = 6  # questions on the sheet, of each of the training and test sets
TOKEN_SAMPLE = 2000  # questions a set whose prompts are counted in tokens


class Description:
    """Counts of one set, taken question by question, so that the set is never held."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter] = {
            k: Counter() for k in ("modality", "datasets", "options", "gold_letters", "licences")
        }
        self.flags: Counter = Counter()
        self.images: set[str] = set()
        self.pixels: list[tuple[int, int]] = []
        self.prompts: list[Question] = []
        self.samples: list[Question] = []

    def add(self, question: Question, pictures: list) -> None:
        """Count one question; `pictures` are its images, unpacked."""
        values = (question.modality, question.family or question.dataset, len(question.options), question.answer_label,
                  question.source.get("licence") or "not stated")  # fmt: skip
        for counter, value in zip(self.counts.values(), values, strict=True):
            counter[value] += 1
        self.flags["questions"] += 1
        self.flags["with_reasoning"] += question.reasoning is not None
        self.flags["noisy_labels"] += bool(question.noise and question.noise["label"])
        self.flags["noisy_traces"] += bool(question.noise and question.noise["trace"])
        for name, picture in zip(question.image_ids, pictures, strict=True):
            if name not in self.images:
                self.images.add(name)
                self.pixels.append(picture.size)
        if len(self.prompts) < TOKEN_SAMPLE:
            self.prompts.append(Question(**{**vars(question), "modality": "text", "images": [], "image_ids": []}))
        seen = {q.family or q.dataset for q in self.samples}
        if len(self.samples) < SAMPLES and (values[1] not in seen or self.flags["questions"] > 50):
            self.samples.append(question)

    def card(self, style: str, tokenizer) -> dict[str, Any]:
        """Everything as one dictionary; token counts are null where there is no tokenizer."""
        sides = [max(size) for size in self.pixels]
        tokens = [len(tokenizer.encode(prompt_text(q, style))) for q in self.prompts] if tokenizer else []
        patches = [(w // 28) * (h // 28) for w, h in self.pixels]
        named = {k: dict(sorted(v.items(), key=lambda kv: str(kv[0]))) for k, v in self.counts.items()}
        return {
            "questions": self.flags["questions"],
            **named,
            "images": len(self.images),
            **{k: self.flags[k] for k in ("with_reasoning", "noisy_labels", "noisy_traces")},
            "longest_side_pixels": _spread(sides),
            "image_tokens_28px": _spread(patches),
            "prompt_tokens": _spread(tokens),
        }


def _spread(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {"p5": float(low), "median": float(middle), "p95": float(high), "max": float(max(values))}


def write_card(folder: Path, run_: Run, sets: dict, leaks: list[dict], dropped: bool) -> None:
    """Writes data_card.json, data_card.md and samples.png to 01_data."""
    from medvlt_lib.core.plots import gallery

    tokenizer, why = _tokenizer(run_)
    card: dict[str, Any] = {n: s.description.card(run_.profile.model.prompt_style, tokenizer) for n, s in sets.items()}
    card["sources"] = {
        n: {t.name: {**t.card(), "published": _published(t.name)} for t in s.tallies}
        for n, s in sets.items()
        if s.tallies
    }
    card["leakage"] = {"pairs": leaks, "dropped_from_training": dropped}
    card["prompt_tokens_note"] = why
    shown = [q for n in ("train_text", "train_image", "test") if n in sets for q in sets[n].description.samples[:4]]
    atomic_write(folder / "samples.png", lambda temporary: gallery(shown, 4).savefig(temporary, format="png", dpi=80))
    text = _markdown(card, list(sets), run_)
    atomic_write(folder / "data_card.md", lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
    write_json(folder / "data_card.json", card)


def _published(name: str) -> dict[str, int]:
    return SOURCES[name].rows if name in SOURCES else {}


def _tokenizer(run_: Run):
    """(the model's tokenizer or None, why there is none): data can be gathered where the model cannot be reached."""
    from medvlt_lib.models.loading import profile_processor

    try:
        return profile_processor(run_.profile).tokenizer, None
    except Exception as error:  # whatever stops it is not this stage's business
        return (
            None,
            f"prompt tokens were not counted: {run_.profile.model.name} cannot be loaded here ({type(error).__name__})",
        )


def _markdown(card: dict, sets: list[str], run_: Run) -> str:
    def table(rows: list[list]) -> str:
        lines = ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

    spread = lambda v: (
        "" if v is None else f"{v['median']:.0f} ({v['p5']:.0f} to {v['p95']:.0f}, at most {v['max']:.0f})"
    )
    counts = lambda v: ", ".join(f"{k}: {n}" for k, n in v.items())  # noqa: E731
    plain = ("questions", "images", "with_reasoning", "noisy_labels", "noisy_traces")
    rows = [["", *sets]] + [[k.replace("_", " "), *(card[s][k] for s in sets)] for k in plain]
    rows += [
        [k.replace("_", " "), *(counts(card[s][k]) for s in sets)]
        for k in ("modality", "datasets", "options", "gold_letters", "licences")
    ]
    for key, label in (
        ("longest_side_pixels", "longest side, pixels"),
        ("image_tokens_28px", "tokens an image"),
        ("prompt_tokens", "tokens a prompt, text"),
    ):
        rows.append([f"{label}: median (5 to 95 %)", *(spread(card[s][key]) for s in sets)])
    parts = [f"# Data card: run {run_.folder.name}, profile {run_.profile.profile}", f"**{NOTICE}**", table(rows)]
    if card["prompt_tokens_note"]:
        parts.append(card["prompt_tokens_note"] + ".")
    cleaning = [["set", "source", "revision", "read", "kept", "dropped, by column", "changed", "published counts"]]
    for name, tallies in card["sources"].items():
        cleaning += [[name, t, c["revision"], c["read"], c["kept"], counts(c["dropped"]), counts(c["changed"]), counts(c["published"])]
                     for t, c in tallies.items()]  # fmt: skip
    if len(cleaning) > 1:
        examples = [
            f"- {t}, column {k}: {v}"
            for tallies in card["sources"].values()
            for t, c in tallies.items()
            for k, v in c["examples"].items()
        ]
        parts += [
            "## Sources and cleaning",
            table(cleaning),
            *(["First dropped row of each kind:", "\n".join(examples)] if examples else []),
        ]
    pairs = card["leakage"]["pairs"]
    header = list(pairs[0]) if pairs else []
    parts += ["## Leakage", "Training questions that equal a test question; ids in leaks.jsonl. "
              + ("They were dropped from training (data.drop_leaks)." if card["leakage"]["dropped_from_training"] else
                 "They were left in (data.drop_leaks is false)."),
              table([[h.replace("_", " ") for h in header], *([r[h] for h in header] for r in pairs)])]  # fmt: skip
    parts += ["## Samples", "![Sample questions](samples.png)"]
    return "\n\n".join(parts) + "\n"
