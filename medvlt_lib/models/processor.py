"""One loader for the processor.

`AutoProcessor` builds Qwen2.5-VL's processor only where torchvision loads (its video part needs it); a CPU build of
torch cannot load the torchvision wheel. Without torchvision the same class is built on the Pillow image processor and
no video part, and it saves what AutoProcessor elsewhere expects to read.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.errors import UserError, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

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
            self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids(
                [self.image_token, self.video_token]
            )
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


def as_tokenizer(core: Tokenizer, longest: int) -> PreTrainedTokenizerFast:
    """A tokenizer of the `tokenizers` library as transformers', with Qwen's ends of a turn and of a text; `longest`: in
    tokens. Not Qwen2Tokenizer: that one puts Qwen's own pre-tokenizer back when it loads."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=longest,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerBase, chat_template: str, image_settings: dict) -> ProcessorMixin:
    """A Qwen2.5-VL processor from its parts (image_settings: arguments of the image processor)."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return _image_text_processor()(Qwen2VLImageProcessorPil(**image_settings), tokenizer, chat_template=chat_template)


def load_processor(
    folder: str | Path, without_torchvision: bool | None = None, revision: str | None = None
) -> ProcessorMixin:
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
        raise UserError(
            f"cannot load a processor from {folder} ({first_line(error)}); check the model's name or folder."
        ) from error
    processor.tokenizer.padding_side = "left"
    return processor


def image_tokens(processor: ProcessorMixin, width: int, height: int) -> int:
    """How many tokens of a prompt an image of this size becomes, under the processor's pixel limits."""
    images = processor.image_processor
    return images.get_number_of_image_patches(height, width, {}) // images.merge_size**2


def _image_settings(folder: str | Path, revision: str | None) -> dict:
    from transformers.utils import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(str(folder), name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if path:
            config = json.loads(Path(path).read_text())
            config = config.get("image_processor", config)
            return {k: v for k, v in config.items() if k not in ("image_processor_type", "processor_class")}
    raise OSError("it has no preprocessor_config.json or processor_config.json")
