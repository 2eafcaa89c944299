"""SIGTERM and Ctrl-C while training: the current step is finished, a checkpoint saved, and training stops.

Schedulers (Slurm, Kubernetes) and `kill` send SIGTERM before they end a job. Nothing is marked as finished, and the
same command goes on from that checkpoint. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer

NOTICE = b"\nstopping after this step, once its checkpoint is saved ...\n"


@contextmanager
def saving_when_stopped(trainer: Trainer) -> Iterator[None]:
    """Train inside this. Raises SystemExit(143) after SIGTERM, and KeyboardInterrupt after Ctrl-C.

    Of several processes that train together all stop at the same step, whichever got the signal. Outside the main
    thread, where Python hears no signals, this does nothing.
    """
    from transformers import TrainerCallback

    received: list[int] = []

    def hear(number: int, _: Any) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)
        os.write(2, NOTICE)  # print may not be called here: the signal may have come in the middle of another print

    class Stop(TrainerCallback):
        """Looks for a signal after every step, and again after a validation, which may take long."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0 or state.global_step % updates_in_a_step(args):
                return
            if received:
                trainer.accelerator.set_trigger()
            if trainer.accelerator.check_trigger():
                received.append(signal.SIGTERM)
                control.should_save = control.should_training_stop = True

        on_evaluate = on_step_end

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    trainer.add_callback(Stop())
    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        say_goodbye(trainer, received[0])


def say_goodbye(trainer: Trainer, number: int) -> None:
    state = trainer.state
    sentence = f"stopped after step {state.global_step} of {state.max_steps}; the same command continues from there."
    if trainer.is_world_process_zero():
        print(sentence, file=sys.stderr)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def updates_in_a_step(args: Any) -> int:
    """Optimizer updates that are made from one round of sampling, within which no checkpoint may fall; 1 in SFT."""
    per_update = args.gradient_accumulation_steps
    return getattr(args, "steps_per_generation", per_update) // per_update
