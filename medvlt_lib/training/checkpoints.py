"""Checkpoints: the newest whole one to resume from, and the one that a finished arm keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.files import read_json, write_json, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; torn ones (trainer_state.json, written last, is missing or cut) are removed."""
    whole = []
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text())
            whole.append(path)
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return str(whole[-1]) if whole else None


def load_weights(model: PreTrainedModel, checkpoint: str) -> None:
    """A checkpoint's full weights into the model, every one of them.

    transformers 5.17 writes Qwen2-VL checkpoints under their published names, looks for the inner names on resuming,
    finds none, only warns, and would go on from the weights training began with.
    """
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def finish_training(trainer: Trainer, folder: Path, model: str) -> dict[str, float]:
    """Write checkpoint/ and log.jsonl and return the metrics. An adapter names its base `model`."""
    temporary = folder / ".checkpoint"
    if trainer.is_world_process_zero():
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(temporary))  # every process takes part where weights are sharded
    if trainer.is_world_process_zero():
        _keep_checkpoint(trainer, temporary, folder, model)
    trainer.accelerator.wait_for_everyone()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"steps": trainer.state.global_step, "first_loss": float(losses[0]), "last_loss": float(losses[-1])}


def _keep_checkpoint(trainer: Trainer, temporary: Path, folder: Path, model: str) -> None:
    trainer.processing_class.save_pretrained(temporary)
    for leftover in ("README.md", "training_args.bin"):  # an empty template, and a pickle with this machine's paths
        (temporary / leftover).unlink(missing_ok=True)
    shutil.rmtree(temporary / "ref", ignore_errors=True)  # TRL's frozen copy of the adapter that training began with
    adapter = temporary / "adapter_config.json"
    if adapter.exists():
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": model})
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    temporary.rename(folder / "checkpoint")
    write_jsonl(folder / "log.jsonl", trainer.state.log_history)
