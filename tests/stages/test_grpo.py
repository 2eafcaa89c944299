"""GRPO refuses an engine that it would not use, before it looks for data or loads weights."""

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.runs import open_run
from medvlt_lib.stages import grpo


@pytest.mark.parametrize("engine", [{"engine.kind": "vllm"}, {"engine.kind": "openai", "engine.url": "http://x/v1"}])
def test_another_engine_is_refused(engine, tmp_path):
    run = open_run("tiny", None, engine, root=tmp_path)  # filtering and evaluation may sample with it
    with pytest.raises(UserError, match=r"engine\.kind (vllm|openai).*--set engine\.kind=transformers"):
        grpo.run(run)
    assert not (run.folder / "04_grpo").exists()


def test_with_a_server_of_its_own_any_engine_may_filter(tmp_path):
    run = open_run("full-3b", None, {"engine.kind": "vllm"}, root=tmp_path)
    with pytest.raises(UserError, match="medvlt filter"):  # the next thing that is missing
        grpo.run(run)
