"""Answers multiple-choice questions with plain transformers, as somebody would who does not have this library.

    python plain_transformers.py MODEL QUESTIONS.json LETTERS.json

The prompt is written from MedVLThinker's paper and release, and the letter is what stands in the last answer tag.
"""

import json
import re
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from load_elsewhere import load, load_processor

BATCH = 50
ASKED = (
    "You will solve a problem/request. You should provide your thoughts within <think> </think> tags before providing "
    "the answer.\\nWrite your final answer within <answer> </answer> tags."
)


def chat(row: dict) -> list[dict]:
    options = "\n\n".join(f"{letter}. {text}" for letter, text in row["options"].items())
    text = f"{ASKED}\n\nQuestion: {row['question']}\n\nOptions:\n\n{options}"
    return [
        {"role": "user", "content": [*({"type": "image"} for _ in row["pictures"]), {"type": "text", "text": text}]}
    ]


def letter(response: str, options: dict[str, str]) -> str | None:
    stated = re.findall(r"<answer>(.*?)</answer>", response, re.DOTALL)
    last = stated[-1].strip().lower() if stated else ""
    return next((k for k, text in options.items() if last in (k.lower(), text.lower(), f"{k}. {text}".lower())), None)


def main(folder: str, questions: str, out: str) -> None:
    model, processor, found = load(Path(folder), "transformers"), load_processor(Path(folder)), {}
    rows = json.loads(Path(questions).read_text())
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        texts = [processor.apply_chat_template(chat(row), tokenize=False, add_generation_prompt=True) for row in some]
        pictures = [Image.open(path) for row in some for path in row["pictures"]] or None
        inputs = processor(text=texts, images=pictures, padding=True, padding_side="left", return_tensors="pt")
        done = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        responses = processor.tokenizer.batch_decode(done[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, response in zip(some, responses, strict=True):
            found[row["id"]] = letter(response, row["options"])
    Path(out).write_text(json.dumps(found))


main(*sys.argv[1:])
