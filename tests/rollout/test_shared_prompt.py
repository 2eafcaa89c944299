"""Samples that share their prompt's cache say what plain generation says, also with grouped key heads and in bf16."""

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.tiny.architecture import build_tiny_processor, tiny_config


@pytest.fixture(scope="module")
def grouped():
    """A random model whose four query heads share two key heads."""
    processor = build_tiny_processor()
    config = tiny_config("small", processor.tokenizer)
    config.text_config.num_key_value_heads = config.text_config.num_attention_heads // 2
    torch.manual_seed(3)
    return Qwen2_5_VLForConditionalGeneration(config).eval(), processor


def test_grouped_key_heads_equal_generate(grouped):
    engine = TransformersEngine(*grouped)
    prompts = prompts_of(make_questions("curb65,nodule_count,lesion_site", "validation", 12))
    completions = list(engine.generate(prompts, Sampling(n=1, temperature=0, max_new_tokens=40)))
    for prompt, done in zip(prompts, completions, strict=True):
        inputs = engine.inputs([prompt])
        ids = engine.model.generate(
            **inputs, max_new_tokens=40, do_sample=False, suppress_tokens=engine.suppressed, eos_token_id=engine.end
        )
        assert done.token_ids == ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_long_samples_outgrow_their_room_and_leave_one_by_one(grouped):
    """Log-probabilities of 100-token samples equal those of one plain forward pass over prompt and answer."""
    engine = TransformersEngine(*grouped)
    prompts = prompts_of(make_questions("curb65", "validation", 3))
    for done in engine.generate(prompts, Sampling(n=4, temperature=1.0, max_new_tokens=100, seed=1)):
        ids = torch.tensor([[*done.prompt_ids, *done.token_ids]])
        with torch.no_grad():
            logits = engine.model(input_ids=ids).logits[0, len(done.prompt_ids) - 1 : -1]
        logits[:, engine.suppressed] = -torch.inf
        expected = torch.log_softmax(logits, -1)[torch.arange(len(done.token_ids)), torch.tensor(done.token_ids)]
        assert torch.allclose(torch.tensor(done.logprobs), expected, atol=1e-4)


def test_attention_is_put_back(grouped):
    model, processor = grouped
    before = model.config.get_text_config()._attn_implementation
    list(
        TransformersEngine(model, processor).generate(
            prompts_of(make_questions("curb65", "validation", 1)), Sampling(2, 1.0, 4)
        )
    )
    assert model.config.get_text_config()._attn_implementation == before


def test_bf16_runs(grouped):
    model, processor = grouped
    half = Qwen2_5_VLForConditionalGeneration(model.config).to(torch.bfloat16).eval()
    done = list(
        TransformersEngine(half, processor).generate(
            prompts_of(make_questions("nodule_count", "validation", 2)), Sampling(3, 1.0, 12)
        )
    )
    assert len(done) == 6 and all(len(c.token_ids) <= 12 for c in done)


def test_the_output_layer_is_handed_no_view(grouped):
    """In bf16 on a CPU, torch would multiply a view by a copy of the layer's weights for every row of it."""
    model, processor = grouped
    whole: list[bool] = []
    watch = model.lm_head.register_forward_pre_hook(lambda _, given: whole.append(given[0].is_contiguous()))
    prompts = prompts_of(make_questions("curb65,nodule_count", "validation", 4))
    list(TransformersEngine(model, processor).generate(prompts, Sampling(2, 1.0, 4)))
    watch.remove()
    assert len(whole) == 4 and all(whole)
