"""Checkpoints: the newest whole one to resume from, and those that a finished arm keeps."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.errors import UserError, first_line
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


@contextmanager
def fitting(checkpoint: str, adapter: bool) -> Iterator[None]:
    """Load a checkpoint inside this. Raises UserError when it is of another model, or full weights for an adapter."""
    import torch

    advice = f"delete the folder {Path(checkpoint).parent}, and the arm is trained from its start"
    if (Path(checkpoint) / "adapter_config.json").exists() != adapter:
        kinds = ("full weights", "an adapter")
        raise UserError(f"{checkpoint} holds {kinds[not adapter]}, and this profile trains {kinds[adapter]}; {advice}.")
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{checkpoint} does not fit this profile's model ({first_line(error)}); {advice}.") from error


def load_weights(model: PreTrainedModel, checkpoint: str) -> None:
    """A checkpoint's full weights into the model, every one of them.

    transformers 5.17 writes Qwen2-VL checkpoints under their published names, looks for the inner names on resuming,
    finds none, only warns, and would go on from the weights training began with.
    """
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


@functools.cache
def read_numbered_cpus() -> None:
    """Let torch.load put tensors on `cpu:1`, as accelerate calls the CPU of a second process; it knows `cpu` alone.

    transformers 5.17 reads the optimizer's state to that place, so training in several CPU processes could not go on.
    """
    import torch

    def restored(storage: torch.UntypedStorage, place: str) -> torch.UntypedStorage | None:
        return storage if place.startswith("cpu:") else None

    torch.serialization.register_package(0, lambda storage: None, restored)


def finish_training(
    trainer: Trainer, folder: Path, model: str, best: Path | None = None, take_best: bool = False
) -> dict[str, float]:
    """Write checkpoint/ and log.jsonl and return the metrics. An adapter names its base `model`.

    `best`: the weights of an earlier step that are kept beside those of the last one, in best/. With `take_best` they
    are checkpoint/, and those of the last step are last/. Killed anywhere and called again it ends with the same files.
    """
    last_name, best_name = ("last", "checkpoint") if take_best else ("checkpoint", "best")
    temporary = folder / ".checkpoint"
    if trainer.is_world_process_zero():
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(temporary))  # every process takes part where weights are sharded
    if trainer.is_world_process_zero():
        _keep_checkpoint(trainer, temporary, folder / last_name, model)
        if best is not None:
            shutil.copytree(best, temporary)
            _keep_checkpoint(trainer, temporary, folder / best_name, model)
        write_jsonl(folder / "log.jsonl", trainer.state.log_history)
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.num_processes > 1:  # a process that leaves while another still talks to it is aborted
        trainer.accelerator.state.destroy_process_group()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"steps": trainer.state.global_step, "first_loss": float(losses[0]), "last_loss": float(losses[-1])}


def _keep_checkpoint(trainer: Trainer, temporary: Path, target: Path, model: str) -> None:
    trainer.processing_class.save_pretrained(temporary)
    for leftover in ("README.md", "training_args.bin"):  # an empty template, and a pickle with this machine's paths
        (temporary / leftover).unlink(missing_ok=True)
    shutil.rmtree(temporary / "ref", ignore_errors=True)  # TRL's frozen copy of the adapter that training began with
    adapter = temporary / "adapter_config.json"
    if adapter.exists():
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": model})
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
