"""Minutes, dollars, host memory, disk and downloads against arithmetic by hand, on made-up models and GPUs."""

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.tools.estimates import grpo_updates, sft_updates, storage, times
from medvlt_lib.tools.gpus import GIB, Gpu
from medvlt_lib.tools.plan import Plan
from medvlt_lib.tools.plan_steps import Counted, scores_before

SLOW = Gpu("slow", 24 * GIB, flops=1e12, bandwidth=1e11, price=2.0)
SETTINGS = {
    "data.train_text_size": 200, "data.train_image_size": 100, "data.test_size": 50, "filtering.samples": 4,
    "filtering.keep_to": 3, "filtering.max_new_tokens": 100, "eval.max_new_tokens": 60, "sft.epochs": 2,
    "sft.batch": 20, "sft.micro_batch": 10, "grpo.prompts": 8, "grpo.group_size": 4, "grpo.micro_batch": 16,
    "grpo.updates": 2, "grpo.beta": 0.01, "grpo.epochs": 1, "grpo.max_steps": None, "grpo.max_prompt_length": 100,
    "grpo.max_completion_length": 100, "engine.batch_tokens": 1500, "grpo.gradient_checkpointing": False,
    "sft.gradient_checkpointing": False, "sft.max_steps": None, "grpo.validate_every": None, "sft.validate_every": None,
}  # fmt: skip


def made_up(name="tiny", gpu=SLOW, **settings) -> Plan:
    """A model of 10^9 weights and 1,000 bytes of cache a token, with a million of its weights trained."""
    steps = {
        "sft": Counted(0, {}, 0, flops=7 * 10**11, passes=2, trained=10**6),
        "grpo": Counted(0, {}, 0, flops=63 * 10**10, passes=1, trained=10**6),
    }
    profile = load_profile(name, {**SETTINGS, **settings})
    return Plan(profile, gpu, (), steps, 0, 0, {}, weights=10**9, cache_bytes=1000, reasons=())


def seconds(plan: Plan) -> dict[str, float]:
    return {own.stage: 60 * own.minutes for own in times(plan)}


def test_updates_are_whole_and_may_end_early():
    plan = made_up()
    assert sft_updates(plan.profile) == 20  # 2 x 200 questions in batches of 20
    assert grpo_updates(plan.profile) == 34  # 140 questions are kept: 17 steps of 8, of two updates each
    early = made_up(**{"sft.max_steps": 3, "grpo.max_steps": 6}).profile
    assert (sft_updates(early), grpo_updates(early)) == (3, 6)


def test_training_is_operations_over_35_percent_of_the_rate():
    """Half-full rows. SFT: 0.5 x 2 x 0.7 / 0.35 = 2 s an update. GRPO: 0.63 and two scorings of a third of it, 1.05
    in all; with checkpointing, where a forward pass is a quarter of what is counted, 0.945."""
    assert seconds(made_up())["sft"] == pytest.approx(20 * 2)
    one_rollout = 16 / 10 * 50 * (2e9 + 10 * 75 * 1000) / (0.15 * 1e11)
    assert seconds(made_up())["grpo"] == pytest.approx(34 * (1.5 + one_rollout))
    again = seconds(made_up(**{"grpo.gradient_checkpointing": True}))["grpo"]
    assert again == pytest.approx(34 * (0.5 * 0.945 / 0.35 + one_rollout))


def test_sampling_reads_or_multiplies_whichever_takes_longer():
    """The transformers engine has ten answers of 150 tokens in its 1,500 at once, and reads 2.00075 x 10^9 bytes for
    each of 50 tokens; vLLM has 256, and multiplies 5.12 x 10^11 times."""
    plain, vllm = seconds(made_up()), seconds(made_up(**{"engine.kind": "vllm"}))
    assert plain["filter"] == pytest.approx(1200 / 10 * 50 * 2.00075e9 / 1.5e10)
    assert vllm["filter"] == pytest.approx(1200 / 256 * 50 * 5.12e11 / 3.5e11)
    at_once = 1500 / (60 + 50)
    each = (2e9 + at_once * (50 + 15) * 1000) / 1.5e10
    assert plain["eval, 3 models"] == pytest.approx(3 * 50 / at_once * 30 * each)
    fast = Gpu("fast", 24 * GIB, flops=1e15, bandwidth=1e11, price=2.0)  # now reading takes longer
    reading = seconds(made_up(gpu=fast, **{"engine.kind": "vllm"}))["filter"]
    assert reading == pytest.approx(1200 / 256 * 50 * (2e9 + 256 * 75 * 1000) / 6e10)


def test_devices_cost_each_and_share_the_questions():
    one, two = times(made_up()), times(made_up(**DDP))
    assert [own.dollars for own in one] == pytest.approx([own.minutes / 60 * 2 for own in one])
    assert [own.dollars for own in two] == pytest.approx([own.minutes / 60 * 4 for own in two])
    assert two[0].minutes == pytest.approx(one[0].minutes / 2)


def test_a_gpu_of_unknown_speed_has_no_minutes():
    assert times(made_up(gpu=Gpu("24GB", 24 * GIB))) == []


@pytest.mark.parametrize(
    "changes, passes",
    [
        ({}, 2),  # the old policy's, since a batch serves two updates, and the reference's
        ({"grpo.beta": 0.0}, 1),
        ({"grpo.updates": 1, "grpo.beta": 0.0}, 0),
        ({"grpo.updates": 1, "grpo.beta": 0.0, "grpo.sampler": "vllm"}, 1),  # for the ratios
        ({"grpo.updates": 1, "grpo.beta": 0.0, "grpo.sampler": "vllm", "grpo.importance_cap": None}, 0),
        ({"grpo.sampler": "vllm"}, 2),  # once for both
    ],
)
def test_what_is_scored_before_an_update(changes, passes):
    assert scores_before(made_up(**changes).profile) == passes


DDP = {"launch.devices": 2, "launch.strategy": "ddp", "grpo.micro_batch": 8}
LORA = {"model.lora": {"rank": 16, "alpha": 32}}
SPREAD = {"launch.devices": 4, "launch.strategy": "fsdp", "grpo.sampler": "trl-vllm-server", "sft.micro_batch": 5,
          "grpo.micro_batch": 4}  # fmt: skip


@pytest.mark.parametrize(
    "name, changes, host, disk",
    [
        # Weights in bf16, and for two arms float32 weights of the million, and those with two moments beside them.
        ("tiny", LORA, 4 + 5, 2e9 + 2 * 4e6 + 2 * 12e6),
        ("tiny-qlora", {"grpo.sampler": "vllm"}, 4 + 5, 4e9 + 32e6),  # and the 4-bit weights unpacked
        ("tiny-qlora", {"grpo.sampler": "vllm", "grpo.sampler_base": "original"}, 4 + 5, 2e9 + 32e6),
        # Every process has float32 weights in host memory; with FSDP the first alone, and all those of the reference.
        ("tiny", DDP, 8 + 5 + 2 * 4e9 / GIB, 2e9 + 32e6),
        ("tiny", SPREAD, 16 + 5 + 5 * 4e9 / GIB, 2e9 + 32e6),
        ("tiny", SPREAD | {"grpo.beta": 0.0}, 16 + 5 + 4e9 / GIB, 2e9 + 32e6),
    ],
)
def test_host_memory_disk_and_download(name, changes, host, disk):
    found = {what: size for what, (size, _) in storage(made_up(name, **changes)).items()}
    assert found["host memory"] / GIB == pytest.approx(host)
    assert found["disk"] == pytest.approx(disk) and found["download"] == 2 * 10**9
