"""Stage 02: let the base model answer every training question n times and keep the medium-hard ones.

The published probe (MedVLThinker, eval/estimate_pass_rate.sh): n = 16 at temperature 1, counted with the grade that
inference uses, kept when the pass count lies in a band, ordered easy to hard (order_easy_to_hard.py). Beside each kept
set stands a control set of the same size that was not filtered.
Beyond the paper: a Beta posterior of every pass rate, the expected share of groups without variance, and an adaptive mode
that stops asking once the band is decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.records import Completion, Question, read_questions, write_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.engine import Sampling, engine_version, prompts_of
from medvlt_lib.rollout.parts import Rows, graded, missing_parts, roll_out

PART = {
    "full": 32,
    "adaptive": 128,
}  # questions in one rollout file; asked two by two, more must be asked at once to be quick
PROVENANCE = (
    "weights",
    "quantization",
    "prompt_style",
    "temperature",
    "max_new_tokens",
    "seed",
    "engine",
    "grader",
)  # on every row
STEP = 2  # samples between two decisions of the adaptive mode


@dataclass
class Count:
    """What became of one question: right answers of `samples`, and how many were cut or named no option."""

    passed: int = 0
    samples: int = 0
    truncated: int = 0
    no_answer: int = 0


def run(run_: Run, shard: tuple[int, int] | None = None, merge: bool = False) -> dict | None:
    """Writes 02_filtering; returns counts of questions probed and kept.

    With `shard` (i, n) only every n-th part is rolled out and nothing is counted (None comes back); `merge` counts the
    parts of all shards and rolls out nothing. Raises UserError for parts that are missing, torn or of another provenance.
    """
    data = run_.require("01")
    inputs = {n: data / f"{n}.parquet" for n in ("train_text", "train_image")}
    settings = run_.settings("model", "engine", "filtering")
    band = ("filtering.keep_from", "filtering.keep_to")  # another band is another choice among the same rollouts
    free = () if run_.profile.filtering.mode == "adaptive" else band
    if shard:
        return run_.partly("02", lambda folder: _shard(folder, run_, inputs, shard), settings, inputs, free=free)
    return run_.perform("02", lambda folder: _work(folder, run_, inputs, merge), settings, inputs, free=free)


def _shard(folder: Path, run_: Run, inputs: dict[str, Path], shard: tuple[int, int]) -> None:
    questions = [q for path in inputs.values() for q in read_questions(path)]
    for _ in probe(folder / "rollouts", questions, run_.profile, shard):
        pass


def _work(folder: Path, run_: Run, inputs: dict[str, Path], merge: bool) -> dict:
    f = run_.profile.filtering
    sets = {name: read_questions(path) for name, path in inputs.items()}
    questions = [q for rows in sets.values() for q in rows]
    missing = missing_parts(folder / "rollouts", len(questions), PART[f.mode])
    if merge and missing:
        raise UserError(
            f"{folder / 'rollouts'} lacks {len(missing)} parts, the first {missing[0]}; run the shards that are not done."
        )
    counts = count(probe(folder / "rollouts", questions, run_.profile))
    figures = posterior(counts, questions, run_.profile.grpo.group_size)
    _write_counts(folder / "pass_counts.parquet", questions, counts, figures)
    metrics = summary(questions, counts, figures, run_.profile)
    for name, rows in sets.items():
        kept = keep(rows, counts, f)
        if not kept:
            raise UserError(
                f"no question of {name} has a pass count of {f.keep_from} to {f.keep_to}; widen filtering.keep_from and keep_to."
            )
        kind = name.removeprefix("train_")
        control = Random(f.seed).sample(rows, len(kept))
        write_questions(kept, folder / f"kept_{kind}.parquet")
        write_questions(control, folder / f"control_{kind}.parquet")
        metrics[f"kept_{kind}"], metrics[f"of_{kind}"] = len(kept), len(rows)
        metrics[f"zero_variance_kept_{kind}"] = round(float(np.mean([figures[q.id]["zero_variance"] for q in kept])), 4)
    return metrics


def probe(folder: Path, questions: list[Question], profile, shard: tuple[int, int] | None = None) -> Iterator[dict]:
    """The rollouts of `questions` with the profile's base model, graded, as rows; kept in `folder` part by part."""
    f, style = profile.filtering, profile.model.prompt_style
    sampling = Sampling(f.samples, f.temperature, f.max_new_tokens, f.seed)
    row = lambda completion, question: _row(completion, question, profile)  # noqa: E731
    rows = graded(style, sampling, row) if f.mode == "full" else adaptive(style, sampling, row, f)
    values = (
        weights_id(profile),
        profile.model.quantization,
        style,
        f.temperature,
        f.max_new_tokens,
        f.seed,
        engine_version(profile),
        f.grader,
    )
    provenance = dict(zip(PROVENANCE, values, strict=True))
    title = f"{'up to ' if f.mode == 'adaptive' else ''}{f.samples} rollouts each"
    return roll_out(folder, questions, lambda: build_engine(profile), rows, PART[f.mode], title, shard, provenance)


def _row(completion: Completion, question: Question, profile) -> dict:
    verdict = grade(
        completion.text, question, profile.filtering.grader, profile.model.prompt_style, completion.finish_reason
    )
    passed = verdict.correct if verdict.online is None else verdict.online
    return {
        "id": question.id,
        "sample": completion.sample,
        "passed": bool(passed),
        "letter": verdict.letter,
        "truncated": verdict.truncated,
        "text": completion.text,
    }


# --- the adaptive mode ---


@lru_cache(maxsize=1 << 16)
def in_band(passed: int, asked: int, samples: int, low: int, high: int) -> float:
    """The probability that low <= pass count <= high once all `samples` are in, after `passed` right of `asked`.

    Beta-binomial, from a uniform prior of the pass rate: what remains is BetaBinomial(samples - asked, passed + 1, asked - passed + 1).
    """
    from scipy.stats import betabinom

    if asked == samples:
        return float(low <= passed <= high)
    rest = np.arange(low - passed, high - passed + 1)
    return float(betabinom.pmf(rest, samples - asked, passed + 1, asked - passed + 1).sum())


def decisions(samples: int) -> list[int]:
    """How many answers are in when the adaptive mode looks: 0, then every STEP more, up to all."""
    return [*range(0, samples, STEP), samples]


def adaptive(style: str, sampling: Sampling, row, f) -> Rows:
    """Rows of a chunk that stop, question by question, once the band is decided with an error of at most `f.error`."""

    def rows(engine, chunk: list[Question]) -> Iterator[dict]:
        by_id, passed = {q.id: q for q in chunk}, dict.fromkeys((q.id for q in chunk), 0)
        found: list[dict] = []
        undecided = chunk
        for first, until in pairwise(decisions(f.samples)):
            undecided = [
                q
                for q in undecided
                if f.error < in_band(passed[q.id], first, f.samples, f.keep_from, f.keep_to) < 1 - f.error
            ]
            some = replace(sampling, n=until - first, first=first)
            for completion in engine.generate(prompts_of(undecided, style), some):
                found.append(row(completion, by_id[completion.question_id]))
                passed[completion.question_id] += found[-1]["passed"]
        order = {q.id: i for i, q in enumerate(chunk)}
        yield from sorted(found, key=lambda r: (order[r["id"]], r["sample"]))

    return rows


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


def posterior(counts: dict[str, Count], questions: list[Question], group: int) -> dict[str, dict[str, float]]:
    """By question id: mean and 95 % interval of the pass rate's Beta posterior (uniform prior), and the expected probability
    E[p^G + (1-p)^G] that a group of `group` answers is all right or all wrong, so that GRPO learns nothing from it."""
    from scipy.special import betaln
    from scipy.stats import beta

    a = np.array([1 + counts[q.id].passed for q in questions], dtype=float)
    b = np.array([1 + counts[q.id].samples - counts[q.id].passed for q in questions], dtype=float)
    low, high = beta.ppf(0.025, a, b), beta.ppf(0.975, a, b)
    zero = np.exp(betaln(a + group, b) - betaln(a, b)) + np.exp(betaln(a, b + group) - betaln(a, b))
    values = zip(a / (a + b), low, high, zero, strict=True)
    names = ("pass_rate", "pass_rate_low", "pass_rate_high", "zero_variance")
    return {q.id: dict(zip(names, map(float, row), strict=True)) for q, row in zip(questions, values, strict=True)}


def keep(questions: list[Question], counts: dict[str, Count], f) -> list[Question]:
    """Questions whose pass count lies (adaptively: most probably lies) in the band, shuffled and then sorted easy to hard."""
    inside = lambda c: in_band(c.passed, c.samples, f.samples, f.keep_from, f.keep_to) >= 0.5  # noqa: E731
    kept = [q for q in questions if inside(counts[q.id])]
    Random(f.seed).shuffle(kept)
    return sorted(kept, key=lambda q: -counts[q.id].passed / counts[q.id].samples)


def summary(questions: list[Question], counts: dict[str, Count], figures: dict, profile) -> dict:
    """The stage's figures: histograms of pass counts (adaptively: of the expected count) in all and by data set, and shares."""
    samples = profile.filtering.samples
    by_set: dict[str, list[int]] = defaultdict(lambda: [0] * (samples + 1))
    for q in questions:
        c = counts[q.id]
        by_set[q.family or q.dataset][round(samples * c.passed / c.samples)] += 1
    asked = sum(c.samples for c in counts.values())
    return {
        "questions": len(questions),
        "samples": samples,
        "rollouts": asked,
        "saved": round(1 - asked / (samples * len(questions)), 4),
        "pass_counts": [sum(column) for column in zip(*by_set.values(), strict=True)],
        "pass_counts_by_dataset": dict(by_set),
        "truncated": round(sum(c.truncated for c in counts.values()) / asked, 4),
        "no_answer": round(sum(c.no_answer for c in counts.values()) / asked, 4),
        "group_size": profile.grpo.group_size,
        "zero_variance_all": round(float(np.mean([f["zero_variance"] for f in figures.values()])), 4),
    }


def _write_counts(path: Path, questions: list[Question], counts: dict[str, Count], figures: dict) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for q in questions:
        c = counts[q.id]
        named = {"id": q.id, "dataset": q.family or q.dataset, "modality": q.modality}
        rows.append(
            {
                **named,
                "pass_count": c.passed,
                "samples": c.samples,
                "truncated": c.truncated,
                "no_answer": c.no_answer,
                **figures[q.id],
            }
        )
    atomic_write(path, lambda temporary: pq.write_table(pa.Table.from_pylist(rows), temporary))
