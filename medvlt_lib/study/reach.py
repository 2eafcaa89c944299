"""Pass counts of several arms on the same questions: what pass@k and the comparison of before and after are drawn from.

They come from a run whose test questions were answered several times, or from the study `diversity`. No torch here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from medvlt_lib.core.records import Question
from medvlt_lib.core.stats import chance_at_k, pass_at_k
from medvlt_lib.phantom.questions import FAMILIES, OPTION_COUNTS
from medvlt_lib.study.cells import study
from medvlt_lib.study.findings import by_label, families_of
from medvlt_lib.study.results import SHIPPED, answers_of

KINDS = ("text", "image")


@dataclass(frozen=True)
class Reach:
    """`counts`: by kind of question and arm, the right ones of `samples` answers to each question by its id. `options`:
    by kind, the numbers of options of the questions, for what guessing gives. `source`: where they are from."""

    source: str
    samples: int
    counts: dict[str, dict[str, dict[str, int]]]
    options: dict[str, list[int]]

    def pass_at(self, kind: str, arm: str, k: int) -> float:
        """The mean of pass@k over questions."""
        return fmean(pass_at_k(count, self.samples, k) for count in self.counts[kind][arm].values())

    def chance_at(self, kind: str, k: int) -> float:
        """What guessing gives."""
        return fmean(chance_at_k(self.options[kind], k))


def of_run(answers: dict[str, Sequence[dict]], test: Iterable[Question]) -> Reach | None:
    """Of a run, from rows of answers.parquet by arm; None where each question was answered once."""
    samples = 1 + max(row["sample"] for rows in answers.values() for row in rows)
    if samples == 1:
        return None
    questions = {q.id: q for q in test}
    kinds = [kind for kind in KINDS if any(q.modality == kind for q in questions.values())]
    counts = {
        kind: {arm: _counted(row for row in rows if row["modality"] == kind) for arm, rows in answers.items()}
        for kind in kinds
    }
    options = {kind: [len(q.options) for q in questions.values() if q.modality == kind] for kind in kinds}
    return Reach(f"this run, {samples} answers a test question", samples, counts, options)


def of_study(folder: Path = SHIPPED) -> Reach | None:
    """Of the arms of `diversity` whose runs are in the folder, over all seeds and the families that were trained on;
    None where there are none."""
    counts: dict[str, dict[str, dict[str, int]]] = {kind: {} for kind in KINDS}
    samples, seeds, results = 1, set(), by_label(folder)
    for label in study("diversity")["arms"]:
        for seed, result in results.get(label, {}).items():
            rows = [row for row in answers_of(folder, result) if row["look"] == "sampled"]
            for kind in KINDS if rows else ():
                own = [row for row in rows if row["dataset"] in families_of(f"{kind}.trained")]
                counts[kind].setdefault(label, {}).update(_counted(own))
                samples = max(samples, *(1 + row["sample"] for row in own))
                seeds.add(seed)
    if not seeds:
        return None
    options = {kind: _options(families_of(f"{kind}.trained")) for kind in KINDS}
    return Reach(f"study diversity, {len(seeds)} seeds, {samples} answers a question", samples, counts, options)


def _counted(rows: Iterable[dict]) -> dict[str, int]:
    counted: dict[str, int] = defaultdict(int)
    for row in rows:
        counted[row["id"]] += bool(row["correct"])
    return dict(counted)


def _options(families: Sequence[str]) -> list[int]:
    """Numbers of options in the shares in which these families' questions have them."""
    return [
        min(number, len(FAMILIES[family].values))
        for family in families
        for number, weight in OPTION_COUNTS.items()
        for _ in range(weight)
    ]
