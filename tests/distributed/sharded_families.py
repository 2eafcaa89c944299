"""Small random models of both families, sharded by accelerate as assets/launch/fsdp.yaml says, against whole ones.

Started by test_many_devices.py under `accelerate launch`; what was found goes to the JSON file argv[1]. Each process
takes every second row of a batch of text and pictures, and the whole model takes all of them.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule

from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.tiny.architecture import build_tiny_processor, tiny_config
from medvlt_lib.training.sft_trainer import Collator
from tests.distributed.fsdp_on_cpu import own_tensors, take_cpus_for_gpus

LAYERS = {
    "Qwen2-VL": ("Qwen2VLDecoderLayer", "Qwen2VLVisionBlock"),
    "Qwen2.5-VL": ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"),
}


def random_model(family: str, tied: bool, tokenizer):
    """A tiny Qwen2-VL or Qwen2.5-VL with random weights; `tied`: embeddings are the output layer, as in the 3B."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    config = tiny_config("small", tokenizer)
    if family == "Qwen2.5-VL":
        config.tie_word_embeddings = tied
        return Qwen2_5_VLForConditionalGeneration(config)
    c = config.to_dict()
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    text = {k: v for k, v in c["text_config"].items() if k not in ("model_type", "architectures")}
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": text["hidden_size"], "num_heads": 1, "mlp_ratio": 2}
    same = {k: c[k] for k in keys}
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **same)
    )


def loss_of(model, batch: dict, answered: int) -> torch.Tensor:
    return model(**batch, num_items_in_batch=answered, use_cache=False).loss


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def largest_difference(sharded: dict, unsharded: dict) -> float:
    """Relative to the largest number of each tensor."""
    assert sharded.keys() == unsharded.keys()
    return max((sharded[k] - v).abs().max().item() / (v.abs().max().item() + 1e-12) for k, v in unsharded.items())


def compare(family: str, tied: bool, collator: Collator, accelerator: Accelerator) -> dict:
    """One step of a sharded model and of the same whole one."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    rows = [{"row": row} for row in range(len(collator.questions))]
    batch, part = collator(rows), collator(rows[rank::processes])
    answered = (batch["labels"][:, 1:] != -100).sum()
    reference = random_model(family, tied, collator.processor.tokenizer)
    expected = loss_of(reference, batch, answered)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in reference.named_parameters()}

    model = random_model(family, tied, collator.processor.tokenizer)
    layers = [name for name, module in model.named_modules() if type(module).__name__ in LAYERS[family]]
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # a used one knows the classes of its model only
    if rank:  # only the first process has weights
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float("nan"))
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    finite = all(tensor.isfinite().all().item() for tensor in own_tensors(model) if tensor.is_floating_point())
    loss = loss_of(model, part, answered) * processes  # FSDP averages over the processes
    accelerator.backward(loss)
    found = {name: whole(p.grad) for name, p in model.named_parameters()}
    mean = accelerator.reduce(loss.detach(), reduction="mean").item()
    optimizer.step()
    torch.optim.SGD(reference.parameters(), lr=0.1).step()
    stepped = {name: whole(p.detach()) for name, p in model.named_parameters()}
    accelerator._models.clear()  # accelerate prepares one FSDP model a program
    return {
        "layers": layers,
        "wrapped": [name for name, module in model.named_modules() if isinstance(module, FSDPModule)],
        "finite": gather_object([finite]),
        "loss": [mean, expected.item()],
        "gradients": largest_difference(found, gradients),
        "weights": largest_difference(stepped, {n: p.detach() for n, p in reference.named_parameters()}),
    }


def main() -> None:
    take_cpus_for_gpus()
    accelerator = Accelerator(cpu=True)
    processor = build_tiny_processor()
    questions = make_questions("curb65,nodule_count", "train", 8, seed=3)
    questions = sorted(questions, key=lambda question: question.modality)  # so that each process gets both kinds
    collator = Collator(processor, questions, "medvlthinker", 512)
    found = {
        f"{family}, {'tied' if tied else 'untied'}": compare(family, tied, collator, accelerator)
        for family in LAYERS
        for tied in (True, False)
    }
    if accelerator.is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main()
