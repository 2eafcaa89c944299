"""Processor, model and engine for a profile: float32, bf16, NF4, LoRA.

One loader for the processor. `AutoProcessor` builds Qwen2.5-VL's processor only where torchvision loads (its video
part needs it); a CPU build of torch cannot load the torchvision wheel. Without torchvision the same class is built on
the Pillow image processor and no video part, and it saves what AutoProcessor elsewhere expects to read.
"""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

from medvlt_lib.records import UserError, first_line
from medvlt_lib.runs import file_hash

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it misses an optional package each time

# Linear layers of the language model alone: the vision blocks carry gate/up/down_proj too.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
# What Qwen2-VL's video processor saves beside the image processor's own values (transformers 5.17).
_VIDEO = {"video_processor_type": "Qwen2VLVideoProcessor", "min_frames": 4, "max_frames": 768}


def torchvision_loads() -> bool:
    """Whether torchvision is there and fits the installed torch (a wheel for another build fails at import)."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


@functools.cache
def _image_text_processor() -> type:
    """Qwen2.5-VL's processor without its video part; it keeps the class name, which the saved files carry."""
    from transformers.models.qwen2_5_vl import processing_qwen2_5_vl as module
    from transformers.processing_utils import ProcessorMixin

    class Qwen2_5_VLProcessor(module.Qwen2_5_VLProcessor):
        def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
            saved = super().save_pretrained(save_directory, push_to_hub, **kwargs)
            path = Path(save_directory) / "processor_config.json"
            config = json.loads(path.read_text())
            config["image_processor"]["image_processor_type"] = "Qwen2VLImageProcessor"
            sizes = {k: v for k, v in config["image_processor"].items() if k != "image_processor_type"}
            config["video_processor"] = {**sizes, **_VIDEO}
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            return saved

    return Qwen2_5_VLProcessor


def build_processor(tokenizer, chat_template: str, image_settings: dict):
    """A Qwen2.5-VL processor from its parts (image_settings: arguments of the image processor)."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return _image_text_processor()(Qwen2VLImageProcessorPil(**image_settings), tokenizer, chat_template=chat_template)


def load_processor(folder: str | Path, without_torchvision: bool | None = None, revision: str | None = None):
    """The processor of a folder or a Hub name, with left padding. Raises UserError when there is none to load.

    `without_torchvision` forces one of the two ways (for the test that compares them).
    """
    from transformers import AutoTokenizer

    if without_torchvision is None:
        without_torchvision = not torchvision_loads()
    try:
        if without_torchvision:
            tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)
            settings = _image_settings(folder, revision)
            processor = build_processor(tokenizer, tokenizer.chat_template, settings)
        else:
            from transformers import AutoProcessor

            processor = AutoProcessor.from_pretrained(folder, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot load a processor from {folder} ({first_line(error)}); check the model's name or folder.") from error
    processor.tokenizer.padding_side = "left"
    return processor


def _image_settings(folder: str | Path, revision: str | None) -> dict:
    from transformers.utils import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(str(folder), name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if path:
            config = json.loads(Path(path).read_text())
            config = config.get("image_processor", config)
            return {k: v for k, v in config.items() if k not in ("image_processor_type", "processor_class")}
    raise OSError("it has no preprocessor_config.json or processor_config.json")


def load_model(folder: str | Path, dtype: str = "float32", device: str = "cpu", revision: str | None = None):
    """The image-text model of a folder or a Hub name. Raises UserError for missing, damaged or foreign weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(folder, revision=revision)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, config=config, revision=revision, dtype=getattr(torch, dtype), output_loading_info=True
        )
        model = model.to(device)
    except Exception as error:  # safetensors, json and transformers each raise their own kind
        raise UserError(
            f"cannot load a model from {folder} ({first_line(error)}); check the folder, or the name, the network and the device."
        ) from error
    wrong = [k for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for k in report.get(key) or []]
    wrong = [k for k in wrong if not (k == "lm_head.weight" and config.tie_word_embeddings)]
    if wrong:
        raise UserError(f"the weights in {folder} do not belong to its config.json (for one, {wrong[0]}); fetch the folder again.")
    return model.eval()


def resolve(name: str) -> str:
    """A profile's model name as a folder or Hub name (phantom:base is the shipped larger tiny model)."""
    from medvlt_lib.phantom.tiny_model import shipped

    return str(shipped(name.removeprefix("phantom:"))) if name.startswith("phantom:") else name


def profile_processor(profile):
    """The processor of a profile's model, with its pixel limits in force."""
    processor = load_processor(resolve(profile.model.name), revision=profile.model.revision)
    limits = {"shortest_edge": profile.model.min_pixels, "longest_edge": profile.model.max_pixels}
    for key, value in limits.items():
        if value is not None:
            processor.image_processor.size[key] = value
    return processor


def load_policy(profile, checkpoint: Path | None = None, trainable: bool = False, seed: int = 42):
    """A profile's model, or an arm's checkpoint of it (full weights or a LoRA adapter); with a new adapter, drawn from
    `seed`, to train.

    With NF4 the vision tower and the output layer stay in full precision, which is asserted. LoRA weights are float32.
    """
    m = profile.model
    adapter = checkpoint is not None and (checkpoint / "adapter_config.json").exists()
    source, revision = (resolve(m.name), m.revision) if checkpoint is None or adapter else (checkpoint, None)
    dtype = "float32" if trainable and m.lora is None else m.dtype  # full-weight training keeps float32 master weights
    if trainable and m.lora is not None and checkpoint is not None and not adapter:
        raise UserError(f"{checkpoint} holds full weights, and profile {profile.profile} trains an adapter; name it as model.name instead.")
    device = "cpu" if trainable and profile.launch.devices > 1 else m.device  # accelerate places what several devices share
    model = load_nf4(source, device, revision) if m.quantization == "nf4" else load_model(source, dtype, device, revision)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, checkpoint, is_trainable=trainable)
    elif m.lora is not None and trainable:
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        config = LoraConfig(r=m.lora.rank, lora_alpha=m.lora.alpha, lora_dropout=m.lora.dropout, target_modules=LORA_TARGETS)
        model = get_peft_model(model, config)
    lora_to_float32(model)
    return model


def load_nf4(source: str | Path, device: str, revision: str | None = None):
    """The model with its language layers in 4-bit NF4 (QLoRA, arXiv 2305.14314, section 3), vision in full precision."""
    import torch
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    compute = torch.float32 if device == "cpu" else torch.bfloat16
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute, llm_int8_skip_modules=["model.visual", "lm_head"]
    )
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source, revision=revision, quantization_config=config, dtype=compute, device_map={"": device}
        )
    except Exception as error:  # safetensors, json, CUDA and transformers each raise their own kind
        raise UserError(f"cannot load a model from {source} ({first_line(error)}); check the name, the network and the device.") from error
    packed = {n: module for n, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert packed and not any("visual" in n for n in packed), "NF4 reached the vision tower; check llm_int8_skip_modules"
    for module in packed.values():  # bitsandbytes 0.50 repacks weights at the first rollout on such a CPU and then cannot train
        module.support_avx512bf16_for_cpu = False
    return model


def lora_to_float32(model) -> None:
    """LoRA weights in float32: in bf16 a small learning rate moves almost none of them."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def build_engine(profile, checkpoint: Path | None = None):
    """The rollout engine of a profile, on its base model or on an arm's checkpoint. Raises UserError for a checkpoint on a server."""
    if profile.engine.kind == "openai":
        from medvlt_lib.rollout.openai_engine import ChatClient, OpenAIEngine

        if checkpoint is not None:
            raise UserError(f"engine.kind openai cannot load {checkpoint}; serve it there and name it as model.name.")
        e = profile.engine
        client = ChatClient(e.url, profile.model.name, prices=(e.prompt_price, e.completion_price), max_cost=e.max_cost)
        return OpenAIEngine(client, e.concurrency)
    if profile.engine.kind == "vllm":
        from medvlt_lib.rollout.vllm_engine import build_vllm_engine

        return build_vllm_engine(profile, checkpoint)
    from medvlt_lib.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(load_policy(profile, checkpoint).eval(), profile_processor(profile), profile.engine.batch_tokens)


def weights_id(profile) -> str:
    """What tells a profile's base weights from others: a hash of a local folder's files, or a Hub name and its commit."""
    from transformers import AutoConfig

    if profile.engine.kind == "openai":
        return f"{profile.model.name} at {profile.engine.url}"
    place = Path(resolve(profile.model.name))
    if place.is_dir():
        return file_hash(place)[:16]
    commit = getattr(AutoConfig.from_pretrained(str(place), revision=profile.model.revision), "_commit_hash", None)
    return f"{place}@{commit}"
