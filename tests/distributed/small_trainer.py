"""The trainer of the scripts that test_two_processes.py starts, with or without `accelerate launch`."""

import tempfile
from pathlib import Path

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.grpo_trainer import make_trainer


def small_trainer(processes: int, families: str, **settings):
    """GRPO on the smaller tiny model and eight questions, for this number of processes."""
    small = {
        "model.name": "phantom:small", "grpo.prompts": 4, "grpo.group_size": 4, "grpo.save_every": 100,
        "sft.micro_batch": 8, "launch.devices": processes, "launch.strategy": "ddp" if processes > 1 else "single",
    }  # fmt: skip
    profile = load_profile("tiny", {**small, **settings})
    questions = make_questions(families, "train", 8, seed=3)
    model, folder = load_policy(profile, trainable=True), Path(tempfile.mkdtemp())
    return make_trainer(profile, model, profile_processor(profile), questions, folder)
