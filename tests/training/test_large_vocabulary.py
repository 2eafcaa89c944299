"""With a true vocabulary no float32 tensor of tokens x vocabulary is made: sampling, SFT and GRPO work in parts.

Every result of an operator, backward included, is looked at. What may be large are the weights' own shapes and TRL's
tile of the output layer, tokens x 32,768.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout import transformers_engine
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.training import sft_trainer
from tests.training.conftest import loss_and_gradients

VOCABULARY = 65_536


class Largest(TorchDispatchMode):
    """The elements of the largest floating-point tensor that an operator returns, but for those in `known` shapes."""

    def __init__(self, known):
        super().__init__()
        self.known, self.elements = known, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        floats = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.is_floating_point()]
        self.elements = max([self.elements, *(t.numel() for t in floats if tuple(t.shape) not in self.known)])
        return out


def widened(model):
    """The model with a large vocabulary; the shapes of its weights."""
    torch.manual_seed(0)
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    shapes = {tuple(shape) for p in model.parameters() for shape in (p.shape, p.shape[::-1])}
    return model, shapes


def test_sft(tmp_path):
    profile = load_profile("tiny", {"model.name": "phantom:small", "sft.batch": 8, "sft.micro_batch": 8})
    model, known = widened(load_policy(profile, trainable=True))
    processor, questions = profile_processor(profile), make_questions("curb65,nodule_count", "train", 8)
    trainer = sft_trainer.make_trainer(profile, model, processor, questions, tmp_path)
    batch = trainer.data_collator([{"row": i} for i in range(8)])
    positions = batch["labels"].numel()
    with Largest(known) as seen:
        trainer.compute_loss(trainer.model, batch).backward()
    assert model.get_output_embeddings().weight.grad.abs().sum() > 0
    assert seen.elements <= positions * _CHUNKED_LOGPROB_CHUNK_SIZE == positions * VOCABULARY // 2


def test_grpo_s_update(make_trainer):
    """The completions' tokens alone reach the output layer, whose tile is half of the vocabulary here."""
    trainer = make_trainer("shared", **{"grpo.prompts": 2, "grpo.micro_batch": 8})
    _, known = widened(trainer.model)
    rows, length = 8, 40
    torch.manual_seed(1)
    prompt = torch.randint(20, 800, (2, 30)).repeat_interleave(4, 0)
    batch = {
        "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt),
        "completion_ids": torch.randint(20, 800, (rows, length)),
        "completion_mask": torch.ones(rows, length, dtype=torch.long), "advantages": torch.randn(rows),
        "num_items_in_batch": torch.tensor(rows * length),
    }  # fmt: skip
    with Largest(known) as seen:
        _, gradients = loss_and_gradients(trainer, batch)
    assert gradients["model.language_model.embed_tokens.weight"].abs().sum() > 0
    assert seen.elements <= rows * length * _CHUNKED_LOGPROB_CHUNK_SIZE == rows * length * VOCABULARY // 2


def test_the_engine_samples_some_rows_at_a_time_and_chooses_what_it_would_at_once(monkeypatch):
    """16 samples: the logits of one token of each, which the model returns, are all there is of that size."""
    profile = load_profile("tiny", {"model.name": "phantom:small"})
    model, known = widened(load_policy(profile))
    engine = TransformersEngine(model, profile_processor(profile))
    asked, sampling = prompts_of(make_questions("curb65", "test", 2)), Sampling(8, 1.0, 4, seed=1)
    logits = {(16, 1, VOCABULARY), (16, VOCABULARY), (2, 1, VOCABULARY), (2, VOCABULARY)}
    with Largest(known | logits) as seen:
        some = list(engine.generate(asked, sampling))
    assert seen.elements <= transformers_engine.AT_ONCE
    monkeypatch.setattr(transformers_engine, "AT_ONCE", 2**30)
    assert list(engine.generate(asked, sampling)) == some
