"""The real language model in Qwen2.5-VL's text tower: it computes what the original does."""

import re

import pytest
import torch
from transformers import AutoModelForImageTextToText

from medvlt_lib.models import smol
from medvlt_lib.models.supervised import summed_loss
from medvlt_lib.study.language import TEXT
from tests.smol.prompts import prompts


@pytest.fixture(scope="module")
def theirs():
    """The original, read again here, and its tokenizer."""
    return smol.original(smol.checked_package())


@pytest.fixture(scope="module")
def ours():
    """The untrained graft and its processor: what is trained later changes the language model on purpose."""
    return smol.untrained(smol.checked_package())


def test_shapes_are_the_published_ones(ours):
    text = ours[0].config.text_config
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (576, 30, 49_152)
    assert (text.num_attention_heads, text.num_key_value_heads) == (9, 3)
    assert text.rope_parameters["rope_theta"] == 100_000 and text.rope_parameters["mrope_section"] == [8, 12, 12]
    assert sum(p.numel() for p in ours[0].model.language_model.parameters()) - 134_515_008 == 30 * (576 + 2 * 192)


def test_text_is_read_as_the_original_reads_it(theirs, ours):
    """Transformers' GGUF reader (5.17) does not know the file's pre-tokenizer, "smollm", which takes every digit by
    itself first: spaces before a digit, of which it takes the last to the digit, are compared with nothing here."""
    tokenizer, compared = ours[1].tokenizer, 0
    for text in prompts():
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        if not re.search(r"\s\s\d", text):
            compared += 1
            assert ids == theirs[1](text).input_ids
    assert compared > 120
    assert tokenizer.convert_ids_to_tokens(tokenizer("was 12").input_ids) == ["was", "Ġ", "1", "2"]


def test_logits_of_200_prompts_are_the_original_s(theirs, ours):
    far = 0.0
    with torch.no_grad():
        for text in prompts():
            ids = torch.tensor([ours[1].tokenizer(text).input_ids])
            far = max(far, (ours[0](input_ids=ids).logits - theirs[0](input_ids=ids).logits).abs().max().item())
    assert far <= 1e-5


def test_plain_language_costs_what_the_original_says(theirs, ours):
    """The loss behind the study `pretrained`'s perplexity, against that of transformers on the original."""
    passage = TEXT.read_text(encoding="utf-8").splitlines()[0]
    own, other = (tokenizer(passage, return_tensors="pt").input_ids for tokenizer in (ours[1].tokenizer, theirs[1]))
    with torch.no_grad():
        found = summed_loss(ours[0], {"input_ids": own}, own) / (own.shape[1] - 1)
        truth = theirs[0](input_ids=other, labels=other).loss
    assert found.item() == pytest.approx(truth.item(), abs=1e-5) and 2 < truth.item() < 5


def test_greedy_continuations_are_the_original_s(theirs, ours):
    options = {"do_sample": False, "max_new_tokens": 24, "eos_token_id": 2, "pad_token_id": 0}
    for text in prompts()[::10]:
        ids = torch.tensor([ours[1].tokenizer(text).input_ids])
        one, other = (
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
            for model in (ours[0], theirs[0])
        )
        assert one.tolist() == other.tolist()


def test_it_speaks(ours):
    """A sentence that any English model can end: the weights are the ones that were trained, in their places."""
    tokenizer = ours[1].tokenizer
    ids = torch.tensor([tokenizer("The capital of France is").input_ids])
    with torch.no_grad():
        best = ours[0](input_ids=ids).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"


def test_the_folder_holds_the_same_weights_for_plain_transformers(ours, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path))
    monkeypatch.setattr(smol, "TRAINED", tmp_path / "absent")
    loaded = AutoModelForImageTextToText.from_pretrained(smol.smol_folder(), dtype=torch.float32)
    assert not hasattr(loaded.config, "quantization_config")
    for (name, weight), (other, theirs) in zip(loaded.named_parameters(), ours[0].named_parameters(), strict=True):
        assert name == other and torch.equal(weight, theirs)
