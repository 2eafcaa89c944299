"""What controls say of an arm: each against the questions as they stand, against guessing, and in words. No torch.

How the questions are changed stands in medvlt_lib.core.variants, who asks them in medvlt_lib.stages.controls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from medvlt_lib.core.records import Question
from medvlt_lib.core.results import percent_span
from medvlt_lib.core.sampled import order_p
from medvlt_lib.core.stats import macro, macro_interval, paired_p
from medvlt_lib.core.tables import percent

AS_ASKED = "as asked"
NO_PICTURE, GREY, OTHER = "no picture", "grey picture", "another's picture"
REORDERED, NO_THINKING, SHORT = "options reordered", "no thinking", "short budget"
CONTROLS = (NO_PICTURE, GREY, OTHER, REORDERED, NO_THINKING, SHORT)


def compared(questions: Sequence[Question], as_asked: Sequence[dict], answers: Sequence[dict]) -> list[dict]:
    """The rows of controls.json: the questions as they stand, then each control against them, on the same questions.

    `as_asked`: rows of 05_eval, of which the first answer to each question counts. `chance`: what guessing gives.
    """
    by_id, plain = {q.id: q for q in questions}, {r["id"]: r for r in as_asked if r["sample"] == 0}
    rows: dict[str, list[dict]] = {AS_ASKED: [], **{name: [] for name in CONTROLS}}
    for question in questions:
        own = plain[question.id]
        rows[AS_ASKED].append({**own, "question": question.id, "named": question.options.get(own["letter"])})
    for answer in answers:
        rows[answer["control"]].append(answer)
    found = []
    for name, own in rows.items():
        if own:
            before = None if name == AS_ASKED else [plain[row["question"]] for row in own]
            found.append(_row(name, own, [by_id[row["question"]] for row in own], before))
    return found


def _row(name: str, rows: list[dict], questions: list[Question], before: list[dict] | None) -> dict[str, Any]:
    right = np.array([row["correct"] for row in rows], float)
    strata, clusters = [q.group for q in questions], [q.cluster for q in questions]
    chance = np.array([1 / len(q.options) for q in questions])
    low, high, kind = macro_interval(right, strata, clusters)
    row: dict[str, Any] = {
        "control": name,
        "questions": len(rows),
        "macro": macro(right, strata),
        "interval": (low, high),
        "interval_kind": kind,
        "chance": macro(chance, strata),
        "chance_p": paired_p(right - chance, strata, clusters),
        "no_answer": float(np.mean([r["letter"] is None for r in rows])),
        "truncated": float(np.mean([r["truncated"] for r in rows])),
        "mean_tokens": float(np.mean([r["tokens"] for r in rows])),
    }
    if before is not None:
        change = right - np.array([b["correct"] for b in before], float)
        row["change"] = macro(change, strata)
        row["change_interval"] = macro_interval(change, strata, clusters, bounds=(-1, 1))[:2]
    if name == REORDERED and before is not None:
        row |= _followed(rows, questions, before)
    if name == OTHER:
        shown = [r["named"] == r["shown"] for r in rows if r["shown"] is not None]
        row |= {"other_shown": len(shown), "other_named": float(np.mean(shown)) if shown else None}
    row["explanation"] = explanation(row, rows) if row["chance_p"] < 0.05 and row["macro"] < row["chance"] else None
    return row


def _followed(rows: list[dict], questions: list[Question], before: list[dict]) -> dict[str, float | None]:
    """Of the questions answered in both orders: how often the same text was named, and how often the same letter; and
    how probable it is that the published order does so much better by chance (`order_p`)."""
    both = [
        (q.options[b["letter"]] == r["named"], b["letter"] == r["letter"])
        for r, q, b in zip(rows, questions, before, strict=True)
        if b["letter"] in q.options and r["named"] is not None
    ]
    text, letter = np.mean(both, axis=0).tolist() if both else (None, None)
    scores = [(b["correct"], r["correct"]) for b, r in zip(before, rows, strict=True)]
    return {"same_text": text, "same_letter": letter, "order_p": order_p(scores)}


def explanation(row: dict[str, Any], rows: list[dict]) -> str:
    """Why an accuracy lies below chance by more than chance explains, in words, from the answers themselves."""
    answered = [r for r in rows if r["letter"] is not None]
    of_answered = sum(r["correct"] for r in answered) / len(answered) if answered else 0.0
    if row["no_answer"] and (of_answered >= row["chance"] or not answered):
        cut = f" ({percent(row['truncated'], 0)} % were cut off)" if row["truncated"] else ""
        return (
            f"{percent(row['no_answer'], 0)} % gave no answer{cut}, which counts as wrong; of the answers that were "
            f"given {percent(of_answered, 0)} % are right"
        )
    if row.get("other_named") is not None and row["other_named"] > row["chance"]:
        return (
            f"it looks: of {row['other_shown']} questions whose options hold what the other picture shows, it names "
            f"that in {percent(row['other_named'], 0)} %, which is wrong for the question"
        )
    favourites = defaultdict(Counter)
    for r in answered:
        favourites[r["dataset"]][r["named"]] += 1
    group, (text, times) = max(
        ((g, counts.most_common(1)[0]) for g, counts in favourites.items()), key=lambda found: found[1][1]
    )
    of_group = sum(favourites[group].values())
    silent = f"{percent(row['no_answer'], 0)} % gave no answer, and " if row["no_answer"] else ""
    return (
        f"{silent}its answers have a habit that is seldom right here: {times} of {of_group} times '{text}' in {group}"
    )


def table(rows: Sequence[dict]) -> list[tuple[str, ...]]:
    """One arm's controls as text cells, header first; accuracies in percent, differences in points."""
    head = ("macro accuracy, %", "95 % interval", "chance", "change", "95 % paired", "no answer, %", "cut off, %")
    cells: list[tuple[str, ...]] = [("asked", *head)]
    for row in rows:
        change, span = "", ""
        if "change" in row:
            change = f"{100 * row['change']:+.1f}"
            span = " to ".join(f"{100 * end:+.1f}" for end in row["change_interval"])
        cells.append((
            row["control"], percent(row["macro"]), percent_span(row["interval"]), percent(row["chance"]), change, span,
            percent(row["no_answer"]), percent(row["truncated"]),
        ))  # fmt: skip
    return cells


def notes(rows: Sequence[dict]) -> str:
    """What stands below: how many questions, what follows moved options, and what explains accuracy below chance."""
    said = [f"{rows[0]['questions']} image questions, each asked as it stands and in every other way"]
    for row in rows:
        if row.get("same_text") is not None:
            said.append(
                f"with the options reordered {percent(row['same_text'], 0)} % of the answers name the same text and "
                f"{percent(row['same_letter'], 0)} % the same letter (order as published no better: "
                f"p = {row['order_p']:.2f})"
            )
        if row["explanation"]:
            said.append(f"{row['control']} lies below chance: {row['explanation']}")
    return "; ".join(said)
