"""Profiles: every one resolves, published values are the published ones, and mistakes are sentences."""

import subprocess
import sys
import time

import pytest

from medvlt_lib.core.config import load_profile, parse_settings, profile_names
from medvlt_lib.core.errors import UserError

NAMES = {
    "tiny",
    "tiny-qlora",
    "qlora-3b",
    "qlora-7b",
    "lora-3b",
    "lora-7b",
    "full-3b",
    "full-7b",
    "full-32b",
    "medvlm-r1-2b",
}


def test_the_promised_profiles_are_there():
    assert set(profile_names()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_profile_and_arm_resolves(name):
    profile = load_profile(name)
    assert profile.grpo_accumulation() >= 1
    assert profile.sft_accumulation() >= 1
    for arm in profile.arms:
        profile.for_arm(arm)


def test_full_profiles_carry_the_published_values():
    p = load_profile("full-7b")
    assert (p.grpo.learning_rate, p.grpo.beta, p.grpo.epsilon, p.grpo.group_size, p.grpo.prompts) == (
        1e-6,
        0.01,
        0.2,
        8,
        256,
    )
    assert (p.grpo.updates, p.grpo.epochs, p.grpo.max_prompt_length, p.grpo.max_completion_length) == (2, 5, 2048, 4096)
    assert (p.sft.learning_rate, p.sft.batch, p.sft.schedule, p.sft.warmup_ratio, p.sft.beta2) == (
        1e-5,
        16,
        "cosine",
        0.05,
        0.95,
    )
    assert (p.filtering.samples, p.filtering.keep_from, p.filtering.keep_to) == (16, 1, 7)
    assert p.grpo_accumulation() == 4  # 2048 completions / (2 updates x 32 rows x 8 GPUs)
    assert p.for_arm("rl_image").grpo.epochs == 1
    r1 = load_profile("medvlm-r1-2b")
    assert (r1.grpo.group_size, r1.grpo.beta, r1.grpo.max_completion_length, r1.model.max_pixels) == (
        4,
        0.04,
        512,
        401408,
    )


def test_scale_published_restores_the_published_size():
    small, large = load_profile("qlora-3b"), load_profile("qlora-3b", {"scale": "published"})
    full = load_profile("full-3b")
    assert small.grpo.max_steps is not None
    assert large.grpo.max_steps is None
    for section, keys in {
        "grpo": ("prompts", "epochs", "max_completion_length"),
        "sft": ("epochs",),
        "data": ("train_text_size",),
    }.items():
        for key in keys:
            assert getattr(getattr(large, section), key) == getattr(getattr(full, section), key)


@pytest.mark.parametrize(
    ("profile", "overrides", "words"),
    [
        ("large", {}, ["large", "tiny"]),
        ("tiny", {"grpo.lr": 1e-5}, ["grpo.lr"]),
        ("qlora-3b", {"scale": "publishd"}, ["scale", "publishd", "published"]),
        ("tiny", {"scale": "published"}, ["scale", "tiny"]),
        ("tiny", {"greppo.learning_rate": 1e-5}, ["greppo"]),
        ("tiny", {"grpo.learning_rate": "fast"}, ["grpo.learning_rate", "fast"]),
        ("tiny", {"grpo.group_size": 2.5}, ["grpo.group_size", "2.5"]),
        ("tiny", {"eval.temperature": -1}, ["eval.temperature", "-1"]),
        ("tiny", {"grpo.prompts": 7}, ["grpo.prompts", "grpo.micro_batch"]),
        ("tiny", {"grpo.micro_batch": 64, "grpo.group_size": 24, "grpo.prompts": 8}, ["micro_batch", "group_size"]),
        ("tiny", {"sft.batch": 10}, ["sft.batch"]),
        (
            "tiny",
            {"grpo.updates": 2, "grpo.micro_batch": 64, "grpo.save_every": 5},
            ["grpo.save_every", "grpo.updates"],
        ),
        ("tiny", {"model.quantization": "nf4"}, ["nf4", "lora"]),
        ("tiny-qlora", {"launch.strategy": "fsdp"}, ["nf4", "fsdp"]),
        ("tiny", {"launch.devices": 2}, ["launch.devices", "strategy"]),
        ("tiny", {"filtering.keep_to": 16}, ["16 samples"]),
        ("tiny", {"eval.grader": "published-medvlm-r1"}, ["eval.grader", "grpo.reward"]),
        ("tiny", {"grpo.reward": "generous"}, ["grpo.reward", "generous", "grounded"]),
        ("tiny", {"grpo.reward": {"published": 1.0, "generous": 1}}, ["grpo.reward", "generous", "overlong"]),
        ("tiny", {"grpo.reward": {"published": float("nan")}}, ["grpo.reward", "published", "nan"]),
        ("tiny", {"grpo.reward": {}}, ["grpo.reward"]),
        ("tiny", {"grpo.reward": "overlong"}, ["grpo.reward", "overlong", "published"]),
        ("tiny", {"grpo.reward": "published-medvlm-r1"}, ["eval.grader", "grpo.reward"]),
        ("tiny", {"grpo.sampler": "trl-vllm-server"}, ["sampler"]),
    ],
)
def test_mistakes_name_the_key_and_the_mend(profile, overrides, words):
    with pytest.raises(UserError) as caught:
        load_profile(profile, overrides)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_reward_is_a_name_or_names_with_weights():
    assert load_profile("tiny").grpo.reward == {"published": 1.0}
    assert load_profile("tiny", {"grpo.reward": "grounded"}).grpo.reward == {"grounded": 1.0}
    weights = parse_settings(["grpo.reward={published-signed: 1, overlong: 0.1}"])
    assert load_profile("tiny", weights).grpo.reward == {"published-signed": 1.0, "overlong": 0.1}


def test_settings_are_read_as_values():
    assert parse_settings(["a.b=1e-5", "c=4", "d=true", "e=phantom:text", "f=null"]) == {
        "a.b": 1e-5, "c": 4, "d": True, "e": "phantom:text", "f": None,
    }  # fmt: skip
    with pytest.raises(UserError, match="key=value"):
        parse_settings(["grpo.beta"])


def test_light_imports_and_help_take_no_torch():
    code = (
        "import sys, time; t = time.perf_counter(); "
        "import medvlt_lib.core.config, medvlt_lib.grading.grade, medvlt_lib.core.prompts, medvlt_lib.core.records, medvlt_lib.core.runs, medvlt_lib.__main__; "
        "assert 'torch' not in sys.modules; assert time.perf_counter() - t < 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medvlt_lib", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - started < 1
