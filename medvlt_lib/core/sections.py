"""The sections of a profile: every setting with its type, default and the values it may take. No torch here."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator


class Section(BaseModel):
    """A part of a profile. It takes no unknown keys and converts no values, with two exceptions: 1 may stand for 1.0,
    and text is read as the number or YAML value that it spells, unless its key takes text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        types = {key: field.annotation for key, field in cls.model_fields.items()}
        return {k: value_of(v, types[k]) if isinstance(v, str) and k in types else v for k, v in values.items()}


def value_of(text: str, type_: Any) -> Any:
    """What `text` means for a key of this type. `--set` gives every value as text, and YAML reads 1e-5 as text.

    A key that takes text keeps it as it is written, so that the revision 1234e56 stays a revision; null is None.
    """
    if text == "null" and type(None) in get_args(type_):
        return None
    if _takes_text(type_):
        return text
    for read in (int, float, yaml.safe_load):
        try:
            return read(text)
        except (ValueError, yaml.YAMLError):
            continue
    return text


def _takes_text(type_: Any) -> bool:
    if get_origin(type_) in (Union, UnionType):
        return any(_takes_text(one) for one in get_args(type_))
    return type_ is str or get_origin(type_) is Literal


class Lora(Section):
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class Model(Section):
    """`name`: a Hub name, a folder, or phantom:small / phantom:base for the shipped tiny models. `revision`: a commit
    or branch of a Hub name. `prompt_style`: how questions are put to the model, and the form its answers must have."""

    name: str
    revision: str | None = None
    prompt_style: Literal["medvlthinker", "medvlm-r1", "no-think"] = "medvlthinker"
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantization: Literal["none", "nf4"] = "none"
    lora: Lora | None = None
    min_pixels: int | None = Field(None, ge=784)
    max_pixels: int | None = Field(None, ge=784)
    device: Literal["cpu", "cuda"] = "cpu"

    def pixel_limits(self) -> dict[str, int]:
        """The limits that are set, as processors take them: min_pixels, max_pixels."""
        both = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {name: limit for name, limit in both.items() if limit is not None}


class Data(Section):
    """Each set is `phantom:FAMILIES`, `mni152:FAMILIES` (medvlt_lib/data/slices.py), `hub:NAME`
    (medvlt_lib/data/published.py lists them), `split:TRAINING_SET` or a question file (.parquet, .jsonl); sizes count
    questions. `traces_image`: image questions with chains of thought for
    SFT, where `train_image` has none. `label_noise`, `trace_noise`: the share of phantom questions in `train_image`
    with a wrong label, or with a wrong step; `noise_kind`: whether wrong labels are random or the same mistake wherever
    it is made; `given_away`: the share that can be answered without the picture (medvlt_lib/phantom/flaws.py).
    `trace_style`: how the phantom teacher writes its chains of thought
    (medvlt_lib/phantom/teacher.py); `wording`: phantom questions in short notes or in plain sentences
    (medvlt_lib/phantom/plain.py). `mirror`: a folder of copies of Hub sets, each in a folder named like it.
    `drop_leaks`: drop training questions that equal validation or test questions. `endpoint`: an OpenAI-compatible
    server that lists options of closed questions, with prices and a cap of its own, as in EngineSettings."""

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
    noise_kind: Literal["random", "systematic"] = "random"
    given_away: float = Field(0.0, ge=0, le=1)
    trace_style: Literal["own", "foreign", "terse", "plain"] = "own"
    wording: Literal["short", "plain"] = "short"
    drop_leaks: bool = False
    mirror: str | None = None
    endpoint: str | None = None
    endpoint_model: str = "gpt-4o-2024-11-20"
    endpoint_prompt_price: float = Field(0.0, ge=0)
    endpoint_completion_price: float = Field(0.0, ge=0)
    endpoint_max_cost: float | None = Field(None, gt=0)
    seed: int = 0


class EngineSettings(Section):
    """How completions are sampled for filtering and evaluation. `batch_tokens`: tokens in memory at once, prompts and
    completions. `kind` openai asks model.name of the server at `url`, `concurrency` prompts at a time; `prompt_price`
    and `completion_price` are US dollars a million tokens, and `max_cost` caps the dollars spent on that model in all
    runs. `kind` vllm spreads a model over `tensor_parallel` GPUs, takes the share `gpu_memory` of each, and up to
    `max_images` pictures a question. GRPO's `sampler` is a setting of its own."""

    kind: Literal["transformers", "vllm", "openai"] = "transformers"
    tensor_parallel: int = Field(1, ge=1)
    gpu_memory: float = Field(0.85, gt=0, lt=1)
    max_images: int = Field(8, ge=1)
    url: str | None = None
    concurrency: int = Field(8, ge=1)
    prompt_price: float = Field(0.0, ge=0)
    completion_price: float = Field(0.0, ge=0)
    max_cost: float | None = Field(None, gt=0)
    batch_tokens: int = Field(80_000, ge=1)


GraderName = Literal["published", "published-medvlm-r1", "tolerant"]


class Filtering(Section):
    """`mode` adaptive stops asking a question once its band is decided, with a probability of error up to `error`."""

    mode: Literal["full", "adaptive"] = "full"
    error: float = Field(0.05, gt=0, lt=0.5)
    samples: int = Field(16, ge=2)
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(4096, ge=1)
    grader: GraderName = "published"
    keep_from: int = Field(1, ge=0)
    keep_to: int = Field(7, ge=0)
    seed: int = 42


class Teacher(Section):
    """Who writes chains of thought. `name`: phantom:own, phantom:foreign or phantom:terse, the teacher of the embedded
    world (medvlt_lib/phantom/teacher.py); with `url`, a model of that OpenAI-compatible server, whose key is in the
    environment variable `key`, with prices and a cap as in EngineSettings; else a model that the engine loads as it
    loads model.name. `asks`: about which of the training sets.

    `samples` answers to every question. The defaults are those with which MedVLThinker asked GPT-4o about PMC-VQA;
    DeepSeek-R1 was asked about the questions of m23k (m1, arXiv 2504.00869) with prompt boxed, 1 sample, temperature 0
    and 8000 tokens. `grader`: an answer in a box is read by `tolerant` alone."""

    name: str
    url: str | None = None
    key: str = "OPENAI_API_KEY"
    asks: Literal["text", "image", "both"] = "both"
    prompt: Literal["medvlthinker", "boxed"] = "medvlthinker"
    samples: int = Field(3, ge=1)
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: int = Field(4096, ge=1)
    grader: GraderName = "published"
    concurrency: int = Field(8, ge=1)
    prompt_price: float = Field(0.0, ge=0)
    completion_price: float = Field(0.0, ge=0)
    max_cost: float | None = Field(None, gt=0)

    def loaded_by_engine(self) -> bool:
        return self.url is None and not self.name.startswith("phantom:")


TeacherName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # a folder is named so


class Distill(Section):
    """`teachers` by names of your own. At most `keep` chains of thought are kept of a question: the first right one of
    every teacher in turn, then the second, and so on."""

    teachers: dict[TeacherName, Teacher] = Field(default_factory=dict)
    keep: int = Field(1, ge=1)
    seed: int = 42


class Optimisation(Section):
    """What SFT and GRPO share. `max_steps` ends training early; `micro_batch` is rows a device and forward pass.

    Every `validate_every` optimizer updates the model answers `validation_questions` questions of the validation set,
    from which the checkpoint is chosen (medvlt_lib/training/validation.py); null: never, the checkpoint is the last."""

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
    validate_every: int | None = Field(None, ge=1)
    validation_questions: int = Field(40, ge=1)
    seed: int = 42


class Sft(Optimisation):
    """`batch` counts sequences in one update over all devices; sequences over `max_length` tokens are refused. `data`:
    the training questions with the chains of thought that they came with, those that filtering kept, or the chains of
    thought that `medvlt distill` wrote. `target`: what the loss falls on, the chain of thought with the answer, or the
    answer alone (MedVLM-R1's baseline)."""

    batch: int = Field(16, ge=1)
    max_length: int = Field(32768, ge=16)
    data: Literal["train", "kept", "distilled"] = "train"
    target: Literal["full", "answer_only"] = "full"


RewardName = Literal["published", "published-signed", "published-medvlm-r1", "tolerant", "grounded", "overlong"]


def _alone(value: Any) -> Any:
    """A reward's name alone stands for that reward with the weight 1."""
    return {value: 1.0} if isinstance(value, str) else value


class Grpo(Optimisation):
    """`prompts` a step x `group_size` completions, in `updates` optimizer steps; names as in the papers and TRL.

    `sampler`: `engine` samples with the training model itself, so every device must hold all weights; `vllm` starts
    vLLM beside it on one device, in the share `sampler_memory` of the GPU; `trl-vllm-server` asks a server on GPUs of
    its own. With `vllm`, `sampler_base` says what it holds for an NF4 model (the weights as `original`ly published, or
    `dequantized` from 4 bits, written to disk once), and `importance_cap` cuts the ratios that correct for what sampler
    and learner differ in; null: no correction. `update`: `shared` reads a prompt once for all its completions; `stock`
    is TRL's own path, which reads it once for each. `reward`: a reward of medvlt_lib/grading/rewards.py, or `grounded`,
    or several with their weights in the sum, such as {published: 1.0, overlong: 0.1}.

    `loss_type`, each as its paper normalises it: grpo (arXiv 2402.03300), dr_grpo (2503.20783), bnpo (2506.02864), dapo
    (2503.14476), gspo (2507.18071, one ratio a completion), cispo (2506.13585, a cut weight instead of clipping). All
    cost the same; several `updates`, or vLLM's ratios, cost one more forward, for the old probabilities.
    `beta` above 0, the KL term of 2402.03300, costs one more forward, and groups with equal rewards are not skipped.
    `epsilon_high`: the upper bound of clipping, where it is not `epsilon` (DAPO's clip-higher: 0.28 with 0.2).
    `order`: `shuffled`; `easy-first`, by filtering's pass counts; `online`, a curriculum that follows the policy
    (medvlt_lib/training/question_queue.py). `dynamic_sampling` (2503.14476): how many times in a step groups whose
    rewards are all equal are replaced by those of the next questions; each time costs the rollouts of those replaced.
    `micro_batch` below `group_size`: a prompt is read once a micro-batch, not once a group."""

    prompts: int = Field(256, ge=1)
    group_size: int = Field(8, ge=2)
    updates: int = Field(2, ge=1)
    beta: float = Field(0.01, ge=0)
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float | None = Field(None, gt=0)
    loss_type: Literal["grpo", "dr_grpo", "bnpo", "dapo", "gspo", "cispo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    temperature: float = Field(1.0, gt=0)
    max_prompt_length: int = Field(2048, ge=1)
    max_completion_length: int = Field(4096, ge=1)
    reward: Annotated[dict[RewardName, FiniteFloat], BeforeValidator(_alone)] = Field({"published": 1.0}, min_length=1)
    sampler: Literal["engine", "vllm", "trl-vllm-server"] = "engine"
    sampler_memory: float = Field(0.4, gt=0, lt=1)
    sampler_base: Literal["dequantized", "original"] = "dequantized"
    importance_cap: float | None = Field(2.0, gt=0)
    update: Literal["shared", "stock"] = "shared"
    data: Literal["kept", "control"] = "kept"
    order: Literal["shuffled", "easy-first", "online"] = "shuffled"
    dynamic_sampling: int = Field(0, ge=0, le=8)

    def fitting_graders(self) -> set[str]:
        """The graders by whose rules an answer counts that the rewards pay for."""
        papers = {"published", "published-medvlm-r1"}
        paid = {"published" if name in ("published-signed", "grounded") else name for name in self.reward} & papers
        return (paid or papers) | {"tolerant"}


class Eval(Section):
    temperature: float = Field(0.0, ge=0)
    samples: int = Field(1, ge=1)
    max_new_tokens: int = Field(4096, ge=1)
    grader: GraderName = "published"
    seed: int = 42


class Launch(Section):
    """`devices`: processes that train together, `machines`: on how many machines they are, the same number on each.
    `strategy`: where the weights lie; `single` is one device, with `ddp` every device holds all of them, `fsdp` and
    `zero3` spread them over the devices. `tracker`: where SFT and GRPO report their log besides log.jsonl; each needs
    the package of its name."""

    devices: int = Field(1, ge=1)
    machines: int = Field(1, ge=1)
    strategy: Literal["single", "ddp", "fsdp", "zero3"] = "single"
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
