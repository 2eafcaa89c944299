"""Two GRPO steps of text and picture questions; their log goes to the file argv[1]. argv[2]: the number of processes.

Started by test_two_processes.py, with or without `accelerate launch`. One of two processes has no pictures at first.
"""

import json
import sys
from pathlib import Path

from accelerate.utils import gather_object

from tests.distributed.small_trainer import small_trainer


def main() -> None:
    target, processes = Path(sys.argv[1]), int(sys.argv[2])
    settings = {"grpo.micro_batch": 4, "grpo.updates": 2, "grpo.max_steps": 4, "grpo.max_completion_length": 48}
    trainer = small_trainer(processes, "curb65,nodule_count,cup_to_disc_ratio", **settings)
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
