"""What follows from the studies: every claim of assets/studies/claims.yaml, which was written before the runs, with its
difference, its test and its verdict by one rule.

The unit is the seed. A claim compares two arms, or the gains of two arms over their bases, by the difference within
each seed, where both answered the same questions; a t-interval over seeds. p-values are corrected by Holm within a
study. RULE says what becomes of it. No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json
from medvlt_lib.core.stats import holm
from medvlt_lib.phantom.questions import FAMILIES
from medvlt_lib.study.cells import STUDIES, study
from medvlt_lib.study.measures import value
from medvlt_lib.study.results import results_in

RULE = (
    "holds: the difference is above 0 at 5 % after Holm's correction (for `not more`: the whole interval is below the "
    "smallest difference that matters); does not hold: the whole interval is below that difference (for `not more`: "
    "above 0 after Holm's correction); else: cannot tell"
)
HOLDS, DOES_NOT, CANNOT_TELL, NOT_RUN = "holds here", "does not hold here", "cannot tell", "not run"


@dataclass(frozen=True)
class Verdict:
    """A claim and what the runs say of it; figures are shares, not per cent."""

    claim: dict[str, Any]
    verdict: str
    seeds: int
    differences: tuple[float, ...] = ()
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    detectable: float = math.nan


@cache
def claims_file() -> dict[str, Any]:
    """claims.yaml: when it was written, the seeds, the smallest difference that matters, groups and claims."""
    return yaml.safe_load((STUDIES / "claims.yaml").read_text(encoding="utf-8"))


def judged(names: Sequence[str] | None, folder: Path) -> dict[str, list[Verdict]]:
    """The verdicts of some studies (all by default) by study. Raises UserError for a study that is not there, and for
    results that were changed by hand."""
    every = claims_file()["claims"]
    if wrong := [name for name in names or () if name not in every]:
        raise UserError(f"there are no claims about '{wrong[0]}'; choose from {', '.join(every)}.")
    results = results_of_studies(names or every, folder)
    return {name: verdicts_of(every[name], own, folder) for name, own in results.items()}


def results_of_studies(names: Iterable[str], folder: Path) -> dict[str, dict[str, dict[int, dict]]]:
    """For each study the results of its profile (see `by_label`), which are read once."""
    profiles = {name: study(name)["profile"] for name in names}
    results = {profile: by_label(folder, profile) for profile in set(profiles.values())}
    return {name: results[profile] for name, profile in profiles.items()}


def beside(name: str, folder: Path) -> list[tuple[str, Verdict] | None]:
    """For each claim of a study, the same one (equal sides, and which is more) of the studies that it is set `beside`,
    with that study's name; None where none of them makes it."""
    others = judged(study(name)["beside"], folder) if study(name)["beside"] else {}
    found = {_sides(v.claim): (other, v) for other, own in others.items() for v in own}
    return [found.get(_sides(claim)) for claim in claims_file()["claims"][name]]


def _sides(claim: dict[str, Any]) -> str:
    return json.dumps([claim["says"], claim["a"], claim["b"]], sort_keys=True)


def as_json(verdicts: dict[str, list[Verdict]]) -> dict[str, list[dict[str, Any]]]:
    """Verdicts as findings.json holds them: without the figures that claims do not have that were not run."""
    return {
        name: [{key: value for key, value in asdict(v).items() if value == value} for v in own]  # nan is not nan
        for name, own in verdicts.items()
    }


def kept_verdicts(folder: Path) -> dict[str, list[Verdict]]:
    """The verdicts by study as `medvlt findings` last wrote them beside the results, without judging anew, which takes
    ten seconds. Raises UserError where the file is missing."""
    kept = read_json(folder / "findings.json")
    return {
        name: [Verdict(**{**row, "differences": tuple(row["differences"])}) for row in own]
        for name, own in kept.items()
    }


def by_label(folder: Path, profile: str = "tiny") -> dict[str, dict[int, dict]]:
    """A profile's results in a folder by arm and seed. Raises UserError where two differ in settings only."""
    found: dict[str, dict[int, dict]] = {}
    for result in results_in(folder).values():
        if result["profile"] != profile:
            continue
        own = found.setdefault(result["label"], {})
        if result["seed"] in own:
            raise UserError(
                f"{folder} holds two results of {result['label']} with seed {result['seed']}, made with different "
                f"settings: {own[result['seed']]['key']} and {result['key']}; move one of them away."
            )
        own[result["seed"]] = result
    return found


def verdicts_of(claims: list[dict], results: dict[str, dict[int, dict]], folder: Path) -> list[Verdict]:
    """The verdicts of one study, whose p-values are corrected together, those of claims that were not run counting as
    1. With fewer seeds than were fixed before the runs a claim counts as not run: a look at the first seeds must not
    decide anything."""
    drawn = [_differences(claim, results, folder) for claim in claims]
    tested = [i for i, differences in enumerate(drawn) if len(differences) >= claims_file()["seeds"]]
    figures = {i: interval_over_seeds(drawn[i]) for i in tested}
    corrected = holm([figures[i][3] if i in figures else 1.0 for i in range(len(claims))])
    found = []
    for i, claim in enumerate(claims):
        if i not in figures:
            found.append(Verdict(claim, NOT_RUN, len(drawn[i])))
            continue
        mean, low, high, p, detectable = figures[i]
        verdict = decide(claim["says"], mean, high, corrected[i], claims_file()["matters"])
        found.append(
            Verdict(claim, verdict, len(drawn[i]), tuple(drawn[i]), mean, low, high, p, corrected[i], detectable)
        )
    return found


def decide(says: str, mean: float, high: float, p: float, matters: float) -> str:
    """RULE. `says`: more or not more; mean, high: of the difference, and its interval's upper end; p after Holm."""
    more, little = mean > 0 and p < 0.05, high < matters
    first, second = (more, little) if says == "more" else (little, more)
    return HOLDS if first else DOES_NOT if second else CANNOT_TELL


def interval_over_seeds(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float, float, float]:
    """(mean, low, high, two-sided p, difference that would be found with a power of 80 %) of a t-test over seeds."""
    from scipy.stats import t

    n, mean = len(differences), math.fsum(differences) / len(differences)
    error = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    width = float(t.ppf(0.5 + level / 2, n - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return mean, mean - width, mean + width, p, width + float(t.ppf(0.8, n - 1)) * error


def _differences(claim: dict, results: dict[str, dict[int, dict]], folder: Path) -> list[float]:
    """a - b of every seed in which all of their arms have a result."""
    sides = [claim[side] for side in ("a", "b")]
    labels = [side[key] for side in sides for key in ("arm", "over") if key in side]
    shared = set.intersection(*(set(results.get(label, ())) for label in labels))
    differences = []
    for seed in sorted(shared):
        a, b = (_side(side, seed, results, folder) for side in sides)
        if a is not None and b is not None:
            differences.append(a - b)
    return differences


def _side(side: dict, seed: int, results: dict[str, dict[int, dict]], folder: Path) -> float | None:
    """The figure of one side of a claim: of its arm, less that of the arm that it is `over`."""
    families = families_of(side.get("among", "all"))
    found = []
    for key in ("arm", "over"):
        if key in side:
            result = results[side[key]][seed]
            found.append(value(folder, result, families, side.get("measure", "accuracy"), side.get("look", "greedy")))
    if None in found:
        return None
    return found[0] - found[1] if len(found) == 2 else found[0]


def families_of(group: str) -> list[str]:
    """The families of a group in the claims file, or of text, image, all."""
    groups = claims_file()["groups"]
    if group in groups:
        return groups[group]
    return [name for name, family in FAMILIES.items() if group in ("all", family.modality)]
