"""Profiles: every one resolves, published values are the published ones, and mistakes are sentences."""

import re
import subprocess
import sys

import pytest

from medvlt_lib.core.config import PROFILES, load_profile, parse_settings, profile_names
from medvlt_lib.core.errors import UserError

NAMES = {
    "tiny",
    "tiny-qlora",
    "smol",
    "smol-qlora",
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
    assert p.grpo_accumulation() == 8  # 2048 completions / (2 updates x 16 rows x 8 GPUs); published: 32 rows
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
        ("tiny-qlora", {"launch.strategy": "fsdp"}, ["nf4", "fsdp", "ddp"]),
        ("tiny-qlora", {"launch.strategy": "zero3"}, ["nf4", "zero3", "ddp"]),
        ("full-7b", {"launch.machines": 3}, ["launch.devices 8", "launch.machines 3"]),
        ("tiny", {"launch.devices": 2}, ["launch.devices", "strategy"]),
        (
            "tiny",
            {"launch.devices": 2, "grpo.micro_batch": 64, "sft.micro_batch": 8, "launch.strategy": "fsdp"},
            ["grpo.sampler engine", "fsdp", "ddp", "trl-vllm-server"],
        ),
        ("full-3b", {"launch.strategy": "zero3", "grpo.sampler": "engine"}, ["grpo.sampler engine", "zero3", "ddp"]),
        ("tiny", {"engine.prompt_style": "no-think"}, ["engine.prompt_style", "model.prompt_style"]),
        ("tiny", {"model.lora": "{rank: 8"}, ["model.lora", "{rank: 8"]),
        ("tiny", {"grpo": "much"}, ["grpo", "much"]),
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


def test_text_becomes_what_its_key_takes():
    pairs = [
        "grpo.learning_rate=1e-5",
        "grpo.beta=0",
        "grpo.epochs=4",
        "data.drop_leaks=true",
        "data.test=phantom:text",
    ]
    p = load_profile("tiny", parse_settings([*pairs, "grpo.max_steps=null", "model.lora={rank: 8, alpha: 16}"]))
    assert (p.grpo.learning_rate, p.grpo.beta, p.grpo.epochs, p.grpo.max_steps) == (1e-5, 0.0, 4.0, None)
    assert (p.data.drop_leaks, p.data.test, p.model.lora.rank) == (True, "phantom:text", 8)
    with pytest.raises(UserError, match="key=value"):
        parse_settings(["grpo.beta"])


@pytest.mark.parametrize("revision", ["1234e56", "1234567", "0123456", "1_000", "true"])
def test_a_revision_stays_as_it_is_written(revision):
    assert load_profile("tiny", parse_settings([f"model.revision={revision}"])).model.revision == revision
    assert load_profile("tiny", {"model.revision": revision}).model.revision == revision


def test_another_model_leaves_the_profiles_revision():
    assert load_profile("qlora-3b").model.revision is not None
    assert load_profile("qlora-3b", {"model.name": "mine"}).model.revision is None
    assert load_profile("qlora-3b", {"model.revision": "abc", "model.name": "mine"}).model.revision == "abc"


def test_every_gpu_profile_names_a_commit():
    for name in NAMES - {"tiny", "tiny-qlora", "smol", "smol-qlora"}:
        assert re.fullmatch("[0-9a-f]{40}", load_profile(name).model.revision), name


def test_what_a_person_sets_wins_over_an_arms_block():
    block = load_profile("full-3b").arms["rl_text-rl_image"]["grpo"]
    assert (block["prompts"], block["micro_batch"], block["epochs"]) == (64, 8, 1)
    p = load_profile("full-3b", {"grpo.micro_batch": 16, "grpo.learning_rate": 2e-6})
    arm = p.for_arm("rl_text-rl_image").grpo
    assert (arm.micro_batch, arm.learning_rate, arm.prompts, arm.epochs) == (16, 2e-6, 64, 1)
    one = {"arms.rl_image.grpo.epochs": 2, "grpo.epochs": 3}
    for overrides in (one, dict(reversed(one.items()))):  # the more exact of two settings wins, whichever comes first
        p = load_profile("full-3b", overrides)
        assert (p.for_arm("rl_image").grpo.epochs, p.for_arm("rl_text-rl_image").grpo.epochs) == (2, 3)
    again = load_profile("full-3b", {"grpo.micro_batch": 16}).for_arm("rl_text-rl_image").for_arm("rl_text-rl_image")
    assert again.grpo.micro_batch == 16


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"arms.rl_image.grpo.lr": 1e-5}, ["arms.rl_image.grpo.lr", "not a setting"]),
        ({"arms.rl_image.grpo.epochs": "many"}, ["arms.rl_image.grpo.epochs", "many"]),
        ({"arms.rl_image.greppo": {"beta": 0}}, ["arms.rl_image.greppo", "sft"]),
        ({"arms.rl_image.eval": {"samples": 4}}, ["arms.rl_image.eval", "sft"]),
        ({"arms.rl_image.grpo": 3}, ["arms.rl_image.grpo", "3"]),
        ({"arms.rl_image": "fast"}, ["arms.rl_image", "fast"]),
        ({"arms": {"../elsewhere": {"grpo": {"beta": 0}}}}, ["../elsewhere", "folder"]),
        ({"arms": {".hidden": {}}}, [".hidden", "folder"]),
        ({"arms.rl_image.grpo.prompts": 7}, ["arms.rl_image.grpo.prompts", "do not divide"]),
        (
            {"arms": {"my-own.arm_2": {"grpo": {"save_every": 5}}}},
            ["arms.my-own.arm_2.grpo.save_every", "grpo.updates"],
        ),
    ],
)
def test_arms_are_checked_when_the_profile_loads(overrides, words):
    with pytest.raises(UserError) as caught:
        load_profile("full-3b", overrides)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_weights_that_are_whole_everywhere_may_be_sampled_from():
    two = {"launch.devices": 2, "launch.strategy": "ddp", "grpo.sampler": "engine"}
    assert load_profile("lora-3b", two).grpo_accumulation() == 8
    assert load_profile("qlora-3b", two).launch.strategy == "ddp"
    header = (PROFILES / "medvlm-r1-2b.yaml").read_text().split("\nscale:")[0]
    full = load_profile("medvlm-r1-2b", parse_settings(re.findall(r"--set (\S+)", header)))
    assert (full.model.lora, full.launch.devices, full.grpo.sampler) == (None, 2, "engine")


BOUNDS = {
    "engine.batch_tokens": 1000, "engine.concurrency": 2, "engine.prompt_price": 1.0, "engine.completion_price": 1.0,
    "engine.max_cost": 5.0, "data.endpoint_prompt_price": 1.0, "data.endpoint_completion_price": 1.0,
    "data.endpoint_max_cost": 5.0, "engine.gpu_memory": 0.5, "engine.tensor_parallel": 2, "engine.max_images": 2,
    "sft.gradient_checkpointing": True, "sft.save_every": 5, "sft.max_length": 1024, "grpo.micro_batch": 16,
    "grpo.sampler_memory": 0.3,
    "grpo.gradient_checkpointing": True, "grpo.save_every": 5, "grpo.max_prompt_length": 256,
    "launch.machines": 1, "launch.tracker": "tensorboard",
}  # fmt: skip
SECTIONS = ("model", "data", "engine", "filtering", "sft", "grpo", "eval", "launch")


def test_identity_leaves_out_what_only_bounds_memory_and_money():
    before, after = load_profile("tiny").identity(*SECTIONS), load_profile("tiny", BOUNDS).identity(*SECTIONS)
    assert before == after
    every = {f"{s}.{k}" for s in SECTIONS for k in getattr(load_profile("tiny"), s).model_dump()}
    assert every - set(before) == set(BOUNDS)
    assert load_profile("tiny").identity("model") == {k: v for k, v in before.items() if k.startswith("model.")}


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.max_pixels", 1568), ("model.prompt_style", "no-think"), ("model.revision", "abc"), ("engine.kind", "vllm"),
     ("sft.micro_batch", 8), ("grpo.prompts", 16), ("grpo.max_completion_length", 64), ("launch.strategy", "ddp")],
)  # fmt: skip
def test_identity_holds_what_changes_results(key, value):
    now = load_profile("tiny", {key: value}).identity(*SECTIONS)
    assert {k for k, v in now.items() if v != load_profile("tiny").identity(*SECTIONS)[k]} == {key}


@pytest.mark.parametrize("setting", [{"grpo.loss_type": "bnpo"}, {"model.lora": {"dropout": 0.1}}])
def test_a_micro_batch_that_changes_results_is_identity(setting):
    assert load_profile("tiny", setting).identity("grpo")["grpo.micro_batch"] == 128
    assert "grpo.micro_batch" not in load_profile("tiny", {"model.lora": {"dropout": 0.0}}).identity("grpo")


def test_help_takes_no_heavy_library():
    """In a process of its own. What it imports is looked at, since seconds depend on the machine."""
    code = (
        "import sys, medvlt_lib.__main__\n"
        "try:\n    medvlt_lib.__main__.app(['--help'])\n"
        "finally:\n    print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"torch", "transformers", "trl", "datasets", "peft", "scipy", "pandas", "pyarrow", "matplotlib", "PIL"}
    assert "Usage" in done.stdout and heavy & set(done.stderr.split()) == set()
