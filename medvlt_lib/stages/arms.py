"""The arms of the experiment, and which files each is trained from."""

from __future__ import annotations

from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.runs import COMMANDS, STAGES, Run, arm_stage

ARMS = ("base", "sft_text", "sft_image", "rl_text", "rl_image", "sft_text-rl_image", "rl_text-rl_image")


def arm_inputs(run_: Run, stage: str, arm: str, which: str, data: Path | None, init: Path | None) -> dict[str, Path]:
    """The files an arm is trained from: its data, and the checkpoint it starts from unless that is the base model.

    `which`: 'train' (01_data), 'kept' or 'control' (02_filtering), 'distilled' (02b_distill). Arms outside the paper's
    seven need `data`.
    """
    if arm in ARMS[1:] and arm_stage(arm) != stage:
        raise UserError(
            f"the arm {arm} is trained by `medvlt {COMMANDS[arm_stage(arm)]} --arm {arm}`, not by {COMMANDS[stage]}."
        )
    other = "04" if stage == "03" else "03"
    if (run_.folder / STAGES[other] / arm).exists():
        raise UserError(
            f"the arm {arm} was trained by `medvlt {COMMANDS[other]}` already, and one name is one model; "
            "choose another --arm."
        )
    before, _, last = arm.rpartition("-")
    kind = last.partition("_")[2]
    if data is None:
        traces = run_.profile.data.traces_image if which == "train" and kind == "image" else None
        if arm not in ARMS or arm == "base":
            raise UserError(
                f"'{arm}' is not one of the arms {', '.join(ARMS[1:])}; name its training file with --data."
            )
        folder = run_.require({"train": "01", "distilled": "02b"}.get(which, "02"))
        data = folder / f"{'traces' if traces or which == 'distilled' else which}_{kind}.parquet"
        if which == "distilled" and not data.exists():
            raise UserError(
                f"{folder} has no chains of thought for {kind} questions, about which no teacher was asked; "
                f"set its asks to {kind} or both and redo the stage with --redo 02b."
            )
    inputs = {"data": data}
    if init is not None:
        if not (init / "config.json").exists() and not (init / "adapter_config.json").exists():
            raise UserError(f"--init {init} holds no model; name a folder with config.json or adapter_config.json.")
        inputs["init"] = init
    elif before and arm in ARMS:
        inputs["init"] = run_.require(arm_stage(before), before) / "checkpoint"
    return inputs
