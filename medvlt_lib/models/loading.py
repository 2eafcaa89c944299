"""A profile's model: float32, bf16, NF4 with LoRA; and what tells its weights from others."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import file_hash, read_json
from medvlt_lib.core.stage import first_process
from medvlt_lib.core.threads import watch_cores
from medvlt_lib.models.adapters import lora_config, lora_to_float32
from medvlt_lib.models.processor import load_processor
from medvlt_lib.models.shipped import shipped
from medvlt_lib.models.smol import NAME as SMOL
from medvlt_lib.models.smol import smol_folder, smol_id

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, ProcessorMixin

    from medvlt_lib.core.config import Profile

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it misses an optional package each time


def resolve(name: str) -> str:
    """A profile's model name as a folder or Hub name: phantom:base is the shipped larger tiny model; phantom:smol is
    built on first use (medvlt_lib/models/smol.py)."""
    if name == SMOL:
        return str(smol_folder())
    return str(shipped(name.removeprefix("phantom:"))) if name.startswith("phantom:") else name


def profile_processor(profile: Profile) -> ProcessorMixin:
    """The processor of a profile's model, with its pixel limits in force."""
    processor = load_processor(resolve(profile.model.name), revision=profile.model.revision)
    limits = {"shortest_edge": profile.model.min_pixels, "longest_edge": profile.model.max_pixels}
    for key, value in limits.items():
        if value is not None:
            processor.image_processor.size[key] = value
    return processor


def load_model(
    folder: str | Path, dtype: str = "float32", device: str = "cpu", revision: str | None = None
) -> PreTrainedModel:
    """The image-text model of a folder or a Hub name. Raises UserError for missing, damaged or foreign weights."""
    import torch

    return _load(folder, revision, device, dtype=getattr(torch, dtype)).eval()


def load_nf4(source: str | Path, device: str, revision: str | None = None) -> PreTrainedModel:
    """The model with its language layers in 4-bit NF4 (QLoRA, arXiv 2305.14314, section 3), vision in full precision.

    Raises UserError as `load_model`.
    """
    import torch
    from transformers import BitsAndBytesConfig

    compute = torch.float32 if device == "cpu" else torch.bfloat16
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=["model.visual", "lm_head"],
    )
    model = _load(source, revision, device, quantization_config=config, dtype=compute, device_map={"": device})
    packed = {name: module for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    reached = any("visual" in name for name in packed)
    assert packed and not reached, "NF4 reached the vision tower; check llm_int8_skip_modules"
    for module in packed.values():
        # bitsandbytes 0.50 repacks weights at the first rollout on a CPU with this feature and then cannot train.
        module.support_avx512bf16_for_cpu = False
    return model


def _load(source: str | Path, revision: str | None, device: str, **how: Any) -> PreTrainedModel:
    """A model with every weight of its configuration and no other. Raises UserError as `load_model`."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        model, report = AutoModelForImageTextToText.from_pretrained(
            source, config=config, revision=revision, output_loading_info=True, **how
        )
        model = model.to(device)
    except Exception as error:  # safetensors, json, CUDA and transformers each raise their own kind
        raise UserError(
            f"cannot load a model from {source} ({first_line(error)}); "
            "check the folder, or the name, the network and the device."
        ) from error
    wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report.get(kind) or []]
    wrong = [key for key in wrong if not (key == "lm_head.weight" and config.tie_word_embeddings)]
    if wrong:
        raise UserError(
            f"the weights in {source} do not belong to its config.json (for one, {wrong[0]}); fetch the folder again."
        )
    watch_cores(model)
    return model


def load_policy(
    profile: Profile, checkpoint: Path | None = None, trainable: bool = False, seed: int = 42
) -> PreTrainedModel | PeftModel:
    """A profile's model, or an arm's checkpoint of it (full weights or a LoRA adapter); with a new adapter, drawn from
    `seed`, to train.

    With NF4 the vision tower and the output layer stay in full precision, which is asserted. LoRA weights are float32.
    Raises UserError for a checkpoint that does not fit the profile.
    """
    m = profile.model
    adapter = checkpoint is not None and is_adapter(checkpoint)
    if adapter:
        check_base(checkpoint, m.name)
    source, revision = (resolve(m.name), m.revision) if checkpoint is None or adapter else (checkpoint, None)
    dtype = "float32" if trainable and m.lora is None else m.dtype  # full-weight training keeps float32 master weights
    if trainable and m.lora is not None and checkpoint is not None and not adapter:
        raise UserError(
            f"{checkpoint} holds full weights, and profile {profile.profile} trains an adapter; "
            "name it as model.name instead."
        )
    device = _place(profile) if trainable else m.device
    if m.quantization == "nf4":
        model = load_nf4(source, device, revision)
    elif trainable and m.lora is None and profile.launch.strategy == "fsdp" and not first_process():
        model = unwritten_model(source, revision)
    else:
        model = load_model(source, dtype, device, revision)
    if adapter:
        model = load_adapter(model, checkpoint, trainable)
    elif m.lora is not None and trainable:
        import torch
        from peft import get_peft_model

        torch.manual_seed(seed)
        model = get_peft_model(model, lora_config(m.lora))
    lora_to_float32(model)
    return model


def _place(profile: Profile) -> str:
    """Where the weights of a model that is to be trained are loaded: where several devices train, accelerate moves them
    from the CPU to its devices; packed 4-bit ones, which it does not move, must be on this process's GPU already."""
    m = profile.model
    if profile.launch.devices == 1:
        return m.device
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if m.quantization == "nf4" and m.device == "cuda" else "cpu"


def unwritten_model(source: str | Path, revision: str | None = None) -> PreTrainedModel:
    """The model of a folder or a Hub name in float32, whose weights nobody has written or read: such memory takes no
    room until it is written to. With FSDP, accelerate gives every process its part of the first one's weights
    (fsdp_cpu_ram_efficient_loading); transformers 5.17 would read all weights in all of them."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    config = AutoConfig.from_pretrained(source, revision=revision)
    with no_init_weights():
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.tie_weights()
    watch_cores(model)
    return model.eval()


def load_adapter(model: PreTrainedModel, checkpoint: Path, trainable: bool = False) -> PeftModel:
    """The model with a LoRA adapter on it. Raises UserError when the adapter is damaged or of another model: where
    names differ, PEFT only warns, and the adapter would do nothing."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, checkpoint, is_trainable=trainable)
    except Exception as error:  # torch, safetensors, json and PEFT each raise their own kind
        raise UserError(
            f"the adapter in {checkpoint} does not fit its base model ({first_line(error)}); "
            "train it again, or choose another."
        ) from error


def is_adapter(checkpoint: Path) -> bool:
    return (checkpoint / "adapter_config.json").is_file()


def check_base(adapter: Path, name: str) -> None:
    """Raises UserError when an adapter was trained on another model than `name`."""
    base = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if base and Path(resolve(base)).absolute() != Path(resolve(name)).absolute():
        raise UserError(
            f"the adapter in {adapter} was trained on {base}, and model.name is {name}; "
            f"choose another adapter, or set model.name to {base}."
        )


def weights_id(profile: Profile) -> str:
    """What tells a profile's base weights from others: a hash of a folder's files, of what phantom:smol is made of, or
    a Hub name and its commit."""
    if profile.engine.kind == "openai":
        return f"{profile.model.name} at {profile.engine.url}"
    if profile.model.name == SMOL:
        return smol_id()
    name, revision = resolve(profile.model.name), profile.model.revision
    if Path(name).is_dir():
        return file_hash(Path(name))[:16]
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"cannot load a model from {name} ({reason}); check the name and the network.") from error
    return f"{name}@{getattr(config, '_commit_hash', None)}"
