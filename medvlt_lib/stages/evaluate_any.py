"""`medvlt eval` outside a run's 05_eval: any model, or a run's arms on other benchmarks.

A model is a folder, an adapter, a name on the Hub, phantom:SIZE, or with engine.kind openai the name that a server has
for it. One that is known (medvlt_lib/assets/evaluation/models.yaml) is asked and graded as those who published it did,
unless --set says otherwise. Every evaluation has a folder of its own, whose stage.json holds what it was made with.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.files import read_json
from medvlt_lib.core.runs import Run, trained_in
from medvlt_lib.core.stage import work_in
from medvlt_lib.data.benchmarks import named_benchmarks, prepare
from medvlt_lib.models.known import evaluated_as_published, hub_name, known_model
from medvlt_lib.models.loading import is_adapter, resolve, weights_id
from medvlt_lib.stages.evaluate import evaluate, finished_arms

ADVICE = "choose another --out, or do it again with --redo 05"


@dataclass(frozen=True)
class Candidate:
    """Who answers: a profile's model, or the arm's or adapter's weights in `checkpoint`; `inputs` are their files."""

    name: str
    profile: Profile
    checkpoint: Path | None = None
    inputs: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What is asked: question files by name, and what stage.json says of them."""

    files: dict[str, Path]
    settings: dict[str, Any]


def evaluate_any(
    run_: Run,
    out: Path,
    *,
    model: str | None = None,
    arm: str | None = None,
    benchmarks: list[str] | None = None,
    questions: int | None = None,
    given: Collection[str] = (),
    ray: str | None = None,
) -> dict[str, dict]:
    """Answers and scores of `model` in `out`, or of one arm or all arms in `out`/ARM; returns the scores by name.

    `benchmarks` as in `named_benchmarks`, `questions` of each; without them the run's own test set. `given`: the
    settings that a known model's own do not replace.
    """
    # Step 1: who answers.
    if model is not None:
        candidates = {out: other_model(run_.profile, model, given)}
    else:
        candidates = {out / name: arm_of(run_, name) for name in ([arm] if arm else finished_arms(run_))}
    weights = {folder: weights_id(who.profile) for folder, who in candidates.items()}
    # Step 2: what is asked, which may have to be fetched.
    asked = _asked(run_, benchmarks, questions)
    # Step 3: one evaluation after the other, each in a folder of its own.
    scores = {}
    for folder, who in candidates.items():
        settings = {**who.profile.identity("model", "engine", "eval"), "model.weights": weights[folder]}
        settings, inputs = {**settings, **asked.settings}, {**asked.files, **who.inputs}
        with work_in(folder, settings, inputs, ADVICE, redo="05" in run_.redo, scratch=("parts",)) as stage:
            if not stage.finished:
                tests = list(asked.files.values())
                stage.metrics = evaluate(folder, tests, who.profile, who.checkpoint, who.name, ray)
        scores[who.name] = read_json(folder / "scores.json")
    return scores


def other_model(profile: Profile, model: str, given: Collection[str]) -> Candidate:
    """A model that is no arm; an adapter is put on the base that it was trained on."""
    folder = Path(model)
    if folder.is_dir() and is_adapter(folder):
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        if base and "model.name" not in given and not _same(base, profile.model.name):
            profile = profile.with_model(base)
        return Candidate(folder.name, profile, folder, {"model": folder})
    served = profile.engine.kind == "openai"
    profile = profile.with_model(model if served or folder.is_dir() else hub_name(model))
    known = known_model(profile.model.name)
    if known:
        profile = evaluated_as_published(profile, given)
        how = f"{profile.model.name} is asked and graded as in {known.source}"
        print(f"{how}; not verified: {known.doubt}." if known.doubt else f"{how}.", file=sys.stderr)
    return Candidate(folder.name, profile, None, {"model": folder} if folder.is_dir() and not served else {})


def arm_of(run_: Run, arm: str) -> Candidate:
    """An arm of the run, or its base model. Raises UserError for an arm that was not trained."""
    if arm == "base":
        return Candidate(arm, run_.profile)
    checkpoint = run_.require(trained_in(run_, arm), arm) / "checkpoint"
    return Candidate(arm, run_.profile, checkpoint, {"checkpoint": checkpoint})


def _asked(run_: Run, benchmarks: list[str] | None, questions: int | None) -> Asked:
    if not benchmarks:
        return Asked({"test": run_.require("01") / "test.parquet"}, {})
    files, settings = {}, {}
    data = run_.profile.data
    for benchmark in named_benchmarks(benchmarks, questions, data.test_size):
        files[f"questions of {benchmark.name}"], revisions = prepare(benchmark, data, run_.folder.parent / "benchmarks")
        settings |= {f"revision of {name}": revision for name, revision in revisions.items()}
    return Asked(files, settings)


def _same(one: str, two: str) -> bool:
    """Whether two names are of one model."""
    return Path(resolve(one)).absolute() == Path(resolve(two)).absolute()
