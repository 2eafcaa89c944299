"""Every shipped profile takes one SFT and one GRPO step on a CPU, with tiny models, data and lengths;
LoRA moves as it should.
"""

import pytest
import torch

from medvlt_lib.core.config import load_profile, profile_names
from medvlt_lib.core.records import write_questions
from medvlt_lib.grading import rewards
from medvlt_lib.models.adapters import LORA_TARGETS
from medvlt_lib.models.loading import load_policy, profile_processor, shipped
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo, sft
from medvlt_lib.tiny.architecture import build_tiny_processor, tiny_config
from medvlt_lib.training.grpo_trainer import make_trainer
from medvlt_lib.training.sft_trainer import Collator

LORA_PROFILES = [n for n in profile_names() if load_profile(n).model.lora]


@pytest.fixture(scope="module")
def qwen2_vl(tmp_path_factory):
    """A random tiny Qwen2-VL (the family of MedVLM-R1's model) with the tiny tokenizer."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("qwen2_vl")
    processor = build_tiny_processor()
    c = tiny_config("small", processor.tokenizer).to_dict()
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 1, "mlp_ratio": 2}
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "tie_word_embeddings")
    text = {k: v for k, v in c["text_config"].items() if k not in ("model_type", "architectures")}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(text_config=text, vision_config=vision, **{k: c[k] for k in keys})
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for kind in ("text", "image"):
        write_questions(make_questions(kind, "train", 16, seed=2), folder / f"{kind}.parquet")
    return folder


def on_cpu(name: str, qwen2_vl, **changes):
    """The profile with model, device, sampler and launcher swapped and sizes scaled down; all else as shipped."""
    shipped_profile = load_profile(name)
    model = str(qwen2_vl) if "Qwen2-VL" in shipped_profile.model.name else "phantom:small"
    small = {
        "max_prompt_length": 512,
        "max_completion_length": 24,
        "prompts": 4,
        "group_size": 4,
        "micro_batch": 4,
        "max_steps": 1,
    }
    return load_profile(
        name,
        {
            "model.name": model,
            "model.device": "cpu",
            "launch.devices": 1,
            "launch.machines": 1,
            "launch.strategy": "single",
            "sft.batch": 4,
            "sft.micro_batch": 2,
            "sft.max_steps": 1,
            "sft.max_length": 1024,
            "engine.kind": "transformers",
            "grpo.sampler": "engine",
            **{f"grpo.{k}": v for k, v in small.items()},
            **changes,
        },
    )


@pytest.mark.parametrize("name", profile_names())
def test_profile_takes_one_step_of_each_kind(name, qwen2_vl, files, tmp_path):
    profile = on_cpu(name, qwen2_vl)
    for stage, kind in ((sft, "text"), (grpo, "image")):
        folder = tmp_path / kind
        folder.mkdir()
        metrics = stage.train(profile, {"data": files / f"{kind}.parquet"}, folder)
        assert metrics["steps"] == 1
        assert (folder / "checkpoint").is_dir()
    load_policy(profile, tmp_path / "text" / "checkpoint")


def varied(completions, **_):
    """A reward that differs within every group, so that no advantage is zero."""
    return [float(i % 4) for i in range(len(completions))]


@pytest.mark.parametrize("name", LORA_PROFILES)
def test_lora_alone_moves_and_is_float32(name, qwen2_vl, files, tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "published", varied)
    monkeypatch.setattr(rewards, "published_medvlm_r1", varied)
    profile = on_cpu(name, qwen2_vl, **{"grpo.max_steps": 3, "grpo.updates": 1})
    model = load_policy(profile, trainable=True)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}
    assert before and all("language_model" in n and "visual" not in n for n in before)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(before)
    if profile.model.quantization == "nf4":
        kinds = {n: type(m).__name__ for n, m in model.named_modules()}
        assert "Linear4bit" in kinds.values()
        assert not any("visual" in n for n, kind in kinds.items() if kind == "Linear4bit")
    trainer = make_trainer(
        profile, model, profile_processor(profile), make_questions("text", "train", 16, seed=2), tmp_path
    )
    trainer.train()
    after = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    for n, old in frozen.items():
        assert torch.equal(old, after[n]), n
    for part in ("lora_A", "lora_B"):
        moved = torch.cat([(after[n] != old).flatten().float() for n, old in before.items() if part in n])
        assert all(after[n].dtype == torch.float32 for n in before)
        assert moved.mean() > 0.95, (part, moved.mean())


def test_lora_targets_leave_the_vision_tower_alone():
    import re

    from medvlt_lib.models.loading import load_model

    names = [n for n, m in load_model(shipped("small")).named_modules() if isinstance(m, torch.nn.Linear)]
    hit = [n for n in names if re.fullmatch(LORA_TARGETS, n)]
    assert len(hit) == 3 * 7  # layers x projections
    assert any("visual" in n and "gate_proj" in n for n in names)


def test_sft_labels_are_the_answer_alone(files):
    from medvlt_lib.core.errors import UserError
    from medvlt_lib.core.records import read_questions

    questions = read_questions(files / "image.parquet")
    processor = profile_processor(load_profile("tiny"))
    batch = Collator(processor, questions, "medvlthinker", 512)([{"row": 0}, {"row": 3}])
    for i, question in enumerate((questions[0], questions[3])):
        text = processor.tokenizer.decode(batch["labels"][i][batch["labels"][i] >= 0])
        assert text == f"<think> {question.reasoning} </think>\n<answer> {question.answer_label} </answer><|im_end|>"
    with pytest.raises(UserError, match=questions[0].id):
        Collator(processor, questions, "medvlthinker", 40)([{"row": 0}])
