"""Where training reports its log besides log.jsonl: `launch.tracker`, through the callbacks of transformers.

tensorboard writes into the arm's folder `tracker`; trackio and W&B keep their runs where they always do, in the project
`medvlt` unless their own environment variables say otherwise.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer

FOLDER = "tracker"  # in an arm's folder, kept


def refuse_missing_tracker(profile: Profile) -> None:
    """Raises UserError where the package of `launch.tracker` (they are called alike) is not installed."""
    name = profile.launch.tracker
    if name != "none" and find_spec(name) is None:
        raise UserError(
            f"launch.tracker is {name}, and that package is not installed; run `pip install {name}`, "
            "or set launch.tracker=none."
        )


def tracker_arguments(profile: Profile, folder: Path) -> dict[str, Any]:
    """What transformers' TrainingArguments are told; a run is named after its arm's folder: tiny/04_grpo/rl_text."""
    if profile.launch.tracker == "wandb":
        os.environ.setdefault("WANDB_PROJECT", "medvlt")
    name = "/".join(folder.absolute().parts[-3:])
    return {"report_to": profile.launch.tracker, "run_name": name, "project": "medvlt"}


def keep_tensorboard(trainer: Trainer, folder: Path) -> None:
    """Lead tensorboard's files to the arm's folder: transformers puts them beside the checkpoints, which are deleted
    when training has finished."""
    from transformers.integrations import TensorBoardCallback

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(folder / FOLDER)
