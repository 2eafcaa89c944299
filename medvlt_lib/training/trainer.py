"""What SFT and GRPO share: trainer settings, and training that survives being killed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.training.checkpoints import fitting, last_checkpoint, load_weights, read_numbered_cpus
from medvlt_lib.training.stopping import saving_when_stopped
from medvlt_lib.training.trackers import keep_tensorboard, tracker_arguments

if TYPE_CHECKING:
    from transformers import Trainer

    from medvlt_lib.core.config import Optimisation, Profile


def shared_arguments(profile: Profile, section: Optimisation, folder: Path) -> dict[str, Any]:
    """Settings that SFTConfig and GRPOConfig name alike."""
    cpu = profile.model.device == "cpu"
    schedule = {"constant": "constant_with_warmup" if section.warmup_ratio else "constant"}.get(
        section.schedule, section.schedule
    )
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
        **tracker_arguments(profile, folder),
        "use_cpu": cpu,
        "bf16": profile.model.dtype == "bfloat16" and not cpu,
        "dataloader_pin_memory": not cpu,
        "dataloader_drop_last": True,
    }


class AlreadyTrained(Exception):
    """The checkpoint that training goes on from is of the last step: its weights are final."""


def train_resumably(trainer: Trainer, figure: str) -> None:
    """Train from the newest whole checkpoint of the trainer's output folder, or from the start.

    After the last step nothing more is trained: the trainer then holds the weights and the log of its last checkpoint.
    The progress bar shows `figure` of the log ('loss' or 'reward'); every step's full row goes to log.jsonl instead,
    and to the tracker where one is set.
    SIGTERM and Ctrl-C save a checkpoint and stop, as medvlt_lib.training.stopping says. Raises UserError for a
    checkpoint that does not fit the trainer's model.
    """
    from transformers import PrinterCallback, ProgressCallback

    class Progress(ProgressCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            if state.global_step >= state.max_steps:  # transformers would train one step more
                raise AlreadyTrained
            super().on_train_begin(args, state, control, **kwargs)

        def on_log(self, args, state, control, logs=None, **_):
            if self.training_bar is not None and figure in logs:
                self.training_bar.set_postfix({figure: logs[figure]})

    for callback in list(trainer.callback_handler.callbacks):
        if (
            isinstance(callback, (PrinterCallback, ProgressCallback))
            or type(callback).__name__ == "NotebookProgressCallback"
        ):
            trainer.remove_callback(callback)
    trainer.add_callback(Progress)
    keep_tensorboard(trainer, Path(str(trainer.args.output_dir)).parent)
    _make_checkpoints_whole(trainer)
    with saving_when_stopped(trainer), suppress(AlreadyTrained):
        trainer.train(resume_from_checkpoint=last_checkpoint(Path(trainer.args.output_dir)))


def _make_checkpoints_whole(trainer: Trainer) -> None:
    """Checkpoints are read as they should be (see `load_weights` and `fitting`), and complete when they say so."""
    read_numbered_cpus()
    adapter = hasattr(trainer.model, "peft_config")
    all_weights_here = not (adapter or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    load, save_random_state = trainer._load_from_checkpoint, trainer._save_rng_state

    def load_checked(checkpoint: str, model: Any = None) -> None:
        with fitting(checkpoint, adapter):
            if all_weights_here:
                load_weights(trainer.model, checkpoint)
            else:
                load(checkpoint, model)

    def save_everyones(folder: str) -> None:
        """Every process writes its own random state, and the file that marks the checkpoint as whole comes after."""
        save_random_state(folder)
        trainer.accelerator.wait_for_everyone()

    trainer._load_from_checkpoint, trainer._save_rng_state = load_checked, save_everyones
