"""Loads an exported folder as somebody would who does not have this library, and answers prompts greedily.

    python load_elsewhere.py FOLDER PROMPTS.json ANSWERS.json [peft | peft-nf4]

Where torchvision does not load beside a CPU build of torch, AutoProcessor cannot build Qwen2.5-VL's processor; its two
parts, tokenizer and image processor, are then used one by one, as the processor does.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

BATCH = 50
sys.modules["medvlt_lib"] = None  # an import of it fails


def load(folder: Path, how: str):
    if how == "transformers":
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    from peft import PeftModel

    arguments = {}
    if how == "peft-nf4":
        from transformers import BitsAndBytesConfig

        skipped = ["model.visual", "lm_head"]
        config = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
        arguments = {
            "quantization_config": BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skipped, **config),
            "device_map": "cpu",
        }
    base = AutoModelForImageTextToText.from_pretrained(folder / "base", dtype=torch.float32, **arguments)
    return PeftModel.from_pretrained(base, folder)


class Parts:
    """Tokenizer and image processor in the place of the whole processor."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.images = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.apply_chat_template = self.tokenizer.apply_chat_template

    def __call__(self, text: list[str], images: list[Image.Image], **how) -> dict[str, torch.Tensor]:
        seen = dict(self.images(images, return_tensors="pt")) if images else {}
        lengths = [int(grid.prod()) // self.images.merge_size**2 for grid in seen.get("image_grid_thw", [])]
        whole = ["".join(self._expanded(one, lengths)) for one in text]
        batch = dict(self.tokenizer(whole, **how))
        image = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        return {**batch, **seen, "mm_token_type_ids": (batch["input_ids"] == image).long()}

    @staticmethod
    def _expanded(text: str, lengths: list[int]):
        first, *others = text.split("<|image_pad|>")
        yield first
        for piece in others:
            yield "<|image_pad|>" * lengths.pop(0) + piece


def load_processor(folder: Path):
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        return Parts(folder)
    return AutoProcessor.from_pretrained(folder)


def main(folder: str, prompts: str, out: str, how: str = "transformers") -> None:
    model, processor, found = load(Path(folder), how), load_processor(Path(folder)), []
    rows = json.loads(Path(prompts).read_text())
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        text = [
            processor.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True) for row in some
        ]
        pictures = [Image.open(path) for row in some for path in row["pictures"]]
        inputs = processor(text=text, images=pictures or None, padding=True, padding_side="left", return_tensors="pt")
        done = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        for ids in done[:, inputs["input_ids"].shape[1] :].tolist():
            found.append(ids[: ids.index(end) + 1] if end in ids else ids)
    Path(out).write_text(json.dumps({"answers": found, "processor": type(processor).__name__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
