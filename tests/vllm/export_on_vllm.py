"""Answers prompts greedily with plain vLLM on an exported folder, without this library.

python export_on_vllm.py FOLDER PROMPTS.json ANSWERS.json DTYPE [adapter]
"""

import json
import os
import sys
from pathlib import Path

sys.modules["medvlt_lib"] = None  # an import of it fails
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1")


def main(folder: str, prompts: str, out: str, dtype: str, adapter: str = "") -> None:
    from PIL import Image
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    lora = {"enable_lora": True, "max_lora_rank": 16} if adapter else {}
    model = f"{folder}/base" if adapter else folder
    llm = LLM(model=model, dtype=dtype, max_model_len=1024, enforce_eager=True, **lora)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = []
    for row in json.loads(Path(prompts).read_text()):
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
        pictures = [Image.open(path) for path in row["pictures"]]
        asked.append({"prompt": text} | ({"multi_modal_data": {"image": pictures}} if pictures else {}))
    request = LoRARequest("arm", 1, folder) if adapter else None
    done = llm.generate(asked, SamplingParams(temperature=0, max_tokens=96), lora_request=request)
    Path(out).write_text(json.dumps({"answers": [list(one.outputs[0].token_ids) for one in done]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
