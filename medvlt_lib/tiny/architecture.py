"""The two tiny Qwen2.5-VL: architecture, tokenizer and processor, before any training.

Both are `Qwen2_5_VLForConditionalGeneration` with 64-wide attention heads (which vLLM's kernels accept) and an own
byte-level BPE tokenizer over the phantom world, with Qwen's special tokens and the layout of its chat template. The
published instructions are single tokens, so that prompts stay short.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.prompts import MEDVLM_R1_TASK, MEDVLTHINKER_INSTRUCTION, NO_THINK_INSTRUCTION, prompt_text, target
from medvlt_lib.models.processor import as_tokenizer, build_processor
from medvlt_lib.phantom.questions import make_questions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin, Qwen2_5_VLConfig

# The families that the shipped models were taught, and whose text made their tokenizer. The names stay as they are when
# the world gets another family: with it this code would no longer build the shipped vocabulary and weights.
TAUGHT_TEXT = (
    "curb65", "glasgow_coma_scale", "qsofa", "cha2ds2_vasc", "apgar",
    "anion_gap", "mean_arterial_pressure", "shock_index",
)  # fmt: skip
TAUGHT_IMAGE = (
    "cardiothoracic_ratio", "nodule_count", "midline_shift", "bleed_type", "lesion_site", "lesion_size",
    "cup_to_disc_ratio", "dark_nuclei",
)  # fmt: skip
TAUGHT = TAUGHT_TEXT + TAUGHT_IMAGE
SYSTEM = "You are a helpful assistant."
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
WHOLE_TOKENS = [
    MEDVLTHINKER_INSTRUCTION,
    NO_THINK_INSTRUCTION,
    MEDVLM_R1_TASK,
    SYSTEM,
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
]
# Pieces the BPE may merge within: an option letter with the newlines before it, a word, ONE digit, punctuation.
PIECES = r"\n*[A-J][.)](?= )| ?[A-J][.)](?= )| ?[A-Za-z]+| ?\d| ?[^\sA-Za-z0-9]+|\s+"
# The layout of Qwen2.5-VL's template: a default system turn, image markers, an optional assistant opening.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message.role != 'system' -%}{{ '<|im_start|>system\n"
    + SYSTEM
    + "<|im_end|>\n' }}{%- endif -%}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' or 'image' in part -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' or 'video' in part -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
).replace("\n", "\\n")
SIZES = {
    "small": {"width": 128, "mlp": 256, "layers": 3, "vision_width": 64, "vision_mlp": 128, "vision_depth": 2},
    "base": {"width": 256, "mlp": 512, "layers": 4, "vision_width": 128, "vision_mlp": 256, "vision_depth": 3},
}


def checked_size(size: str) -> str:
    """The size itself. Raises UserError when there is no such model."""
    if size not in SIZES:
        raise UserError(f"unknown model size '{size}'; choose one of {', '.join(SIZES)}.")
    return size


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the phantom world's own text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, min_frequency=20, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(_corpus(), trainer)
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in WHOLE_TOKENS])
    return as_tokenizer(core, 4096)


def _corpus() -> Iterator[str]:
    """Text of the phantom world; the instructions are left out, since they become single tokens."""
    for question in make_questions(TAUGHT, "train", 3200, seed=1):
        for style in ("medvlthinker", "medvlm-r1"):
            yield prompt_text(question, style).replace(MEDVLTHINKER_INSTRUCTION, "").replace(MEDVLM_R1_TASK, "")
        yield target(question.reasoning, question.answer_label)
        yield "at a glance Find find Describe. system\nuser\nassistant\n"


def build_tiny_processor() -> ProcessorMixin:
    """Tokenizer, chat template and image processor of the tiny models (images of 112 x 112 become 16 tokens)."""
    settings = {"min_pixels": 28 * 28, "max_pixels": 4 * 112 * 112}
    return build_processor(build_tokenizer(), CHAT_TEMPLATE, settings)


def tiny_config(size: str, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """The configuration of a tiny model: Qwen2.5-VL's, small, with 64-wide heads."""
    from transformers import Qwen2_5_VLConfig

    sizes = SIZES[checked_size(size)]
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": sizes["width"],
        "intermediate_size": sizes["mlp"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["width"] // 64,
        "num_key_value_heads": sizes["width"] // 64,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": sizes["vision_depth"],
        "hidden_size": sizes["vision_width"],
        "intermediate_size": sizes["vision_mlp"],
        "num_heads": sizes["vision_width"] // 64,
        "out_hidden_size": sizes["width"],
        "fullatt_block_indexes": list(range(sizes["vision_depth"])),
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
