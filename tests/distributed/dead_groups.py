"""Three GRPO steps whose groups without signal lie where a test wants them; the weights go to the file argv[1].

Started by test_two_processes.py, with or without `accelerate launch`; argv[2] is the number of processes. Rewards go
by the place in the batch of all processes: step 0, the second half has no signal (with two processes, all of the second
process's groups); step 1, nothing has; step 2, everything has.
"""

import sys
from pathlib import Path

import torch
from accelerate import PartialState

from tests.distributed.small_trainer import small_trainer


def reward(completions, trainer_state, **_):
    first = PartialState().process_index * len(completions)
    every = len(completions) * PartialState().num_processes
    live = {0: every // 2, 1: 0, 2: every}[trainer_state.global_step]
    lengths = [len(completion[0]["content"]) for completion in completions]
    return [(n % 7) / 7 if first + place < live else 0.7 for place, n in enumerate(lengths)]


def main() -> None:
    target, processes = Path(sys.argv[1]), int(sys.argv[2])
    settings = {"grpo.micro_batch": 8, "grpo.max_steps": 3, "grpo.max_completion_length": 32}
    trainer = small_trainer(processes, "curb65,nodule_count", **settings)
    trainer.reward_funcs = [reward]
    gradients = []
    sampled = trainer._sampled_batch

    def whole_groups():
        batch = sampled()
        prompts = batch["prompt_ids"].view(-1, 4, batch["prompt_ids"].shape[1])
        assert (prompts == prompts[:, :1]).all(), "a process holds parts of groups"
        return batch

    trainer._sampled_batch = whole_groups
    clip = trainer.accelerator.clip_grad_norm_

    def recorded(parameters, *args, **kwargs):
        parameters = list(parameters)
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).clone())
        return clip(parameters, *args, **kwargs)

    trainer.accelerator.clip_grad_norm_ = recorded
    trainer.train()
    if trainer.is_world_process_zero():
        weights = {name: p.detach() for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters()}
        entropy = [row.get("entropy") for row in trainer.state.log_history[:3]]
        torch.save({"weights": weights, "gradients": gradients, "entropy": entropy, "shared": trainer.shared}, target)
    trainer.accelerator.end_training()  # a process that leaves while the other still talks to it is aborted


if __name__ == "__main__":
    main()
