"""A vLLM that is installed and does not load stops those alone who ask for it, and with a sentence."""

import os
import subprocess
import sys

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.training.grpo_trainer import _prepare_trl

BUILD = """
import sys
from pathlib import Path
from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.grpo_trainer import make_trainer

small = {"model.name": "phantom:small", "grpo.prompts": 1, "grpo.group_size": 4, "grpo.micro_batch": 4}
for sampler in ("vllm", "engine"):
    profile = load_profile("tiny", {**small, "grpo.updates": 1, "grpo.sampler": sampler})
    model, questions = load_policy(profile, trainable=True), make_questions("curb65", "train", 2)
    try:
        trainer = make_trainer(profile, model, profile_processor(profile), questions, Path(sys.argv[1]))
        print(sampler, type(trainer).__name__)
    except UserError as error:
        print(sampler, error)
"""


@pytest.fixture
def broken(tmp_path):
    """The environment of a process that finds a vLLM whose import fails before all others."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/__init__.py").write_text('raise ImportError("libcudart.so.13: cannot open shared object file")\n')
    info = tmp_path / "vllm-0.20.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.1\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_grpo_without_vllm_needs_no_vllm_that_loads(broken, tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path / "out")]
    done = subprocess.run(command, env=broken, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with_vllm, without = [line for line in done.stdout.splitlines() if line.split()[0] in ("vllm", "engine")]
    assert without == "engine WatchedGroupedTrainer"
    assert with_vllm.startswith(
        "vllm grpo.sampler is vllm, but vLLM does not load (libcudart.so.13: cannot open shared"
    )


def test_trl_s_own_server_needs_one_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"^grpo\.sampler is trl-vllm-server, but vLLM does not load \(.*gpu\.txt\.$"):
        _prepare_trl("trl-vllm-server")
