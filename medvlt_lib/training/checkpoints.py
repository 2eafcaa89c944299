"""Checkpoints: the newest whole one to resume from, and the one that a finished arm keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.files import read_json, write_json, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

    from medvlt_lib.training.validation import Validation


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


def finish_training(trainer: Trainer, folder: Path, model: str, validation: Validation | None = None) -> dict[str, Any]:
    """Write checkpoint/ and log.jsonl and return the metrics. An adapter names its base `model`.

    With `validation`, checkpoint/ follows its rule, and the weights that it does not follow are kept beside it: those
    of the best validated step in best/, or those of the last step in last/.
    """
    from medvlt_lib.training.validation import chosen_step

    last = folder / ".last"
    if trainer.is_world_process_zero():
        shutil.rmtree(last, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(last))  # every process takes part where weights are sharded
    choice = None if validation is None else chosen_step(validation.right(), validation.questions)
    if trainer.is_world_process_zero():
        kept = {"checkpoint": last}
        if validation is not None and choice is not None and choice.best_step != choice.last_step:
            best = folder / ".best"
            shutil.copytree(validation.weights(choice.best_step), best, dirs_exist_ok=True)
            follows_last = choice.step == choice.last_step
            kept = {"checkpoint": last, "best": best} if follows_last else {"checkpoint": best, "last": last}
        for name in ("checkpoint", "best", "last"):
            shutil.rmtree(folder / name, ignore_errors=True)
            if name in kept:
                _keep(trainer, kept[name], folder / name, model)
        write_jsonl(folder / "log.jsonl", trainer.state.log_history)
    trainer.accelerator.wait_for_everyone()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    metrics = {"steps": trainer.state.global_step, "first_loss": float(losses[0]), "last_loss": float(losses[-1])}
    return metrics | ({} if choice is None else choice.figures())


def _keep(trainer: Trainer, temporary: Path, target: Path, model: str) -> None:
    """Saved weights under their final name, with the processor and without what is not to be shared."""
    trainer.processing_class.save_pretrained(temporary)
    for leftover in ("README.md", "training_args.bin"):  # an empty template, and a pickle with this machine's paths
        (temporary / leftover).unlink(missing_ok=True)
    shutil.rmtree(temporary / "ref", ignore_errors=True)  # TRL's frozen copy of the adapter that training began with
    adapter = temporary / "adapter_config.json"
    if adapter.exists():
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": model})
    temporary.rename(target)
