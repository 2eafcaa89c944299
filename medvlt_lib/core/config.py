"""Profiles: what to run, as typed settings read from one YAML each.

An unknown key, a wrong type or a combination that cannot work stops here, before any weight loads, with one sentence
that names the key and the mend. Profiles that were scaled down carry the published values in a `published` block;
`scale: published` puts them back. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from medvlt_lib.core.errors import UserError

PROFILES = Path(__file__).parents[1] / "assets" / "profiles"


class Section(BaseModel):
    """A part of a profile: no unknown keys, no silent conversions (but 1 may stand for 1.0)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Lora(Section):
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class Model(Section):
    """`name`: a Hub name, a folder, or phantom:small / phantom:base for the shipped tiny models."""

    name: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantization: Literal["none", "nf4"] = "none"
    lora: Lora | None = None
    min_pixels: int | None = Field(None, ge=784)
    max_pixels: int | None = Field(None, ge=784)
    device: Literal["cpu", "cuda"] = "cpu"


class Data(Section):
    """Each set is `phantom:FAMILIES`, `hub:NAME` (medvlt_lib/data/published.py lists them), `split:TRAINING_SET` or a question
    file (.parquet, .jsonl); sizes count questions. `traces_image`: image questions with chains of thought for SFT, where
    `train_image` has none. `mirror`: a folder with copies of Hub sets, each in a folder named like it. `drop_leaks`: drop training
    questions that equal test questions. `endpoint`: an OpenAI-compatible server that lists options of closed questions."""

    train_text: str = "phantom:text"
    train_image: str = "phantom:image"
    validation: str = "phantom:all"
    test: str = "phantom:all"
    traces_image: str | None = None
    train_text_size: int = Field(1, ge=1)
    train_image_size: int = Field(1, ge=1)
    validation_size: int = Field(1, ge=1)
    test_size: int = Field(1, ge=1)
    traces_image_size: int = Field(1, ge=1)
    label_noise: float = Field(0.0, ge=0, le=1)
    trace_noise: float = Field(0.0, ge=0, le=1)
    drop_leaks: bool = False
    mirror: str | None = None
    endpoint: str | None = None
    endpoint_model: str = "gpt-4o-2024-11-20"
    seed: int = 0


class EngineSettings(Section):
    """How completions are sampled for filtering and evaluation. `batch_tokens`: tokens in memory at once, prompts and completions.
    `kind` openai asks model.name of the server at `url`, `concurrency` prompts at a time; `prompt_price` and `completion_price`
    are US dollars a million tokens, and `max_cost` stops before more dollars are spent. `kind` vllm spreads a model over
    `tensor_parallel` GPUs, takes the share `gpu_memory` of each, and up to `max_images` pictures a question."""

    kind: Literal["transformers", "vllm", "openai"] = "transformers"
    tensor_parallel: int = Field(1, ge=1)
    gpu_memory: float = Field(0.85, gt=0, lt=1)
    max_images: int = Field(8, ge=1)
    url: str | None = None
    concurrency: int = Field(8, ge=1)
    prompt_price: float = Field(0.0, ge=0)
    completion_price: float = Field(0.0, ge=0)
    max_cost: float | None = Field(None, gt=0)

    prompt_style: Literal["medvlthinker", "medvlm-r1", "no-think"] = "medvlthinker"
    batch_tokens: int = Field(80_000, ge=1)


class Filtering(Section):
    """`mode` adaptive stops asking a question once its band is decided with a probability of error of at most `error`."""

    mode: Literal["full", "adaptive"] = "full"
    error: float = Field(0.05, gt=0, lt=0.5)
    samples: int = Field(16, ge=2)
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(4096, ge=1)
    grader: Literal["published", "published-medvlm-r1", "tolerant"] = "published"
    keep_from: int = Field(1, ge=0)
    keep_to: int = Field(7, ge=0)
    seed: int = 42


class Optimisation(Section):
    """What SFT and GRPO share. `max_steps` ends training early; `micro_batch` is rows a device and forward pass."""

    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    micro_batch: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    save_every: int = Field(50, ge=1)
    seed: int = 42


class Sft(Optimisation):
    """`batch` counts sequences in one update over all devices; longer sequences than `max_length` tokens are refused."""

    batch: int = Field(16, ge=1)
    max_length: int = Field(32768, ge=16)
    data: Literal["train", "kept"] = "train"


RewardName = Literal["published", "published-signed", "published-medvlm-r1", "tolerant", "grounded", "overlong"]


def _alone(value: Any) -> Any:
    """A reward's name alone stands for that reward with the weight 1."""
    return {value: 1.0} if isinstance(value, str) else value


class Grpo(Optimisation):
    """`prompts` a step x `group_size` completions, in `updates` optimizer steps; names as in the papers and TRL.

    `reward`: a reward of medvlt_lib/grading/rewards.py or `grounded`, or several with their weights in the sum, such as
    {published: 1.0, overlong: 0.1}."""

    prompts: int = Field(256, ge=1)
    group_size: int = Field(8, ge=2)
    updates: int = Field(2, ge=1)
    beta: float = Field(0.01, ge=0)
    epsilon: float = Field(0.2, gt=0)
    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    temperature: float = Field(1.0, gt=0)
    max_prompt_length: int = Field(2048, ge=1)
    max_completion_length: int = Field(4096, ge=1)
    reward: Annotated[dict[RewardName, FiniteFloat], BeforeValidator(_alone)] = Field({"published": 1.0}, min_length=1)
    sampler: Literal["engine", "trl-vllm-server"] = "engine"
    data: Literal["kept", "control"] = "kept"


class Eval(Section):
    temperature: float = Field(0.0, ge=0)
    samples: int = Field(1, ge=1)
    max_new_tokens: int = Field(4096, ge=1)
    grader: Literal["published", "published-medvlm-r1", "tolerant"] = "published"
    seed: int = 42


class Launch(Section):
    """`devices`: processes that train together; `strategy`: how full weights are spread over them."""

    devices: int = Field(1, ge=1)
    strategy: Literal["single", "fsdp", "zero3"] = "single"


class Profile(Section):
    """A whole run. `profile` is the name of the YAML it came from."""

    profile: str
    scale: Literal["tiny", "one-gpu", "published"]
    model: Model
    data: Data
    engine: EngineSettings
    filtering: Filtering
    sft: Sft
    grpo: Grpo
    eval: Eval
    launch: Launch
    arms: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)

    def for_arm(self, arm: str) -> Profile:
        """This profile with the settings of its `arms` block that belong to one arm."""
        values = self.model_dump()
        for section, keys in self.arms.get(arm, {}).items():
            values[section] = {**values[section], **keys}
        return checked(values)

    def with_model(self, name: str) -> Profile:
        """This profile on another model."""
        values = self.model_dump()
        values["model"] = {**values["model"], "name": name, "revision": None}
        return checked(values)

    def completions(self) -> int:
        """Completions a GRPO step, over all devices."""
        return self.grpo.prompts * self.grpo.group_size

    def grpo_accumulation(self) -> int:
        """Forward passes a device makes for one GRPO update."""
        return self.completions() // (self.grpo.updates * self.grpo.micro_batch * self.launch.devices)

    def sft_accumulation(self) -> int:
        return self.sft.batch // (self.sft.micro_batch * self.launch.devices)


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Profile:
    """The profile `name` with dotted overrides such as {"grpo.learning_rate": 1e-5}, checked.

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
    for key, value in overrides.items():
        _override(values, key, value)
    return checked({"profile": name, **values})


def checked(values: dict) -> Profile:
    """Settings as a Profile. Raises UserError that names the first wrong key, or the combination that cannot work."""
    try:
        profile = Profile.model_validate(_numbers(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" is {first['input']!r}"
        what = (
            "is not a setting"
            if first["type"] == "extra_forbidden"
            else f"{given}: {first['msg'][0].lower()}{first['msg'][1:]}"
        )
        raise UserError(
            f"profile {values.get('profile')}: {key} {what.strip()}; see medvlt_lib/config.py for what may stand there."
        ) from None
    _check_combinations(profile)
    return profile


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` strings to a dictionary, values read as YAML (1e-5 is a number). Raises UserError for other forms."""
    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UserError(f"--set {pair}: write it as key=value, for example grpo.learning_rate=1e-5.")
        try:
            settings[key] = float(value)
            settings[key] = int(value)
        except ValueError:
            settings[key] = settings[key] if key in settings else _yaml(pair, value)
    return settings


def _yaml(pair: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {pair}: the value cannot be read; put it in quotes.") from None


def _override(values: dict, key: str, value: Any) -> None:
    *path, last = key.split(".")
    place = values
    for part in path:
        place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UserError(
                f"{key} is not a setting of this profile: there is no section '{part}'; write section.key=value."
            )
    place[last] = value


def _numbers(value: Any) -> Any:
    """YAML reads 1e-5 as text; a string that is a number in scientific notation is meant as one."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, str) and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fitting_graders(rewards: Iterable[str]) -> set[str]:
    """The graders by whose rules an answer counts that these rewards pay for."""
    both = {"published", "published-medvlm-r1"}
    papers = {"published" if name in ("published-signed", "grounded") else name for name in rewards} & both
    return (papers or both) | {"tolerant"}


def _check_combinations(p: Profile) -> None:
    per_update = p.grpo.updates * p.grpo.micro_batch * p.launch.devices
    rules = [
        (p.launch.devices == 1 or p.launch.strategy != "single",
         f"launch.devices is {p.launch.devices} with launch.strategy single; choose fsdp or zero3"),
        (p.completions() % per_update == 0, f"grpo.prompts x grpo.group_size = {p.completions()} completions do not divide into "
         f"grpo.updates x grpo.micro_batch x launch.devices = {per_update}; change one of them"),
        (p.grpo.micro_batch % p.grpo.group_size == 0 or p.grpo.group_size % p.grpo.micro_batch == 0,
         f"grpo.micro_batch {p.grpo.micro_batch} and grpo.group_size {p.grpo.group_size} do not divide each other; make one a multiple of the other"),
        (p.grpo.save_every % p.grpo.updates == 0,
         f"grpo.save_every {p.grpo.save_every} is not a multiple of grpo.updates {p.grpo.updates}; a checkpoint must not fall inside a step"),
        (p.grpo.prompts % p.launch.devices == 0,
         f"grpo.prompts {p.grpo.prompts} cannot be shared by launch.devices {p.launch.devices}; make it a multiple"),
        (p.sft.batch % (p.sft.micro_batch * p.launch.devices) == 0,
         f"sft.batch {p.sft.batch} is not a multiple of sft.micro_batch x launch.devices = {p.sft.micro_batch * p.launch.devices}; change one of them"),
        (p.model.quantization == "none" or p.model.lora is not None,
         "model.quantization is nf4 without model.lora, and 4-bit weights cannot be trained; set model.lora or quantization none"),
        (p.model.quantization == "none" or p.launch.strategy == "single",
         f"model.quantization is nf4 with launch.strategy {p.launch.strategy}, which spreads full weights; set strategy single"),
        (p.filtering.keep_from <= p.filtering.keep_to < p.filtering.samples,
         f"filtering keeps {p.filtering.keep_from} to {p.filtering.keep_to} of {p.filtering.samples} samples; the band must lie below the number of samples"),
        (p.grpo.reward.keys() != {"overlong"}, "grpo.reward is overlong alone, which pays for no answer; add published"),
        ({p.filtering.grader, p.eval.grader} <= _fitting_graders(p.grpo.reward),
         "filtering.grader and eval.grader must be grpo.reward's paper, or tolerant, so that filter, reward and evaluation fit together"),
        (p.engine.kind != "openai" or p.engine.url is not None,
         "engine.kind is openai without engine.url; give the server's address, ending in /v1"),
        (p.grpo.sampler == "engine" or p.launch.strategy != "single",
         "grpo.sampler trl-vllm-server is for full weights on many devices; set sampler engine"),
    ]  # fmt: skip
    for holds, sentence in rules:
        if not holds:
            raise UserError(f"profile {p.profile}: {sentence}.")
