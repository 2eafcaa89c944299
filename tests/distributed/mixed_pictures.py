"""Two GRPO steps of text and picture questions; their log goes to the file argv[1]. argv[2]: the number of processes.

Started by test_two_processes.py, with or without `accelerate launch`. One of two processes has no pictures at first.
"""

import json
import sys
import tempfile
from pathlib import Path

from accelerate.utils import gather_object

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.grpo_trainer import make_trainer


def main() -> None:
    target, processes = Path(sys.argv[1]), int(sys.argv[2])
    settings = {
        "model.name": "phantom:small", "grpo.prompts": 4, "grpo.group_size": 4, "grpo.micro_batch": 4,
        "grpo.updates": 2, "grpo.max_steps": 4, "grpo.max_completion_length": 48, "grpo.save_every": 100,
        "launch.devices": processes, "sft.micro_batch": 8,
        "launch.strategy": "ddp" if processes > 1 else "single",
    }  # fmt: skip
    profile = load_profile("tiny", settings)
    questions = make_questions("curb65,nodule_count,cup_to_disc_ratio", "train", 8, seed=3)
    model, folder = load_policy(profile, trainable=True), Path(tempfile.mkdtemp())
    trainer = make_trainer(profile, model, profile_processor(profile), questions, folder)
    sampled, pictured = trainer._sampled_batch, []

    def recorded():
        batch = sampled()
        pictured.append(gather_object([any(batch.get("num_images", []))]))
        return batch

    trainer._sampled_batch = recorded
    trainer.train()
    if trainer.is_world_process_zero():
        target.write_text(json.dumps({"pictured": pictured, "log": trainer.state.log_history}))
    trainer.accelerator.end_training()  # a process that leaves while the other still talks to it is aborted


if __name__ == "__main__":
    main()
