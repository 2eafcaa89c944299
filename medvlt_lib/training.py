"""What SFT and GRPO share: arms, trainer settings, and training that survives being killed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from medvlt_lib.records import UserError, atomic_write
from medvlt_lib.runs import COMMANDS, Run, read_json, write_json

ARMS = ("base", "sft_text", "sft_image", "rl_text", "rl_image", "sft_text-rl_image", "rl_text-rl_image")


def arm_stage(arm: str) -> str:
    """'03' or '04', by an arm's last step."""
    return "03" if arm.rpartition("-")[2].startswith("sft") else "04"


def trained_in(run_: Run, arm: str) -> str:
    """The stage, '03' or '04', whose folder holds a finished arm; where there is none, the one its name belongs to."""
    found = [s for s in ("03", "04") if (run_.stage_folder(s, arm) / "metrics.json").exists()]
    return found[0] if found else arm_stage(arm)


def arm_inputs(run_: Run, stage: str, arm: str, which: str, data: Path | None, init: Path | None) -> dict[str, Path]:
    """The files an arm is trained from: its data, and the checkpoint it starts from unless that is the base model.

    `which`: 'train' (01_data), 'kept' or 'control' (02_filtering). Arms outside the paper's seven need `data`.
    """
    if arm in ARMS[1:] and arm_stage(arm) != stage:
        raise UserError(f"the arm {arm} is trained by `medvlt {COMMANDS[arm_stage(arm)]} --arm {arm}`, not by {COMMANDS[stage]}.")
    before, _, last = arm.rpartition("-")
    kind = last.partition("_")[2]
    if data is None:
        traces = run_.profile.data.traces_image if which == "train" and kind == "image" else None
        if arm not in ARMS or arm == "base":
            raise UserError(f"'{arm}' is not one of the arms {', '.join(ARMS[1:])}; name its training file with --data.")
        folder = run_.require("01") if which == "train" else run_.require("02")
        data = folder / f"{'traces' if traces else which}_{kind}.parquet"
    inputs = {"data": data}
    if init is not None:
        if not (init / "config.json").exists() and not (init / "adapter_config.json").exists():
            raise UserError(f"--init {init} holds no model; name a folder with config.json or adapter_config.json.")
        inputs["init"] = init
    elif before and arm in ARMS:
        inputs["init"] = run_.require(arm_stage(before), before) / "checkpoint"
    return inputs


def launch_command(run_: Run, command: str) -> str | None:
    """What starts a training stage of a profile for several devices; None when this process is one of them, or the only one.

    `command` is the stage's own command line, such as 'grpo --arm rl_text --run full-3b'. Not run here: no GPUs at hand.
    """
    launch = run_.profile.launch
    if launch.devices == int(os.environ.get("WORLD_SIZE", "1")):
        return None
    config = Path(__file__).parent / "launch" / f"{launch.strategy}.yaml"
    machines = -(-launch.devices // 8)
    start = f"accelerate launch --config_file {config} --num_processes {launch.devices} --num_machines {machines}"
    if machines > 1:
        start += " --machine_rank RANK --main_process_ip FIRST_MACHINE"
    serve = ""
    if run_.profile.grpo.sampler == "trl-vllm-server" and command.startswith("grpo"):
        serve = f"trl vllm-serve --model {run_.profile.model.name}   # on GPUs of its own, before:  "
    return f"{serve}{start} -m medvlt_lib {command}"


def shared_arguments(profile, section, folder: Path) -> dict:
    """Settings that SFTConfig and GRPOConfig name alike."""
    cpu = profile.model.device == "cpu"
    schedule = {"constant": "constant_with_warmup" if section.warmup_ratio else "constant"}.get(section.schedule, section.schedule)
    return {
        "output_dir": str(folder / "training"),
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": section.warmup_ratio,
        "adam_beta1": section.beta1,
        "adam_beta2": section.beta2,
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.gradient_clip,
        "num_train_epochs": section.epochs,
        "max_steps": section.max_steps or -1,
        "seed": section.seed,
        "gradient_checkpointing": section.gradient_checkpointing,
        "save_steps": section.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": cpu,
        "bf16": profile.model.dtype == "bfloat16" and not cpu,
        "dataloader_pin_memory": not cpu,
        "dataloader_drop_last": True,
    }


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; torn ones (their trainer_state.json, written last, is missing or cut) are removed."""
    whole = []
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text())
            whole.append(path)
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return str(whole[-1]) if whole else None


def train_resumably(trainer, figure: str) -> None:
    """Train from the newest whole checkpoint of the trainer's output folder, or from the start.

    The progress bar shows `figure` of the log ('loss' or 'reward'); every step's full row goes to log.jsonl instead.
    """
    from transformers import PrinterCallback, ProgressCallback

    class Progress(ProgressCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if self.training_bar is not None and figure in logs:
                self.training_bar.set_postfix({figure: logs[figure]})

    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, (PrinterCallback, ProgressCallback)) or type(callback).__name__ == "NotebookProgressCallback":
            trainer.remove_callback(callback)
    trainer.add_callback(Progress)
    if not (hasattr(trainer.model, "peft_config") or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        trainer._load_from_checkpoint = lambda checkpoint, model=None: _load_weights(trainer.model, checkpoint)
    trainer.train(resume_from_checkpoint=last_checkpoint(Path(trainer.args.output_dir)))


def _load_weights(model, checkpoint: str) -> None:
    """A checkpoint's full weights into the model, every one of them.

    transformers 5.17 writes Qwen2-VL checkpoints under their published names, looks for the inner names on resuming,
    finds none, only warns, and would go on from the weights training began with.
    """
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def finish_training(trainer, folder: Path, model: str) -> dict:
    """Write checkpoint/ and log.jsonl, drop the trainer's own folder, and return the metrics. An adapter names its base `model`."""
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


def _keep_checkpoint(trainer, temporary: Path, folder: Path, model: str) -> None:
    trainer.processing_class.save_pretrained(temporary)
    for leftover in ("README.md", "training_args.bin"):  # a template nobody filled in, and a pickle with this machine's paths
        (temporary / leftover).unlink(missing_ok=True)
    shutil.rmtree(temporary / "ref", ignore_errors=True)  # TRL's frozen copy of the adapter that training began with
    adapter = temporary / "adapter_config.json"
    if adapter.exists():
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": model})
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    temporary.rename(folder / "checkpoint")
    rows = [json.dumps(row) for row in trainer.state.log_history]
    atomic_write(folder / "log.jsonl", lambda tmp: Path(tmp).write_text("\n".join(rows) + "\n"))
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
