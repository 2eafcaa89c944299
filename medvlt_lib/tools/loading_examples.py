"""How to load an exported arm with plain transformers, PEFT and vLLM: the code blocks of its model card.

The tests run these blocks as they stand in the card.
"""

from __future__ import annotations

import json
from typing import Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.vllm_engine import RANKS

SHIPPED_BASE = "base"  # the folder beside an adapter that holds the shipped tiny model it was trained on
FOLDER = '"."  # this folder (from the Hub: huggingface_hub.snapshot_download(NAME))'


def loading_examples(profile: Profile, arm: str, provenance: dict[str, Any]) -> list[str]:
    """The paragraphs and code blocks of the card."""
    adapter = provenance["form"] == "adapter"
    with_ = "PEFT" if adapter else "transformers"
    # The embedded world's questions are free of anyone's rights.
    prompt = prompt_text(make_questions("curb65", "test", 1)[0], profile.model.prompt_style)
    code = f"""import torch
{_imports(profile, adapter)}

folder = {FOLDER}
{_model(profile, adapter, provenance)}
processor = AutoProcessor.from_pretrained(folder)  # needs torchvision

prompt = {prompt!r}
pictures = []  # PIL images, in the order in which the question speaks of them
content = [*({{"type": "image"}} for _ in pictures), {{"type": "text", "text": prompt}}]
text = processor.apply_chat_template(
    [{{"role": "user", "content": content}}], tokenize=False, add_generation_prompt=True
)
inputs = processor(text=[text], images=pictures or None, return_tensors="pt").to(model.device)
answer = model.generate(**inputs, max_new_tokens={profile.eval.max_new_tokens}, do_sample=False, repetition_penalty=1.0)
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
    return [f"With plain {with_}:", f"```python\n{code}\n```", *_vllm(profile, arm, adapter, provenance)]


def _imports(profile: Profile, adapter: bool) -> str:
    nf4 = adapter and profile.model.quantization == "nf4"
    names = "AutoModelForImageTextToText, AutoProcessor" + (", BitsAndBytesConfig" if nf4 else "")
    return ("from peft import PeftModel\n" if adapter else "") + f"from transformers import {names}"


def _model(profile: Profile, adapter: bool, provenance: dict[str, Any]) -> str:
    m = profile.model
    if not adapter:
        return 'model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")'
    dtype = f"torch.{m.dtype}"
    arguments = [_base(profile, provenance), *([f'revision="{m.revision}"'] if m.revision else [])]
    before = ""
    if m.quantization == "nf4":
        dtype = "torch.float32" if m.device == "cpu" else "torch.bfloat16"
        before = f"""as_trained = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype={dtype},
    llm_int8_skip_modules=["model.visual", "lm_head"],
)
"""
        arguments += ["quantization_config=as_trained", 'device_map="auto"']
    given = ",\n    ".join([*arguments, f"dtype={dtype}"])
    return f"""{before}base = AutoModelForImageTextToText.from_pretrained(
    {given},
)
model = PeftModel.from_pretrained(base, folder)"""


def _base(profile: Profile, provenance: dict[str, Any]) -> str:
    """The first arguments of from_pretrained for an adapter's base: a Hub name, or the folder base/ beside it."""
    shipped = profile.model.name.startswith("phantom:")
    return f'folder + "/{SHIPPED_BASE}"' if shipped else f'"{provenance["base"]["name"]}"'


def _vllm(profile: Profile, arm: str, adapter: bool, provenance: dict[str, Any]) -> list[str]:
    """The server's command line. For an adapter vLLM reads the base's own files: the pixel limits are given again, and
    the base's sampling settings are left out."""
    command = "vllm serve ."
    if adapter:
        m = profile.model
        shipped = m.name.startswith("phantom:")
        words = ["vllm serve", f"./{SHIPPED_BASE}" if shipped else provenance["base"]["name"]]
        words += [f"--revision {m.revision}"] if m.revision else []
        words += [f"--dtype {m.dtype} --enable-lora --max-lora-rank {_rank(profile)} --lora-modules {arm}=."]
        limits = m.pixel_limits()
        words += [f"--mm-processor-kwargs '{json.dumps(limits)}'"] if limits else []
        command = " ".join([*words, "--generation-config vllm"])
    said = "With vLLM, in this folder" + (f", as the model `{arm}`:" if adapter else ":")
    nf4 = "vLLM puts the adapter on the base's original weights and not on the 4-bit ones that it was trained over."
    return [said, f"```bash\n{command}\n```", *([nf4] if adapter and profile.model.quantization == "nf4" else [])]


def _rank(profile: Profile) -> int:
    """The smallest rank that vLLM has kernels for and the adapter fits into."""
    assert profile.model.lora is not None
    return next(rank for rank in RANKS if rank >= profile.model.lora.rank)
