"""Exported arms in real vLLM, and with AutoProcessor, which needs torchvision: the answers are this library's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medvlt_lib.tools.export_model import export_model
from tests.exporting import ARM, KINDS, exported, same, trained, write_prompts

ON_VLLM = Path(__file__).with_name("export_on_vllm.py")
ELSEWHERE = Path(__file__).parents[1] / "load_elsewhere.py"
LEAST = {"full": 97, "lora": 97, "nf4": 90}  # of 100 answers that are the arm's own; 100, 100 and 96 were


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module", params=KINDS)
def arm(request, root):
    """(run, folder of the merged export, provenance with the answers, file of prompts)"""
    run = trained(root / "runs", request.param)
    (root / f"{request.param}-prompts").mkdir()
    made = exported(run, root / request.param)
    return run, root / request.param, made, write_prompts(run, root / f"{request.param}-prompts")


def outside(script: Path, *arguments) -> dict:
    """What a script that does not know this library wrote to its third argument."""
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(Path(arguments[2]).read_text())


def test_vllm_gives_the_same_answers(arm, tmp_path):
    """In float32 all 100 are the export's, so the arm's but for what the card says."""
    run, folder, made, prompts = arm
    there = outside(ON_VLLM, folder, prompts, tmp_path / "answers.json", "float32")["answers"]
    assert len(there) == 100 and there == made["export"]
    assert LEAST[run.folder.name] <= same(there, made["own"]) == made["change"]["same_text"]


@pytest.mark.slow
def test_vllm_in_bfloat16_gives_nearly_the_same_answers(arm, tmp_path):
    run, folder, made, prompts = arm
    rounded = outside(ON_VLLM, folder, prompts, tmp_path / "rounded.json", "auto")["answers"]
    assert same(rounded, made["own"]) >= 90, run.folder.name  # of full weights 98 were, of NF4 96


@pytest.mark.slow
def test_vllm_with_an_adapter_on_its_base_gives_the_same_answers(arm, tmp_path):
    run, _, made, prompts = arm
    if run.folder.name != "lora":
        pytest.skip("an adapter over the base's own weights is asked for")
    export_model(run, ARM, tmp_path / "adapter", "adapter")
    there = outside(ON_VLLM, tmp_path / "adapter", prompts, tmp_path / "lora.json", "float32", "adapter")["answers"]
    assert there == made["own"]


def test_auto_processor_and_plain_transformers_give_the_same_answers(arm, tmp_path):
    _, folder, made, prompts = arm
    found = outside(ELSEWHERE, folder, prompts, tmp_path / "answers.json")
    assert found["processor"] == "Qwen2_5_VLProcessor" and found["answers"] == made["export"]


def test_the_card_s_own_code_runs(arm, tmp_path):
    """As it stands there: plain transformers for a merged model, PEFT for an adapter."""
    run, folder, _, _ = arm
    folders = [folder]
    if run.profile.model.lora is not None:
        export_model(run, ARM, tmp_path / "adapter", "adapter")
        folders.append(tmp_path / "adapter")
    for one in folders:
        code = (one / "README.md").read_text().split("```python\n")[1].split("```")[0]
        assert ("PeftModel" in code) == (one != folder)
        command = [sys.executable, "-c", f'import sys; sys.modules["medvlt_lib"] = None\n{code}']
        done = subprocess.run(command, cwd=one, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "<answer>" in done.stdout
