"""Stage 02: let the base model answer every training question n times and keep the medium-hard ones.

The published probe (MedVLThinker, eval/estimate_pass_rate.sh): n = 16 at temperature 1, counted with the grade that
inference uses, kept when the pass count lies in a band, ordered easy to hard (order_easy_to_hard.py). Beside each kept
set stands a control set of the same size that was not filtered.
Beyond the paper: a Beta posterior of every pass rate, the expected share of groups without variance, and an adaptive
mode that stops asking once the band is decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from medvlt_lib.core.config import Filtering, Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.question_files import QuestionFiles, write_selection
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.runs import Run
from medvlt_lib.core.tables import percent
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.cluster import Work, write_on_cluster
from medvlt_lib.rollout.engine import Engine, Sampling, engine_version, prompts_of
from medvlt_lib.rollout.parts import missing, part_size, parts_of, rows_of, with_progress

PART = {"full": 32, "adaptive": 128}  # questions in a rollout file; asked two by two, more at once are quicker
STEP = 2  # samples between two decisions of the adaptive mode


@dataclass
class Count:
    """What became of one question: right answers of `samples`, and how many were cut or named no option."""

    passed: int = 0
    samples: int = 0
    truncated: int = 0
    no_answer: int = 0


def run(run_: Run, ray: str | None = None) -> dict:
    """Writes 02_filtering; returns counts of questions probed and kept.

    With `ray`, an address or local:N (medvlt_lib/rollout/cluster.py), the rollouts come from the engines of a cluster.
    Raises UserError for parts that are torn or of another provenance.
    """
    profile, f = run_.profile, run_.profile.filtering
    data = run_.require("01")
    sets = {kind: data / f"train_{kind}.parquet" for kind in ("text", "image")}
    settings = {**run_.settings("model", "engine", "filtering"), "model.weights": weights_id(profile)}
    band = ("filtering.keep_from", "filtering.keep_to")  # another band is another choice among the same rollouts
    free = () if f.mode == "adaptive" else band
    with run_.stage("02", settings, sets, free=free) as stage:
        if stage.finished:
            return stage.metrics
        # Step 1: roll out what is missing.
        questions = QuestionFiles(sets.values())
        parts = parts_of(stage.folder / "rollouts", questions, part_size(profile, PART[f.mode]), provenance(profile))
        title = f"{'up to ' if f.mode == 'adaptive' else ''}{f.samples} rollouts each"
        roll_out = adaptive_rollouts if f.mode == "adaptive" else full_rollouts
        if missing(parts) and ray:
            write_on_cluster(ray, parts, title, Work(roll_out, profile))
        elif missing(parts):
            engine = build_engine(profile)
            for part in with_progress(parts, title):
                part.write(roll_out(engine, part.questions(), profile))
        # Step 2: count the right answers of every question.
        counts = count(rows_of(parts))
        figures = posterior(counts, profile.grpo.group_size)
        rows = questions.columns("id", "dataset", "family", "modality")
        write_counts(stage.folder / "pass_counts.parquet", rows, counts, figures)
        stage.metrics = summary(rows, counts, figures, profile)
        # Step 3: keep the medium-hard ones, and as many unfiltered ones for comparison.
        for kind, path in sets.items():
            ids = [row["id"] for row in QuestionFiles([path]).columns("id")]
            kept = keep(ids, counts, f)
            if not kept:
                raise UserError(
                    f"no question of train_{kind} has a pass count of {f.keep_from} to {f.keep_to}; "
                    "widen filtering.keep_from and keep_to."
                )
            write_selection(path, kept, stage.folder / f"kept_{kind}.parquet")
            control = Random(f.seed).sample(range(len(ids)), len(kept))
            write_selection(path, control, stage.folder / f"control_{kind}.parquet")
            unvaried = float(np.mean([figures[ids[i]]["zero_variance"] for i in kept]))
            stage.metrics |= {
                f"kept_{kind}": len(kept), f"of_{kind}": len(ids), f"zero_variance_kept_{kind}": round(unvaried, 4),
            }  # fmt: skip
        return stage.metrics


# --- rollouts ---


def provenance(profile: Profile) -> dict[str, Any]:
    """What every row of rollouts says of how it was made."""
    return {
        "weights": weights_id(profile),
        "quantization": profile.model.quantization,
        "prompt_style": profile.model.prompt_style,
        "temperature": profile.filtering.temperature,
        "max_new_tokens": profile.filtering.max_new_tokens,
        "seed": profile.filtering.seed,
        "engine": engine_version(profile),
        "grader": profile.filtering.grader,
    }


def full_rollouts(engine: Engine, questions: list[Question], profile: Profile) -> Iterator[dict]:
    """Rows of all `filtering.samples` answers to every question."""
    by_id = {q.id: q for q in questions}
    for completion in engine.generate(prompts_of(questions, profile.model.prompt_style), sampling_of(profile)):
        yield rollout_row(completion, by_id[completion.question_id], profile)


def adaptive_rollouts(engine: Engine, questions: list[Question], profile: Profile) -> Iterator[dict]:
    """Rows that stop, question by question, once the band is decided with an error of at most `filtering.error`."""
    f, sampling = profile.filtering, sampling_of(profile)
    rows: dict[str, list[dict]] = {q.id: [] for q in questions}
    by_id, undecided = {q.id: q for q in questions}, questions
    for first, until in pairwise(decisions(f.samples)):
        some = replace(sampling, n=until - first, first=first)
        for completion in engine.generate(prompts_of(undecided, profile.model.prompt_style), some):
            rows[completion.question_id].append(rollout_row(completion, by_id[completion.question_id], profile))
        passed = {q.id: sum(row["passed"] for row in rows[q.id]) for q in undecided}
        undecided = [q for q in undecided if not decided(passed[q.id], until, f)]
    for own in rows.values():
        yield from own


def sampling_of(profile: Profile) -> Sampling:
    f = profile.filtering
    return Sampling(f.samples, f.temperature, f.max_new_tokens, f.seed)


def rollout_row(completion: Completion, question: Question, profile: Profile) -> dict:
    """One graded answer; `passed` is the grade that counts during inference where the grader has one."""
    style, grader = profile.model.prompt_style, profile.filtering.grader
    verdict = grade(completion.text, question, grader, style, completion.finish_reason)
    return {
        "id": question.id,
        "sample": completion.sample,
        "passed": bool(verdict.correct if verdict.online is None else verdict.online),
        "letter": verdict.letter,
        "truncated": verdict.truncated,
        "text": completion.text,
    }


# --- when to stop asking ---


@lru_cache(maxsize=1 << 16)
def in_band(passed: int, answered: int, samples: int, low: int, high: int) -> float:
    """The probability that low <= pass count <= high once all `samples` are in, after `passed` right of `answered`.

    Beta-binomial, from a uniform prior of the pass rate: what remains is
    BetaBinomial(samples - answered, passed + 1, answered - passed + 1).
    """
    from scipy.stats import betabinom

    if answered == samples:
        return float(low <= passed <= high)
    low_high = betabinom.cdf([low - passed - 1, high - passed], samples - answered, passed + 1, answered - passed + 1)
    return float(low_high[1] - low_high[0])


def decisions(samples: int) -> list[int]:
    """How many answers are in when the adaptive mode looks: STEP, then every STEP more, up to all; 0 comes first."""
    return [*range(0, samples, STEP), samples]


def decided(passed: int, answered: int, f: Filtering) -> bool:
    """Whether the band is decided with a probability of error of at most `filtering.error`; never before an answer."""
    inside = in_band(passed, answered, f.samples, f.keep_from, f.keep_to)
    return answered > 0 and not f.error < inside < 1 - f.error


# --- counts, posteriors, choice ---


def count(rows: Iterable[dict]) -> dict[str, Count]:
    """Rollout rows, as they come, to counts by question id."""
    counts: dict[str, Count] = defaultdict(Count)
    for row in rows:
        own = counts[row["id"]]
        own.samples += 1
        own.passed += row["passed"]
        own.truncated += row["truncated"]
        own.no_answer += row["letter"] is None
    return counts


def posterior(counts: dict[str, Count], group: int) -> dict[str, dict[str, float]]:
    """By question id: mean and 95 % interval of the pass rate's Beta posterior (uniform prior), and the expected
    probability E[p^G + (1-p)^G] that a group of `group` answers is all right or all wrong: no signal."""
    from scipy.special import betaln
    from scipy.stats import beta

    a = np.array([1 + c.passed for c in counts.values()], dtype=float)
    b = np.array([1 + c.samples - c.passed for c in counts.values()], dtype=float)
    low, high = beta.ppf(0.025, a, b), beta.ppf(0.975, a, b)
    unvaried = np.exp(betaln(a + group, b) - betaln(a, b)) + np.exp(betaln(a, b + group) - betaln(a, b))
    names = ("pass_rate", "pass_rate_low", "pass_rate_high", "zero_variance")
    values = zip(a / (a + b), low, high, unvaried, strict=True)
    return {key: dict(zip(names, map(float, row), strict=True)) for key, row in zip(counts, values, strict=True)}


def keep(ids: Sequence[str], counts: dict[str, Count], f: Filtering) -> list[int]:
    """Places of the questions whose pass count lies (adaptively: most probably lies) in the band, shuffled and then
    sorted easy to hard."""
    kept = []
    for place, key in enumerate(ids):
        own = counts[key]
        if in_band(own.passed, own.samples, f.samples, f.keep_from, f.keep_to) >= 0.5:
            kept.append(place)
    Random(f.seed).shuffle(kept)
    return sorted(kept, key=lambda place: -counts[ids[place]].passed / counts[ids[place]].samples)


def summary(rows: list[dict], counts: dict[str, Count], figures: dict, profile: Profile) -> dict[str, Any]:
    """The stage's figures: histograms of pass counts (adaptively: of the expected count) in all and by data set, and
    shares. `rows`: id, dataset and family of every question."""
    samples = profile.filtering.samples
    by_set: dict[str, list[int]] = defaultdict(lambda: [0] * (samples + 1))
    for row in rows:
        own = counts[row["id"]]
        by_set[row["family"] or row["dataset"]][round(samples * own.passed / own.samples)] += 1
    answers = sum(c.samples for c in counts.values())
    return {
        "questions": len(rows),
        "samples": samples,
        "rollouts": answers,
        "saved": round(1 - answers / (samples * len(rows)), 4),
        "pass_counts": [sum(column) for column in zip(*by_set.values(), strict=True)],
        "pass_counts_by_dataset": dict(by_set),
        "truncated": round(sum(c.truncated for c in counts.values()) / answers, 4),
        "no_answer": round(sum(c.no_answer for c in counts.values()) / answers, 4),
        "group_size": profile.grpo.group_size,
        "zero_variance_all": round(float(np.mean([f["zero_variance"] for f in figures.values()])), 4),
    }


def write_counts(path: Path, rows: list[dict], counts: dict[str, Count], figures: dict) -> None:
    """pass_counts.parquet: one row a question with its counts and posterior."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = []
    for row in rows:
        own = counts[row["id"]]
        table.append({
            "id": row["id"], "dataset": row["family"] or row["dataset"], "modality": row["modality"],
            "pass_count": own.passed, "samples": own.samples, "truncated": own.truncated, "no_answer": own.no_answer,
            **figures[row["id"]],
        })  # fmt: skip
    atomic_write(path, lambda temporary: pq.write_table(pa.Table.from_pylist(table), temporary))


def tables(metrics: dict[str, Any]) -> dict[str, list[tuple[str, ...]]]:
    """By title: what was kept, what the rollouts were like, and how many questions have each pass count."""
    alike = f"groups of {metrics['group_size']} all alike"
    kept = [("questions", "probed", "kept", f"{alike}, among the kept, %")]
    for kind in ("text", "image"):
        sizes = str(metrics[f"of_{kind}"]), str(metrics[f"kept_{kind}"])
        kept.append((kind, *sizes, percent(metrics[f"zero_variance_kept_{kind}"])))
    facts = [
        ("", ""),
        ("rollouts", str(metrics["rollouts"])),
        ("saved by stopping early, %", percent(metrics["saved"])),
        ("truncated, %", percent(metrics["truncated"])),
        ("no answer, %", percent(metrics["no_answer"])),
        (f"{alike}, before filtering, %", percent(metrics["zero_variance_all"])),
    ]
    counts, most = metrics["pass_counts"], max(metrics["pass_counts"])
    bars = [(str(right), str(n), "█" * round(40 * n / most)) for right, n in enumerate(counts)]
    histogram = [(f"right of {metrics['samples']}", "questions", ""), *bars]
    return {"kept": kept, "rollouts": facts, "questions by pass count": histogram}
