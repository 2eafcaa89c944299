"""LoRA adapters: which layers carry them, and their precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import LoraConfig

    from medvlt_lib.core.sections import Lora

# Linear layers of the language model alone: the vision blocks carry gate/up/down_proj too.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def lora_config(lora: Lora) -> LoraConfig:
    """A profile's LoRA in PEFT's terms, on the language model alone."""
    from peft import LoraConfig

    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=LORA_TARGETS)


def lora_to_float32(model: Any) -> None:
    """LoRA weights in float32: in bf16 a small learning rate moves almost none of them."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
