"""The studies as lists of runs: `cells_of` turns names of studies into cells, each one arm and one seed.

What differs between arms stands in assets/studies/studies.yaml. A cell is one training run with its evaluation; cells
that come to the same in two studies are one cell. A seed is another draw of everything: the questions of training and
test, their order, and what is sampled. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from medvlt_lib.core.config import Profile, load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.models.loading import weights_id

STUDIES = Path(__file__).parents[1] / "assets" / "studies"
METHODS = {"sft": "sft.learning_rate", "rl": "grpo.learning_rate"}


@dataclass(frozen=True)
class Cell:
    """One arm with one seed. `label` is the arm's name in a study, `arm` one of the paper's seven, `world` the settings
    of its questions and `settings` those and the settings of its training. `start`: the cell that it goes on from."""

    label: str
    arm: str
    seed: int
    profile: str
    world: dict[str, Any] = field(hash=False)
    settings: dict[str, Any] = field(hash=False)
    start: Cell | None = None

    @property
    def method(self) -> str:
        """'base', 'sft' or 'rl', by the last step."""
        return method_of(self.arm)

    def resolved(self) -> Profile:
        return load_profile(self.profile, self.settings)

    def identity(self) -> dict[str, Any]:
        """Every setting that can change the cell's result and is not at its default, flat."""
        trained = {"base": (), "sft": ("sft",), "rl": ("filtering", "grpo")}[self.method]
        settings = _set_in(self.resolved(), "model", "data", "engine", *trained, "eval")
        return {**settings, "start": self.start.key} if self.start else settings

    @cached_property
    def key(self) -> str:
        """The cell's name on disk: label, seed, and eight digits of the hash of its settings."""
        return f"{self.label}-s{self.seed}-{_digest(self.identity())}"

    @cached_property
    def world_key(self) -> str:
        """The name on disk of the questions that it shares with cells of the same world."""
        settings = _set_in(load_profile(self.profile, self.world), "model", "data", "engine", "filtering")
        return f"world-s{self.seed}-{_digest(settings)}"


Cells = dict[str, tuple[Cell, list[str]]]  # by key, each with what its model is asked


def method_of(arm: str) -> str:
    """'base', 'sft' or 'rl', by an arm's last step."""
    return arm.rpartition("-")[2].partition("_")[0]


def _set_in(profile: Profile, *sections: str) -> dict[str, Any]:
    """The settings of some sections that can change a result, with the weights, flat. Left out is what has its
    default, so that a setting that a later version adds makes no result old."""
    settings = {"model.weights": weights_id(profile)}
    for key, value in profile.identity(*sections).items():
        section, _, name = key.partition(".")
        if value != type(getattr(profile, section)).model_fields[name].default:
            settings[key] = value
    return settings


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


@cache
def definitions() -> dict[str, Any]:
    """studies.yaml: the sections common, tuned, arms and studies."""
    return yaml.safe_load((STUDIES / "studies.yaml").read_text(encoding="utf-8"))


def study(name: str) -> dict[str, Any]:
    """One study: question, arms, looks, profile. Raises UserError for one that is not there."""
    known = definitions()["studies"]
    if name not in known:
        raise UserError(f"there is no study '{name}'; choose from {', '.join(known)}.")
    return {"looks": ["greedy"], "profile": "tiny", "beside": [], **known[name]}


def cell(label: str, seed: int, profile: str, overrides: dict[str, Any] | None = None) -> Cell:
    """The cell of an arm in studies.yaml. `overrides` are settings of the person who runs the study.

    Raises UserError for an arm that is not there, a profile without studies, or settings that cannot work.
    """
    every, arms = definitions(), definitions()["arms"]
    if label not in arms:
        raise UserError(f"there is no arm '{label}' in the studies; choose from {', '.join(arms)}.")
    if profile not in every["common"]:
        raise UserError(
            f"the studies are not laid out for the profile {profile}; choose from {', '.join(every['common'])}."
        )
    own = arms[label]
    seeds = {f"{section}.seed": seed for section in ("data", "sft", "grpo")}
    world = {**every["common"][profile], **own.get("world", {}), **seeds, **(overrides or {})}
    method = method_of(own["arm"])
    rate = every["tuned"].get(profile, {}).get(own.get("tuned", method))
    tuned = {METHODS[method]: rate} if rate else {}
    settings = {**world, **tuned, **own.get("training", {}), **(overrides or {})}
    start = cell(own["start"], seed, profile, overrides) if "start" in own else None
    return Cell(label, own["arm"], seed, profile, world, settings, start)


def cells_of(
    names: Sequence[str], seeds: Sequence[int], profile: str, overrides: dict[str, Any] | None = None
) -> Cells:
    """The cells of some studies in the order in which they are run, by key, each with what its model is asked
    (the looks of running.py). A cell comes after the one that it goes on from. Raises UserError as `study` and `cell`,
    and for a study of another profile."""
    found: Cells = {}

    def add(one: Cell, looks: Sequence[str]) -> None:
        if one.start:
            add(one.start, ())
        before = found.setdefault(one.key, (one, []))[1]
        before.extend(look for look in looks if look not in before)

    for name in names:
        own = study(name)
        if own["profile"] != profile:
            raise UserError(
                f"the study {name} is not laid out for the profile {profile}; run it with --profile {own['profile']}."
            )
        for seed in seeds:
            for label in own["arms"]:
                add(cell(label, seed, profile, overrides), own["looks"])
    return found
