"""What another engine's samples are worth to the learner, with stand-ins for vLLM; tests/vllm has vLLM itself."""

import math
import weakref
from types import SimpleNamespace

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.models import dequantized as module
from medvlt_lib.models.dequantized import dequantized
from medvlt_lib.models.loading import load_model, load_policy
from medvlt_lib.training.vllm_sampler import VllmSampler, sample_with
from medvlt_lib.training.watched import BINS, sampler_counts, sampler_figures
from tests.training.conftest import generation_batch, loss_and_gradients


def sampled_elsewhere(trainer, shift):
    """The engine says that it gave every token a probability exp(-shift) times the learner's: the ratio is exp(shift).

    Returns how often the weights were handed over."""
    rollout, synced = trainer.rollout_func, []

    def shifted(prompts, own):
        done = rollout(prompts, own)
        done["logprobs"] = [[logprob - shift for logprob in row] for row in done["logprobs"]]
        return done

    trainer.rollout_func = shifted
    sample_with(trainer, SimpleNamespace(sync_weights=lambda: synced.append(trainer.state.global_step)))
    return synced


@pytest.mark.parametrize("update", ["shared", "stock"])
@pytest.mark.parametrize(
    ("ratio", "cap", "weight"), [(1.5, 2.0, 1.5), (0.5, 2.0, 0.5), (3.0, 2.0, 2.0), (3.0, None, 1.0)]
)
def test_every_token_counts_by_its_ratio_up_to_the_cap(make_trainer, update, ratio, cap, weight):
    plain = make_trainer(update)
    _, expected = loss_and_gradients(plain, generation_batch(plain))
    trainer = make_trainer(update, **{"grpo.importance_cap": cap})
    sampled_elsewhere(trainer, math.log(ratio))
    _, found = loss_and_gradients(trainer, generation_batch(trainer))
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - weight * gradient).abs().max() < 1e-3 * largest, name


def test_weights_are_handed_over_once_a_step_and_the_log_shows_the_ratios(make_trainer):
    trainer = make_trainer("shared", families="curb65,apgar", **{"grpo.max_steps": 3})
    synced = sampled_elsewhere(trainer, math.log(1.5))
    trainer.train()
    assert synced == [0, 1, 2]
    rows = [row for row in trainer.state.log_history if "reward" in row]
    assert all(row["sampler/effective_share"] == pytest.approx(1) and row["sampler/cut"] == 0 for row in rows)
    assert all(row["sampler/ratio 1.25 to 2"] == pytest.approx(1, abs=0.02) for row in rows)


def test_effective_share_by_hand():
    """Ratios 1, 1, 1.5 and 4.5: (8 * 8) / (4 * 24.5) of the tokens count; one ratio is over 2.5."""
    figures = sampler_figures(sampler_counts(torch.tensor([1.0, 1.0, 1.5, 4.5]).log(), cap=2.5))
    assert figures["effective_share"] == pytest.approx(64 / 98) and figures["cut"] == 0.25
    assert (figures["ratio 0.95 to 1.05"], figures["ratio 2 to more"]) == (0.5, 0.25)
    assert sum(figures[name] for name in figures if name.startswith("ratio")) == 1 and len(figures) == len(BINS) + 3


class Engine:
    """Answers with the weights that it was given last, as vLLM does."""

    def __init__(self, arrives=True):
        tokenize = lambda text: SimpleNamespace(input_ids=[1, 2, 3])  # noqa: E731
        self.processor, self.arrives, self.held = SimpleNamespace(tokenizer=tokenize), arrives, 0.0

    def reload(self, weights):
        total = sum(weight.sum().item() for _, weight in weights)
        self.held = total if self.arrives else self.held

    def prompt_logprobs(self, token_ids):
        return [self.held]


def test_weights_that_do_not_arrive_are_noticed(tmp_path):
    model = load_policy(load_profile("tiny", {"model.name": "phantom:small"}), trainable=True)
    good, bad = (VllmSampler(Engine(arrives), model, tmp_path) for arrives in (True, False))
    for sampler in (good, bad):
        sampler.sync_weights()
        sampler.sync_weights()  # nothing has moved, nothing must
    with torch.no_grad():
        model.model.language_model.norm.weight[0] += 1e-3
    good.sync_weights()
    with pytest.raises(UserError, match="still answers with the weights of the step before"):
        bad.sync_weights()


def test_dequantized_weights_are_what_the_4_bit_model_computes_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path))
    profile = load_profile("tiny-qlora", {"model.name": "phantom:small"})
    folder = dequantized(profile)
    assert "unpacked once into" in capsys.readouterr().err
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    packed, unpacked, original = load_policy(profile), load_model(folder), load_model(module.resolve("phantom:small"))
    with torch.no_grad():
        logits = [model(input_ids=ids).logits for model in (packed, unpacked, original)]
    assert (logits[0] - logits[1]).abs().max() < 1e-4 < (logits[1] - logits[2]).abs().max()
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    assert dequantized(profile) == folder and not capsys.readouterr().err  # once
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_their_model_is_gone_before_torch_gives_its_memory_back(tmp_path, monkeypatch):
    """vLLM starts next, beside the learner."""
    models, gone, load = [], [], module.load_nf4

    def watched(*args):
        model = load(*args)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "load_nf4", watched)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gone.append(models[0]() is None))
    dequantized(load_profile("tiny-qlora", {"model.name": "phantom:small"}))
    assert gone == [True]


def test_a_disk_without_room_for_them_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"need 0\.0 GB in .*sampler_base original"):
        dequantized(load_profile("tiny-qlora", {"model.name": "phantom:small"}))
    assert not list((tmp_path / "dequantized").glob("*/"))
