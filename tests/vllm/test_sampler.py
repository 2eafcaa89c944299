"""vLLM as GRPO's sampler: new weights arrive at every step, and ratios tell how far sampler and learner differ."""

import math

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.rollout.vllm_engine import VllmEngine
from medvlt_lib.stages import data, grpo
from medvlt_lib.training.grpo_trainer import make_trainer
from medvlt_lib.training.vllm_sampler import fingerprint, start_sampler

SMALL = {
    "grpo.sampler": "vllm", "grpo.prompts": 4, "grpo.group_size": 8, "grpo.micro_batch": 32, "grpo.max_steps": 2,
    "grpo.validate_every": None, "grpo.max_prompt_length": 256,
}  # fmt: skip
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}
KINDS = {
    "all weights": ("tiny", {}),
    "nf4 and lora": ("tiny-qlora", {}),
    "bf16 and lora": ("tiny", {"model.dtype": "bfloat16", "model.lora": LORA}),
}
CLOSE = {"float32": 1e-3, "bfloat16": 0.2}  # of a log-probability; bf16 has three digits


def logprobs_of(model, token_ids: list[int]) -> list[float]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids])).logits[0, :-1].float()
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(token_ids[1:])[:, None])
    return chosen.flatten().tolist()


def shake(model, seed: int) -> None:
    """Move every trained weight a little, as an update would."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.02 * weight.std().nan_to_num(0).clamp(min=0.02) * torch.randn_like(weight)


@pytest.fixture(scope="module", params=KINDS)
def sampler(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDVLT_CACHE", str(folder / "cache"))
        name, changes = KINDS[request.param]
        profile = load_profile(name, {**SMALL, **changes})
        model = load_policy(profile, trainable=True).eval()
        yield start_sampler(profile, model, folder)


def test_after_twenty_swaps_the_sampler_answers_as_the_learner(sampler):
    """Adapters and whole weights: log-probabilities within CLOSE, greedy answers equal, pictures too."""
    dtype = str(sampler.model.dtype).removeprefix("torch.")
    first, close = None, CLOSE[dtype]
    for number in range(20):
        shake(sampler.model, number)
        sampler.sync_weights()
        ours, theirs = sampler.engine.prompt_logprobs(sampler.probe), logprobs_of(sampler.model, sampler.probe)
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < close
        first = first or ours
    assert max(abs(a - b) for a, b in zip(ours, first, strict=True)) > 0.1  # twenty swaps have gone far
    asked, greedy = prompts_of(make_questions("curb65,nodule_count", "validation", 20)), Sampling(1, 0.0, 96)
    learner = TransformersEngine(sampler.model, sampler.engine.processor)
    answers = [[c.token_ids for c in engine.generate(asked, greedy)] for engine in (sampler, learner)]
    assert answers[0] == answers[1] if dtype == "float32" else sum(map(list.__eq__, *answers)) >= 15


def test_a_swap_that_did_not_happen_is_caught(sampler, monkeypatch):
    sampler.sync_weights()
    monkeypatch.setattr(VllmEngine, "swap", lambda *_: None)
    monkeypatch.setattr(VllmEngine, "reload", lambda *_: None)
    sampler.sync_weights()  # nothing has changed, so nothing had to arrive
    shake(sampler.model, 99)
    with pytest.raises(UserError, match="still answers with the weights of the step before"):
        sampler.sync_weights()


@pytest.mark.parametrize("base", ["dequantized", "original"])
def test_grpo_with_an_nf4_learner(base, tmp_path, monkeypatch):
    """The stage as a user runs it. What the learner computes with is what the sampler holds: the ratios are 1; with the
    original weights they are not, and the log shows by how much."""
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    few = {"data.train_text_size": 12, "data.train_image_size": 12, "data.test_size": 10, "data.validation_size": 10}
    more = {"grpo.validate_every": 2, "grpo.validation_questions": 10}
    run = open_run("tiny-qlora", None, {**SMALL, **few, **more, "grpo.sampler_base": base}, root=tmp_path)
    data.run(run)
    metrics = grpo.run(run, "rl_text", data=run.folder / "01_data" / "train_image.parquet")
    folder = run.folder / "04_grpo" / "rl_text"
    rows = [row for row in read_jsonl(folder / "log.jsonl") if "reward" in row]
    assert metrics["steps"] == 2 and (folder / "checkpoint" / "adapter_config.json").exists()
    gaps = [row["sampling/sampling_logp_difference/max"] for row in rows]
    assert max(gaps) < 1e-3 if base == "dequantized" else min(gaps) > 1e-2
    assert all(0.5 < row["sampler/effective_share"] <= 1.0001 for row in rows)
    assert all(math.isclose(sum(v for k, v in row.items() if k.startswith("sampler/ratio")), 1) for row in rows)
    assert list((tmp_path / "cache" / "dequantized").glob("*/config.json")) if base == "dequantized" else True


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["all weights", "bf16 and lora"])
def test_grpo_with_other_learners(kind, tmp_path, monkeypatch):
    """Whole weights, or an adapter on a base in bf16, are handed over before each step: what was sampled is as likely
    to the learner."""
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    name, changes = KINDS[kind]
    profile = load_profile(name, {**SMALL, **changes, "grpo.max_steps": 3})
    trainer = make_trainer(
        profile,
        load_policy(profile, trainable=True),
        profile_processor(profile),
        make_questions("curb65,nodule_count", "train", 12, seed=3),
        tmp_path,
    )
    before = fingerprint(trainer.model)
    trainer.train()
    assert (fingerprint(trainer.model) - before).abs().max() > 0
    rows = [row for row in trainer.state.log_history if "reward" in row]
    gaps = [row["sampling/sampling_logp_difference/mean"] for row in rows]
    assert len(rows) == 3 and max(gaps) < CLOSE[profile.model.dtype] / 4, gaps
    assert all(0.9 < row["sampler/effective_share"] <= 1.0001 for row in rows)


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    """The sampler gets the checkpoint's adapter before it answers, so both ways end with the same weights."""
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    profile = load_profile("tiny-qlora", {**SMALL, "grpo.save_every": 1, "grpo.max_steps": 2})
    questions = make_questions("curb65,nodule_count", "train", 12, seed=3)

    def trained(folder, steps, resume=False):
        model = load_policy(profile, trainable=True)
        trainer = make_trainer(profile, model, profile_processor(profile), questions, folder)
        trainer.args.max_steps = steps
        trainer.train(resume_from_checkpoint=resume)
        return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}

    whole = trained(tmp_path / "whole", 2)
    trained(tmp_path / "halves", 1)
    halves = trained(tmp_path / "halves", 2, resume=True)
    assert all((halves[name] - weight).abs().max() < 1e-5 for name, weight in whole.items())
