"""Models that others have published, and how they were evaluated there: medvlt_lib/assets/evaluation/models.yaml.

No torch here.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from medvlt_lib.core.config import Profile

FILE = Path(__file__).parents[1] / "assets" / "evaluation" / "models.yaml"


@dataclass(frozen=True)
class Known:
    """Models that were evaluated alike: names on the Hub or patterns of a name's last part, settings of a profile, and
    where these stand. `doubt`: what of it is not verified."""

    names: tuple[str, ...]
    settings: dict[str, Any]
    source: str
    doubt: str | None = None


@functools.cache
def known_models() -> tuple[Known, ...]:
    """Every entry of the file."""
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(Known(**{**entry, "names": tuple(entry["names"])}) for entry in entries)


def known_model(name: str) -> Known | None:
    """How the model of a Hub name, a server's name or a folder was evaluated, by the last part of the name."""
    last = Path(name).name.lower()
    fitting = (k for k in known_models() if any(fnmatch(last, Path(own).name.lower()) for own in k.names))
    return next(fitting, None)


def hub_name(name: str) -> str:
    """The whole name on the Hub of a model that is known by the last part; any other name as it is."""
    whole = {Path(own).name: own for known in known_models() for own in known.names if "/" in own}
    return whole.get(name, name)


def evaluated_as_published(profile: Profile, given: Collection[str]) -> Profile:
    """The profile with the settings under which its model was evaluated, where it is known, but for the keys `given`.

    What GRPO needs of a grader is not asked for: nothing is trained with this profile.
    """
    known = known_model(profile.model.name)
    sections: dict[str, dict[str, Any]] = defaultdict(dict)
    for setting, value in (known.settings if known else {}).items():
        section, _, key = setting.partition(".")
        if setting not in given:
            sections[section][key] = value
    return profile.model_copy(
        update={name: getattr(profile, name).model_copy(update=own) for name, own in sections.items()}
    )
