"""Weights that do not belong to the profile are refused, in full precision and in 4 bits, as are foreign adapters."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.models.loading import load_model, load_nf4, load_policy, shipped, unwritten_model
from medvlt_lib.rollout.vllm_engine import engine_keywords

LOADERS = [load_model, partial(load_nf4, device="cpu")]


@pytest.fixture
def folder(tmp_path):
    """A copy of the small shipped model."""
    return shutil.copytree(shipped("small"), tmp_path / "model")


def change_weights(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("load", LOADERS, ids=["full", "nf4"])
def test_whole_weights_load(load, folder):
    load(folder)


def test_a_process_that_gets_its_weights_from_another_has_a_place_for_each(folder, monkeypatch):
    """Whatever a checkpoint does not hold, such as the angles of rotary positions, is as in a model that was loaded."""
    whole, empty = load_model(folder), unwritten_model(folder)
    assert {n: (p.shape, p.dtype) for n, p in empty.named_parameters()} == {
        n: (p.shape, p.dtype) for n, p in whole.named_parameters()
    }
    buffers = dict(whole.named_buffers())
    assert buffers.keys() == dict(empty.named_buffers()).keys() and buffers
    assert all(torch.equal(value, buffers[name]) for name, value in empty.named_buffers())
    spread = {"launch.devices": 2, "launch.strategy": "fsdp", "grpo.sampler": "trl-vllm-server"}
    spread |= {"sft.micro_batch": 8, "grpo.micro_batch": 64, "sft.validate_every": None, "grpo.validate_every": None}
    profile = load_profile("tiny", {**spread, "model.name": str(folder)})
    for rank, has_weights in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        loaded = load_policy(profile, trainable=True).state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in whole.state_dict().items()) == has_weights


@pytest.mark.parametrize("load", LOADERS, ids=["full", "nf4"])
@pytest.mark.parametrize("name", ["layers.1.mlp.up_proj.weight", "visual.merger.mlp.0.bias"])
def test_a_missing_weight_is_named(load, name, folder):
    def drop(weights: dict) -> None:
        [whole_name] = [key for key in weights if key.endswith(name)]
        del weights[whole_name]

    change_weights(folder, drop)
    with pytest.raises(UserError, match=f"model do not belong to its config.json .*{name}"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS, ids=["full", "nf4"])
def test_a_weight_too_many_is_named(load, folder):
    change_weights(folder, lambda weights: weights.update({"model.head.weight": torch.zeros(3)}))
    with pytest.raises(UserError, match=r"model do not belong to its config.json .*head\.weight"):
        load(folder)


@pytest.fixture
def adapter(tmp_path):
    """The configuration of an adapter of the larger shipped model; it is refused before its weights are looked at."""
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": "phantom:base", "peft_type": "LORA", "r": 16}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path / "adapter"


@pytest.mark.parametrize("trainable", [False, True], ids=["--model", "--init"])
@pytest.mark.parametrize("profile", ["tiny", "tiny-qlora"])
def test_an_adapter_of_another_base_is_refused(adapter, profile, trainable):
    profile = load_profile(profile, {"model.name": "phantom:small"})
    with pytest.raises(UserError, match=r"adapter was trained on phantom:base, and model\.name is phantom:small"):
        load_policy(profile, adapter, trainable)


def test_vllm_refuses_an_adapter_of_another_base(adapter):
    with pytest.raises(UserError, match="was trained on phantom:base"):
        engine_keywords(load_profile("tiny", {"model.name": "phantom:small"}), adapter)
    assert engine_keywords(load_profile("tiny", {"model.name": "phantom:base"}), adapter)["enable_lora"]


def test_an_adapter_names_its_base_by_any_name_of_it():
    """The reference adapter was trained on phantom:base, here named by its folder."""
    from medvlt_lib.course.lesson import REFERENCE

    profile = load_profile("tiny", {"model.name": str(shipped("base"))})
    load_policy(profile, REFERENCE / "03_sft" / "sft_text" / "checkpoint")
