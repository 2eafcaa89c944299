"""A profile's policy on fake tensors: its true shape, no weights, no download.

Shapes are those of a folder's config.json, or of assets/planning/models.yaml. The model is built on the meta device,
gets NF4 layers and LoRA as `load_policy` gives them, and then every parameter and buffer gets a fake twin, counted by
medvlt_lib.tools.counting. An NF4 layer is bitsandbytes' own module, with packed weights that have no contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.models.adapters import lora_config
from medvlt_lib.models.loading import resolve
from medvlt_lib.tools.counting import Counting

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from medvlt_lib.core.config import Profile

FACTS = Path(__file__).parents[1] / "assets" / "planning" / "models.yaml"
NF4_BLOCK = 64  # weights that share a float32 scale (bitsandbytes' default)


@dataclass(frozen=True)
class Shape:
    """A model's configuration, and whether its figures are confirmed (see assets/planning/models.yaml)."""

    config: PreTrainedConfig
    confirmed: bool

    def weights(self) -> int:
        """How many weights the model has; tied ones count once."""
        return sum(weight.numel() for weight in meta_model(self.config, torch.bfloat16).parameters())

    def cache_bytes(self) -> int:
        """Bytes of the key and value cache of one token, in bf16."""
        text = self.config.get_text_config()
        return (
            2 * 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
        )


def shape_of(name: str, processor: ProcessorMixin) -> Shape:
    """The shape of a profile's model, with the token ids of `processor`, whose tokenizer may be another's.

    Raises UserError for a name that is no folder and not in assets/planning/models.yaml.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2VLConfig

    rows = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    if name not in rows and (Path(resolve(name)) / "config.json").is_file():
        return Shape(_config_of(Path(resolve(name))), confirmed=True)
    if name not in rows:
        raise UserError(
            f"the shape of {name} is not known; set model.name to a folder with its config.json, or to one of "
            f"{', '.join(rows)}."
        )
    row, token = rows[name], processor.tokenizer.convert_tokens_to_ids
    kind = {"2.5": Qwen2_5_VLConfig, "2": Qwen2VLConfig}[row["family"]]
    rope = row.get("rope") or {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = kind(
        text_config={**row["text"], "rope_parameters": rope, "max_position_embeddings": 128_000},
        vision_config=row["vision"],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=row["tied"],
    )
    return Shape(config, row["confirmed"])


def _config_of(folder: Path) -> PreTrainedConfig:
    """The configuration in a folder. Raises UserError for one that cannot be read, or of a model without pictures."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # of many kinds
        raise UserError(
            f"{folder / 'config.json'} describes no model ({first_line(error)}); copy the folder again, or set "
            "model.name to another."
        ) from None
    if not hasattr(config, "vision_config"):
        raise UserError(
            f"{folder / 'config.json'} is that of a {config.model_type} model, which sees no pictures; "
            "set model.name to a Qwen2-VL or Qwen2.5-VL model."
        )
    return config


def meta_model(config: PreTrainedConfig, dtype: torch.dtype) -> Any:
    """A model on the meta device: shapes alone."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)


def fake_policy(profile: Profile, config: PreTrainedConfig, counting: Counting, dtype: torch.dtype) -> Any:
    """What `load_policy(profile, trainable=True)` gives, on fake tensors that `counting` counts; weights that are not
    in 4 bits are of type `dtype`."""
    from peft import get_peft_model

    m = profile.model
    model = meta_model(config, dtype)
    if m.quantization == "nf4":
        _pack(model)
    if m.lora is not None:
        model = get_peft_model(model, lora_config(m.lora), low_cpu_mem_usage=True)
    _give_fakes(model, counting)
    return model


def _pack(model: Any) -> None:
    """NF4 layers where `load_nf4` has them: the linear layers of the language model."""
    from bitsandbytes.nn import Linear4bit

    for module in list(model.model.language_model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                packed = Linear4bit(
                    child.in_features, child.out_features, child.bias is not None, child.weight.dtype,
                    compress_statistics=False, quant_type="nf4", device="meta",
                )  # fmt: skip
                packed.support_avx512bf16_for_cpu = False
                if packed.bias is not None:
                    packed.bias = torch.nn.Parameter(packed.bias.to(child.weight.dtype), requires_grad=False)
                setattr(module, name, packed)
    model.requires_grad_(False)
    model.is_loaded_in_4bit = True


def _give_fakes(model: Any, counting: Counting) -> None:
    """A fake in place of every parameter and buffer; tied ones share theirs."""
    from bitsandbytes.nn import Linear4bit

    twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # with the original, so that no id is used again

    def twin(tensor: torch.Tensor, part: str) -> torch.Tensor:
        if id(tensor) not in twins:
            made = counting.empty(tensor.shape, tensor.dtype, part)
            if isinstance(tensor, torch.nn.Parameter):
                made = torch.nn.Parameter(made, requires_grad=tensor.requires_grad)
            twins[id(tensor)] = tensor, made
        return twins[id(tensor)][1]

    for owner in model.modules():
        if isinstance(owner, Linear4bit):
            owner._parameters["weight"] = _packed_weight(owner, counting)
        for name, weight in owner._parameters.items():
            if weight is not None and weight.device.type == "meta":
                owner._parameters[name] = twin(weight, "weights")
        for name, buffer in owner._buffers.items():
            if buffer is not None and buffer.device.type == "meta":
                owner._buffers[name] = twin(buffer, "weights")


def _packed_weight(layer: Any, counting: Counting) -> torch.nn.Parameter:
    """Half a byte a weight, and a scale for each block of them."""
    from bitsandbytes.functional import QuantState

    shape, size = layer.weight.shape, layer.weight.numel()
    packed = counting.empty(((size + 1) // 2, 1), torch.uint8, "weights")
    weight = torch.nn.Parameter(packed, requires_grad=False)
    weight.quant_state = QuantState(
        absmax=counting.empty((-(-size // NF4_BLOCK),), torch.float32, "weights"), shape=shape,
        code=torch.zeros(16), blocksize=NF4_BLOCK, quant_type="nf4", dtype=layer.compute_dtype,
    )  # fmt: skip
    return weight
