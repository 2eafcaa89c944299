"""Profiles: what to run, as typed settings read from one YAML each (medvlt_lib/core/sections.py lists the settings).

An unknown key, a wrong type or a combination that cannot work stops here, before any weight loads, with one sentence
that names the key and how to fix it. Profiles that were scaled down carry the published values in a `published` block;
`scale: published` puts them back. An `arms` block changes the training of single arms. What a person sets wins over
both. No torch here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from medvlt_lib.core.combinations import impossible
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.sections import (
    Data,
    Distill,
    EngineSettings,
    Eval,
    Filtering,
    Grpo,
    Launch,
    Model,
    Section,
    Sft,
    value_of,
)

PROFILES = Path(__file__).parents[1] / "assets" / "profiles"
NEW_NAMES = {"engine.prompt_style": "model.prompt_style"}  # settings that were called otherwise before
# Settings that bound memory, money or time, refuse a row that is too long, or only report: see Profile.identity.
BOUNDS = frozenset(
    {
        "engine.tensor_parallel", "engine.gpu_memory", "engine.max_images", "engine.batch_tokens", "engine.concurrency",
        "engine.prompt_price", "engine.completion_price", "engine.max_cost",
        "data.endpoint_prompt_price", "data.endpoint_completion_price", "data.endpoint_max_cost",
        "sft.gradient_checkpointing", "sft.save_every", "sft.max_length",
        "grpo.sampler_memory",
        "grpo.micro_batch", "grpo.gradient_checkpointing", "grpo.save_every", "grpo.max_prompt_length",
        "launch.machines", "launch.tracker",
    }
)  # fmt: skip


def _arm_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError("an arm's name becomes a folder's; write it with letters, digits, _, - and .")
    return name


ArmName = Annotated[str, AfterValidator(_arm_name)]


class Profile(Section):
    """A whole run. `profile` is the name of the YAML it came from; `arms` holds the settings in which the training of
    single arms differs: {"rl_image": {"grpo": {"epochs": 1}}}."""

    profile: str
    scale: Literal["tiny", "one-gpu", "published"]
    model: Model
    data: Data
    engine: EngineSettings
    filtering: Filtering
    distill: Distill
    sft: Sft
    grpo: Grpo
    eval: Eval
    launch: Launch
    arms: dict[ArmName, dict[Literal["sft", "grpo"], dict[str, Any]]] = Field(default_factory=dict)

    def for_arm(self, arm: str) -> Profile:
        """This profile with the settings of its `arms` block that belong to one arm. Raises UserError as `checked`."""
        values = self.model_dump()
        for section, keys in self.arms.get(arm, {}).items():
            values[section] = {**values[section], **keys}
        return checked(values, arm)

    def with_model(self, name: str) -> Profile:
        """This profile on another model."""
        values = self.model_dump()
        values["model"] = {**values["model"], "name": name, "revision": None}
        return checked(values)

    def identity(self, *sections: str) -> dict[str, Any]:
        """The settings of some sections that decide what a stage ends with, flat: {"grpo.beta": 0.01, ...}.

        A stage that has begun may be continued only with these unchanged. Left out are the settings in BOUNDS: they say
        how much is in memory at once, on how many GPUs an engine lies, what may be spent, how often a checkpoint is
        written, where a log is reported, and beyond which length a row is refused. Whatever they are, the results are
        the same but for rounding. So GRPO that ran out of memory continues with a smaller micro-batch, which changes no
        loss but `bnpo`.

        A micro-batch stays where it counts: in SFT and with the loss `bnpo`, which average over the tokens of each
        micro-batch, and with LoRA's dropout, which draws one mask a forward pass. What a model sees (model.max_pixels)
        and how long it may write are never left out.
        """
        left_out = set(BOUNDS)
        if self.grpo.loss_type == "bnpo" or (self.model.lora is not None and self.model.lora.dropout > 0):
            left_out.discard("grpo.micro_batch")
        every = {f"{s}.{k}": v for s in sections for k, v in getattr(self, s).model_dump().items()}
        return {key: value for key, value in every.items() if key not in left_out}

    def completions(self) -> int:
        """Completions a GRPO step, over all devices."""
        return self.grpo.prompts * self.grpo.group_size

    def grpo_accumulation(self) -> int:
        """Forward passes a device makes for one GRPO update."""
        return self.completions() // (self.grpo.updates * self.grpo.micro_batch * self.launch.devices)

    def sft_accumulation(self) -> int:
        """Forward passes a device makes for one SFT update."""
        return self.sft.batch // (self.sft.micro_batch * self.launch.devices)


def profile_names() -> list[str]:
    """The shipped profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Profile:
    """The profile `name` with dotted overrides such as {"grpo.learning_rate": 1e-5}, checked for every arm.

    An override also wins over an arm's own block; {"arms.rl_image.grpo.epochs": 2} changes one arm alone.
    Raises UserError for an unknown profile or key, a wrong type, or a combination that cannot work.
    """
    path = PROFILES / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no profile '{name}'; choose one of {', '.join(profile_names())}.")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    published = values.pop("published", {})
    overrides = dict(overrides or {})
    scale = overrides.pop("scale", values["scale"])
    if scale != values["scale"]:
        if scale != "published" or not published:
            raise UserError(
                f"profile {name}: scale cannot be {scale!r}; it is {values['scale']}"
                + (" or published." if published else ".")
            )
        values["scale"] = "published"
        for section, keys in published.items():
            values[section] = {**values[section], **keys}
    if overrides.get("model.name", values["model"]["name"]) != values["model"]["name"]:
        values["model"]["revision"] = None  # the profile's commit is one of its own model
    for key in sorted(overrides, key=_names_an_arm):
        _override(values, key, overrides[key])
    profile = checked({"profile": name, **values})
    for arm in profile.arms:
        profile.for_arm(arm)
    return profile


def _names_an_arm(key: str) -> bool:
    return key.partition(".")[0] == "arms"


def _override(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, in the profile's values and in the block of every arm that has a value of its own for it."""
    _put(values, key, value)
    if _names_an_arm(key):
        return
    section, _, rest = key.partition(".")
    for block in values.get("arms", {}).values():
        if rest.partition(".")[0] in block.get(section, {}):
            _put(block, key, value)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    place: Any = values
    for part in path:
        if isinstance(place, dict) and isinstance(place.get(part), str):
            place[part] = value_of(place[part], dict)  # a mapping that --set gave as text
        place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UserError(
                f"{key} is not a setting of this profile: there is no section '{part}'; write section.key=value."
            )
    place[last] = value


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """`key=value` strings to a dictionary. Values stay text until the key says how to read them (see value_of in
    medvlt_lib/core/sections.py). Raises UserError for other forms."""
    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UserError(f"--set {pair}: write it as key=value, for example grpo.learning_rate=1e-5.")
        settings[key] = value
    return settings


def checked(values: dict[str, Any], arm: str | None = None) -> Profile:
    """Settings as a Profile. With `arm`, the values are a profile's with this arm's block in force.

    Raises UserError that names the first wrong key, or the combination that cannot work.
    """
    name = values.get("profile")
    try:
        profile = Profile.model_validate(values)
    except ValidationError as error:
        raise UserError(f"profile {name}: {'' if arm is None else f'arms.{arm}.'}{_wrong_key(error)}") from None
    for sentence in impossible(profile):
        own = {f"arms.{arm}.{s}.{k}": v for s, keys in profile.arms.get(arm or "", {}).items() for k, v in keys.items()}
        where = f"with {', '.join(f'{key} = {value}' for key, value in own.items())}, " if own else ""
        raise UserError(f"profile {name}: {where}{sentence}.")
    return profile


def _wrong_key(error: ValidationError) -> str:
    """The first error as a sentence that begins with the key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if key in NEW_NAMES:
        return f"{key} is called {NEW_NAMES[key]} now; set that instead."
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "missing" else f" is {first['input']!r}"
    what = f"{given}: {message[0].lower()}{message[1:]}"
    if first["type"] == "extra_forbidden":
        what = " is not a setting"
    return f"{key}{what}; see medvlt_lib/core/sections.py for what may stand there."
