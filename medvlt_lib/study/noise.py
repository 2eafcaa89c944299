"""The study `noise`: what wrong labels cost, by the share of them, their kind, and the method that meets them. No torch
here."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from medvlt_lib.study.findings import by_label, families_of
from medvlt_lib.study.measures import accuracies
from medvlt_lib.study.results import SHIPPED

METHODS = {"RL on pictures": "rl_image", "SFT on pictures": "sft_image"}
NOISES = {"random": "wrong labels at random", "systematic": "always the same mistake"}
SHARES = (0, 20, 40, 60)  # percent of the training labels
GROUPS = {
    "pictures, trained on": "image.trained",
    "pictures, not trained on": "image.other",
    "questions in words": "text",
}
Points = dict[tuple[str, str], dict[int, list[float]]]


def noise_points(group: str, folder: Path = SHIPPED) -> tuple[Points, dict[str, float]]:
    """(by method and kind of noise, for each share of wrong labels that was run: an accuracy for each seed; the mean
    accuracy of base and rl_text, which saw no wrong label). `group`: one of the values of GROUPS."""
    results, families = by_label(folder), families_of(group)

    def of(label: str) -> list[float]:
        return accuracies(folder, results.get(label, {}).values(), families)

    points: Points = {}
    for method in METHODS.values():
        for kind in NOISES:
            labels = {share: f"{method}.{kind}{share}" if share else method for share in SHARES}
            points[method, kind] = {share: own for share, label in labels.items() if (own := of(label))}
    return points, {label: fmean(own) for label in ("base", "rl_text") if (own := of(label))}


def reading(points: Points, method: str, kind: str, share: int, group: str) -> str:
    """What one position of the dials means, in a sentence; method, kind and group by their names in this module.
    `points`: of that group, by `noise_points`."""
    own, name = points[METHODS[method], kind], f"{method}, {share} % {NOISES[kind]}"
    if share not in own:
        return f"{name}: not run (medvlt study noise)."
    said = f"{name}: {100 * fmean(own[share]):.1f} % right on {group} ({_seeds(own[share])})"
    if share == 0 or 0 not in own:
        return f"{said}."
    lost = 100 * (fmean(own[0]) - fmean(own[share]))
    return f"{said}; {abs(lost):.1f} points {'less' if lost > 0 else 'more'} than with clean labels."


def _seeds(values: list[float]) -> str:
    return f"mean of {len(values)} seeds" if len(values) > 1 else "one seed"
