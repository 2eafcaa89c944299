"""What GRPO refuses before it looks for data or loads weights."""

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.runs import open_run
from medvlt_lib.stages import grpo


def test_a_model_on_a_server_is_refused(tmp_path):
    run = open_run("tiny", None, {"engine.kind": "openai", "engine.url": "http://x/v1"}, root=tmp_path)
    with pytest.raises(UserError, match=r"GRPO cannot train .* at http://x/v1; .*--set engine\.kind=transformers"):
        grpo.run(run)
    assert not (run.folder / "04_grpo").exists()


def test_whatever_engine_filters_grpo_has_a_sampler_of_its_own(tmp_path):
    run = open_run("full-3b", None, {"engine.kind": "vllm"}, root=tmp_path)
    with pytest.raises(UserError, match="medvlt filter"):  # the next thing that is missing
        grpo.run(run)
