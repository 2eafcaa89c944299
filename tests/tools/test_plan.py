"""A plan's memory is that of the stages' own steps, and right; bad input is one sentence."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trl import SFTTrainer

from medvlt_lib.core.config import load_profile, parse_settings, profile_names
from medvlt_lib.core.errors import UserError
from medvlt_lib.models.loading import load_policy, shipped
from medvlt_lib.tools import plan_steps
from medvlt_lib.tools.commands import plan as command
from medvlt_lib.tools.counting import Counting
from medvlt_lib.tools.gpus import GIB, Gpu, gpu_named, known_gpus, own_gpu
from medvlt_lib.tools.plan import plan_profile, vllm_memory_share
from medvlt_lib.tools.plan_report import as_option, misfit
from medvlt_lib.tools.ways_to_fit import changed, changing_results, ways_to_fit
from medvlt_lib.training import grouped, sft_trainer

SMALL = {
    "model.name": "phantom:small", "model.device": "cuda", "sft.batch": 8, "sft.micro_batch": 4, "sft.max_length": 192,
    "grpo.prompts": 2, "grpo.group_size": 4, "grpo.micro_batch": 4, "grpo.max_prompt_length": 160,
    "grpo.max_completion_length": 64, "engine.batch_tokens": 1000,
}  # fmt: skip
QUICK = {
    "model.name": "phantom:small", "sft.batch": 8, "sft.micro_batch": 8, "sft.max_length": 256, "grpo.prompts": 2,
    "grpo.group_size": 8, "grpo.micro_batch": 16, "grpo.max_prompt_length": 192, "grpo.max_completion_length": 64,
}  # fmt: skip


def small(name="tiny-qlora", **settings):
    return load_profile(name, {**SMALL, **settings})


@pytest.fixture
def truth(monkeypatch):
    """The benchmark that compares counted peaks with torch's profiler, on smaller rows."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import plan_truth

    monkeypatch.setattr(plan_truth, "ROWS", {**plan_truth.ROWS, **QUICK})
    yield plan_truth
    sys.modules.pop("plan_truth")


# --- against truth ---


WITHIN = {"full": 0.1, "lora": 0.1, "nf4": 0.2}
CASES = [(weights, stage, on) for weights in WITHIN for stage in ("sft", "grpo") for on in (False, True)]


@pytest.mark.parametrize(
    "weights, stage, checkpointing",
    [pytest.param(*case, marks=[pytest.mark.slow] if place % 3 else []) for place, case in enumerate(CASES)],
)
def test_the_counted_peak_is_the_profilers(truth, weights, stage, checkpointing):
    counted = truth.counted(weights, stage, checkpointing)
    seen = truth.seen(weights, stage, checkpointing)
    kept = ("weights", "adapters", "optimizer", "gradients")
    assert counted["peak"] > 2 * sum(counted["parts"].get(part, 0) for part in kept)
    assert counted["peak"] == pytest.approx(seen["peak"], rel=WITHIN[weights])


@pytest.mark.parametrize("name, billions", [("3B", 3.7546), ("7B", 8.2922)])
def test_the_shapes_have_as_many_weights_as_the_published_files(name, billions):
    """As the files' index says: bytes in bf16 of every tensor, tied ones once."""
    from medvlt_lib.tools.plan import _shape

    assert _shape(f"Qwen/Qwen2.5-VL-{name}-Instruct").weights() / 1e9 == pytest.approx(billions, abs=1e-4)


# --- what is counted ---


def test_storages_are_counted_once_and_until_they_are_freed():
    counting = Counting()
    weight = counting.empty((4, 8), torch.float32, "weights")
    with counting:
        product = weight @ weight.t()  # (4, 4)
        view = product[:2]
        assert dict(counting.parts) == {"weights": 128, "activations": 64}
        del product
        assert counting.total == 192  # the view keeps it
        del view
    assert counting.total == 128 and counting.peak == {"weights": 128, "activations": 64}
    assert counting.flops == 2 * 4 * 4 * 8


def test_what_no_weight_had_a_part_in_keeps_its_values():
    counting = Counting()
    weight = counting.empty((6, 8), torch.bfloat16, "weights")
    with counting:
        mask = torch.arange(6) < 4
        assert int(mask.sum()) == 4
        chosen = weight[mask]
        assert chosen.shape == (4, 8)
        assert weight.sum().item() == 0.0


def test_the_step_is_the_stages_own(monkeypatch):
    """Collator, losses and log-probabilities of the stages are what is called."""
    called = []

    def watch(owner, name):
        original = getattr(owner, name)

        def spy(*args, **kwargs):
            called.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, spy)

    watch(sft_trainer.Collator, "__call__")
    watch(SFTTrainer, "compute_loss")
    watch(grouped.GroupedTrainer, "_compute_loss")
    watch(grouped, "completion_logprobs")
    own = small()
    shape = plan_steps.shape_for(own)
    plan_steps.count_sft(own, shape)
    assert called == ["__call__", "compute_loss"]
    called.clear()
    plan_steps.count_grpo(own, shape)
    assert called[-2:] == ["_compute_loss", "completion_logprobs"]


def test_a_step_that_does_more_is_counted_as_more(monkeypatch):
    """The log-probabilities taken twice: the count follows what the stage's function does."""
    own = small()
    shape = plan_steps.shape_for(own)
    once = plan_steps.count_grpo(own, shape)
    original = grouped.completion_logprobs

    def twice(model, batch):
        first, second = original(model, batch), original(model, batch)
        return first[0] + 0 * second[0], first[1]

    monkeypatch.setattr(grouped, "completion_logprobs", twice)
    more = plan_steps.count_grpo(own, shape)
    assert more.flops == pytest.approx(2 * once.flops, rel=0.01)
    assert more.parts["activations"] > 1.5 * once.parts["activations"]


def test_parts_of_weights_and_optimizer_are_exact():
    full = plan_profile(small("tiny"), "24GB")
    weights = full.steps["sft"].trained
    parts = full.steps["sft"].parts
    assert parts["weights"] == pytest.approx(4 * weights, rel=0.02)  # and buffers; every tensor is rounded to 512 bytes
    assert parts["optimizer"] == pytest.approx(8 * weights, rel=0.03)
    nf4 = plan_profile(small(), "24GB").steps["sft"]
    assert nf4.trained < weights / 5
    assert nf4.parts["adapters"] == pytest.approx(4 * nf4.trained, rel=0.02)
    assert nf4.parts["optimizer"] == pytest.approx(8 * nf4.trained, rel=0.05)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_checkpointing_and_fewer_rows_take_less(stage):
    peaks = [
        plan_profile(small(**{f"{stage}.gradient_checkpointing": on, f"{stage}.micro_batch": rows}), "24GB")
        .steps[stage]
        .peak
        for on, rows in ((False, 4), (True, 4), (True, 2))
    ]
    assert peaks[0] > peaks[1] > peaks[2]


@pytest.mark.parametrize("settings", [{}, {"sft.target": "answer_only"}, {"model.prompt_style": "no-think"}])
def test_a_row_is_as_long_as_it_may_be_whatever_is_learned(settings, tmp_path):
    own = plan_steps.alone(small("tiny", **{"sft.max_length": 256, **settings}))
    trainer = plan_steps.make_sft_trainer(own, load_policy(own, trainable=True), tmp_path)
    assert plan_steps.sft_batch(trainer)["input_ids"].shape == (4, 256)


def test_rows_that_are_read_for_every_completion_take_more():
    shared, stock = (plan_profile(small(**{"grpo.update": update}), "24GB") for update in ("shared", "stock"))
    assert stock.steps["grpo"].flops > 1.5 * shared.steps["grpo"].flops
    assert stock.steps["grpo"].parts["activations"] > shared.steps["grpo"].parts["activations"]


TWO = {"launch.devices": 2, "sft.validate_every": None, "grpo.validate_every": None}
FSDP = TWO | {"launch.strategy": "fsdp", "grpo.sampler": "trl-vllm-server"}


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_a_share_of_one_device(name):
    whole = load_profile(name)
    own = plan_steps.alone(whole)
    assert (own.launch.devices, own.launch.machines) == (1, 1)
    assert own.sft.batch * whole.launch.devices == whole.sft.batch
    assert own.grpo.prompts * whole.launch.devices == whole.grpo.prompts


def test_what_is_trained_is_what_devices_share():
    """Bytes a weight, divided by two devices: 4 and 4 of the reference, 4 of the gradient, 8 of the moments; with
    adapters the base in its own type, and the rest of the adapters alone."""
    full = plan_profile(small("tiny", **FSDP, **{"grpo.beta": 0.01}), "24GB")
    sft, grpo = (phase.parts for phase in full.phases)
    assert full.steps["sft"].trained == full.weights
    assert (sft["gradients"], sft["optimizer"]) == (2 * full.weights, 4 * full.weights)
    assert grpo["weights"] - sft["weights"] == 2 * full.weights
    assert full.steps["grpo"].parts["weights"] == pytest.approx(2 * full.steps["sft"].parts["weights"], rel=0.01)
    lora = {"model.lora": {"rank": 4, "alpha": 8}, "grpo.beta": 0.01}
    four, two = (
        plan_profile(small("tiny", **FSDP, **lora, **{"model.dtype": d}), "24GB") for d in ("float32", "bfloat16")
    )
    trained = two.steps["sft"].trained
    sft, grpo = (phase.parts for phase in two.phases)
    assert trained < two.weights / 5 and (sft["gradients"], sft["optimizer"]) == (2 * trained, 4 * trained)
    assert grpo["weights"] == sft["weights"] == four.phases[0].parts["weights"] - two.weights


def test_ddp_keeps_the_gradients_twice():
    ddp, alone = (
        plan_profile(small("tiny", **TWO, **{"launch.strategy": "ddp"}), "24GB"),
        plan_profile(small("tiny", **{"sft.batch": 4, "grpo.prompts": 1}), "24GB"),
    )
    for ours, one in zip(ddp.phases, alone.phases, strict=True):
        assert ours.peak - one.peak == 4 * ddp.weights, ours.name


def test_key_heads_that_queries_share_cost_no_matrix_of_scores(tmp_path):
    """With a mask, CUDA's fused kernels take no shared key heads; the plain product would keep every score."""
    peaks = []
    for heads in (2, 1):
        config = json.loads((shipped("small") / "config.json").read_text())
        config["text_config"]["num_key_value_heads"] = heads
        folder = tmp_path / str(heads)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        peaks.append(
            plan_profile(small(**{"model.name": str(folder), "model.max_pixels": 50176}), "24GB").steps["grpo"].peak
        )
    assert peaks[1] <= peaks[0]


# --- what a plan says ---


def test_settings_that_make_it_fit_are_counted_again():
    own = load_profile("tiny-qlora", {"model.device": "cuda"})
    plan = plan_profile(own, "24GB")
    assert plan.fits and ways_to_fit(plan) == []
    update, sampling = plan.phases[1:]
    assert update.peak > sampling.peak
    tight = plan_profile(own, Gpu("tight", plan.reserve + (update.peak + sampling.peak) // 2))
    assert not tight.fits
    changes = ways_to_fit(tight)
    assert 1 <= len(changes) <= 3 and all(change.cost for change in changes)
    assert changes[-1].plan.fits and not any(change.plan.fits for change in changes[:-1])
    settings = {key: value for change in changes for key, value in change.settings.items()}
    again = plan_profile(changed(own, settings), tight.gpu)
    assert again.fits and again.peak_bytes == changes[-1].plan.peak_bytes


def test_what_is_said_to_set_can_be_typed():
    own = small("tiny", **{"grpo.learning_rate": 1e-6})
    adapters = next(changing_results(own, "grpo"))[0][0]
    assert adapters["grpo.learning_rate"] == 1e-5
    for settings in ({"grpo.micro_batch": 2, "grpo.gradient_checkpointing": True}, adapters):
        typed = shlex.split(" ".join(f"--set {as_option(*one)}" for one in settings.items()))
        again = load_profile("tiny", {**SMALL, "grpo.learning_rate": 1e-6, **parse_settings(typed[1::2])})
        assert again == changed(own, settings)


def test_vllm_gets_what_the_learner_leaves():
    plan = plan_profile(small(), "24GB")
    share = vllm_memory_share(plan)
    assert share * plan.gpu.memory + plan.learner + GIB <= plan.gpu.memory
    assert vllm_memory_share(plan_profile(small(), "2GB")) is None


def test_too_little_memory_for_vllm_does_not_fit():
    """It would not start; what the update leaves is the first way out, sampling without vLLM the second."""
    starving = plan_profile(small(**{"grpo.sampler": "vllm", "grpo.sampler_memory": 0.05}), "24GB")
    assert not starving.fits and starving.peak_bytes + starving.reserve <= starving.gpu.memory
    said = misfit(starving, ways_to_fit(starving))
    assert said.startswith("tiny-qlora: grpo.sampler_memory 0.05 gives vLLM 1.2 of the 24.0 GiB of 24GB, and it needs")
    greedy = plan_profile(small(**{"grpo.sampler": "vllm", "grpo.sampler_memory": 0.99}), "24GB")
    for plan in (starving, greedy):
        [change] = ways_to_fit(plan)
        assert change.settings == {"grpo.sampler_memory": vllm_memory_share(plan)} and change.plan.fits
        more = changed(plan.profile, {"grpo.sampler_memory": vllm_memory_share(plan) + 0.01})
        assert not plan_profile(more, plan.gpu).fits
    assert "fewer answers" in change.cost
    tight = plan_profile(starving.profile, Gpu("tight", int(2.5 * GIB)))
    [change] = ways_to_fit(tight)
    assert vllm_memory_share(tight) is None and change.settings == {"grpo.sampler": "engine"}


def test_vllm_holds_the_model_in_its_own_type():
    four, two = (plan_profile(small(**{"model.dtype": dtype}), "24GB") for dtype in ("float32", "bfloat16"))
    assert (four.vllm["weights"], two.vllm["weights"]) == (4 * four.weights, 2 * four.weights)
    tokens = 160 + 4 * 64  # of a group
    assert (four.vllm["cache"], two.vllm["cache"]) == (2 * tokens * four.cache_bytes, tokens * four.cache_bytes)


def test_gpus_are_found_by_name_or_memory():
    assert gpu_named("rtx 4090") == known_gpus()["RTX4090"] and gpu_named("a100-80gb").memory > 79 * GIB
    assert gpu_named("24GB") == Gpu("24GB", 24 * GIB)


@pytest.mark.parametrize(
    "name, memory, known",
    [
        ("NVIDIA GeForce RTX 4090", 23.5, "RTX4090"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "A100-40GB"),
        ("NVIDIA H100 80GB HBM3", 79.1, "H100"),
        ("NVIDIA L40", 44.4, None),  # no L4, and no L40S
        ("NVIDIA A10G", 22.0, None),  # half as fast as an A10
    ],
)
def test_this_machine_s_gpu_has_the_speed_of_its_own_kind(name, memory, known, monkeypatch):
    found = SimpleNamespace(name=name, total_memory=int(memory * GIB))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    gpu = own_gpu()
    assert (gpu.name, gpu.memory) == (name, found.total_memory)
    assert gpu.flops == (known_gpus()[known].flops if known else None)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("qlora-3b", "RTX9999"), "--gpu RTX9999 is not known"),
        (("qlora-3b", "0GB"), "--gpu 0GB is not known"),
        (("qlora-5b", "24GB"), "there is no profile 'qlora-5b'"),
        (("tiny", "24GB"), "profile tiny trains on the CPU"),
        (("qlora-3b", "24GB", ["model.name=nobody/nothing"]), "the shape of nobody/nothing is not known"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        command(*arguments)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('{"model_type": "qwen2", "num_hidden_layers": 2}', r"config\.json is that of a qwen2 model, which sees no"),
        ('{"model_type": "qwen2_5_vl", ', r"config\.json describes no model \(.+\); copy the folder again"),
        ("{}", r"config\.json describes no model \(.+\); copy the folder again"),
    ],
)
def test_a_folder_that_holds_no_such_model_is_a_sentence(text, sentence, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        command("tiny-qlora", "24GB", ["model.device=cuda", f"model.name={tmp_path}"])


def test_a_profile_that_cannot_fit_ends_with_a_sentence_and_code_1(capsys):
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    with pytest.raises(SystemExit) as stopped:
        command("tiny-qlora", "1GB", settings)
    assert stopped.value.code == 1
    assert "and no three settings make it fit" in capsys.readouterr().err


def test_a_plan_that_fits_says_what_is_counted_and_what_is_not(capsys):
    command("tiny-qlora", "RTX4090", [f"{key}={value}" for key, value in SMALL.items()])
    said = capsys.readouterr().out
    assert "counted, not run" in said and "Estimates, never measured" in said and "vLLM beside the learner" in said
