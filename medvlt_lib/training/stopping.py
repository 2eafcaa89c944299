"""SIGTERM while training: the step is ended and saved, and the run says how to go on.

transformers has a callback for this, which also saves between two updates from one batch of rollouts; training could
not go on from there.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback

from medvlt_lib.core.errors import Terminated


class SaveAndStop(TrainerCallback):
    """Once `asked`, saves and stops after the next step that ends `updates` updates; all processes at the same."""

    def __init__(self, updates: int) -> None:
        self.updates, self.asked = updates, False

    def note(self, *_) -> None:
        if not self.asked:
            print("SIGTERM: ending this step and saving it ...", file=sys.stderr, flush=True)
        self.asked = True

    def on_step_end(self, args, state, control, **_):
        asked = any(gather_object([self.asked])) if args.world_size > 1 else self.asked
        if asked and state.global_step % self.updates == 0 and state.global_step < state.max_steps:
            self.asked = True
            control.should_save = control.should_training_stop = True


@contextmanager
def saved_on_sigterm(trainer: Trainer, updates: int) -> Iterator[None]:
    """Train inside this. Raises Terminated at the end where SIGTERM came and steps are left to do."""
    callback = SaveAndStop(updates)
    trainer.add_callback(callback)
    here = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
    before = signal.signal(signal.SIGTERM, callback.note) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
    if callback.asked and trainer.state.global_step < trainer.state.max_steps:
        raise Terminated(f"stopped by SIGTERM after step {trainer.state.global_step}, which is saved")
