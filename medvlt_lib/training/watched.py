"""What is watched while GRPO trains: figures of a step that TRL does not log, and one group of it, kept to be read.

`well_formed`, `correct`, `no_answer`, `truncated`: shares of the completions, by the grader of evaluation.
`entropy`: TRL's, nats a token, but of live groups alone where the others are left out of the update (grouped.py), and
in a step without a live group of the few rows computed in their place. `kl` is of all groups: with it none is left out.
`tokens_per_second`: completion tokens while sampling, for one process.
`rewards/NAME/group_std`: a reward's standard deviation within a group, mean over the groups.
`ratio/mean`, `ratio/min`, `ratio/max`: new to old probability, where a batch serves several updates.
`sampler/effective_share`, `sampler/cut`, `sampler/ratio ...`: where another engine samples, how far its probabilities
lie from the learner's (`sampler_figures`).
`picture_effect`: how much likelier its own picture makes a completion than another picture does, in nats.
Watching changes nothing: it draws no random number and leaves no gradient.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from medvlt_lib.core.records import Verdict
from medvlt_lib.grading.grade import grade_response
from medvlt_lib.grading.rewards import text_of
from medvlt_lib.training.batches import rows_at
from medvlt_lib.training.grouped import GroupedTrainer
from medvlt_lib.training.rollouts import write_sample
from medvlt_lib.training.stopping import updates_in_a_step

EVERY = 10  # steps from one look at the pictures' effect to the next
BINS = (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)  # where the histogram of ratios is cut
ROWS = 4  # completions of different questions that it takes


@dataclass(frozen=True)
class Watch:
    """How completions are graded for the log (medvlt_lib.grading), and the folder that one group a step goes to."""

    grader: str
    style: str
    samples: Path


class WatchedTrainer(GRPOTrainer):
    """`GRPOTrainer` that logs this module's figures beside its own."""

    def __init__(self, *args, watch: Watch, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.watch = watch
        self._logps: torch.Tensor | None = None  # of the update under way, (rows, tokens)

    def _generate(self, prompts: list) -> Any:
        started = time.perf_counter()
        generated = super()._generate(prompts)
        tokens = sum(map(len, generated[1]))
        self._log_metric("tokens_per_second", tokens / (time.perf_counter() - started))
        return generated

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if not self.model.training:
            return rewards
        verdicts = [
            self._graded(row, text_of(completion), ids[-1] in self.eos_token_ids)
            for row, completion, ids in zip(inputs, completions, completion_ids_list, strict=True)
        ]
        for name in ("well_formed", "correct", "truncated"):
            self._log_metric(name, fmean(getattr(verdict, name) for verdict in verdicts))
        self._log_metric("no_answer", fmean(verdict.letter is None for verdict in verdicts))
        groups = rewards.view(-1, self.num_generations, len(self.reward_funcs))
        for name, spread in zip(self.reward_func_names, groups.std(1).mean(0).tolist(), strict=True):
            self._metrics["train"][f"rewards/{name}/group_std"].append(spread)
        if self.accelerator.is_main_process and self._is_first_sampling():
            total = (rewards * self.reward_weights.to(rewards.device)).sum(1).tolist()
            self._keep_first_group(inputs[0], prompts[0], completions, total, verdicts)
        return rewards

    def _graded(self, row: dict[str, Any], text: str, ended: bool) -> Verdict:
        reason = "stop" if ended else "length"
        options = json.loads(row["options"])
        return grade_response(text, options, row["answer_label"], self.watch.grader, self.watch.style, reason)

    def _is_first_sampling(self) -> bool:
        """Whether this is no replacement of groups without signal (GroupedTrainer.round)."""
        return getattr(self, "round", 0) == 0

    def _keep_first_group(self, row, prompt, completions, rewards: list[float], verdicts: list[Verdict]) -> None:
        group = min(self.num_generations, len(completions))
        sample = {
            "question": row["question_id"],
            "answer": row["answer_label"],
            "completions": [text_of(completion) for completion in completions[:group]],
            "rewards": rewards[:group],
            "correct": [verdict.correct for verdict in verdicts[:group]],
        }
        write_sample(self.watch.samples, self.state.global_step, prompt, sample)

    # --- ratios ---

    def _get_per_token_logps_and_entropies(self, *args, compute_entropy: bool = False, **kwargs):
        result = super()._get_per_token_logps_and_entropies(*args, compute_entropy=compute_entropy, **kwargs)
        if compute_entropy:  # only the loss asks for them
            self._logps = result[0].detach()
        return result

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        if self.model.training and "old_per_token_logps" in inputs:
            self._log_ratios(inputs)
        self._logps = None
        return loss

    def _log_ratios(self, inputs: dict[str, Any]) -> None:
        part = (self._logps != 0).any(1, keepdim=True)  # rows that take no part in the update have zeros
        mask = inputs["completion_mask"].bool() & part
        logs = self._logps - inputs["old_per_token_logps"]
        if self.importance_sampling_level == "sequence":
            logs = ((logs * mask).sum(1) / mask.sum(1).clamp(min=1))[mask.any(1)]
        else:
            logs = logs[mask]
        ratios = logs.exp()
        lowest, highest = (ratios.min(), ratios.max()) if len(ratios) else (logs.new_tensor(v) for v in (9e9, -9e9))
        own = torch.stack([ratios.sum(), ratios.new_tensor(len(ratios)), lowest, highest])
        sums, counts, lowest, highest = self.accelerator.gather(own).view(-1, 4).unbind(1)
        if counts.sum():
            figures = {"mean": sums.sum() / counts.sum(), "min": lowest.min(), "max": highest.max()}
            for name, value in figures.items():
                self._metrics["train"][f"ratio/{name}"].append(value.item())

    # --- pictures ---

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.model.training and "importance_sampling_ratio" in output and self._is_first_sampling():
            logs = output["old_per_token_logps"] - output["sampling_per_token_logps"]
            logs = logs[output["completion_mask"].bool()]
            counts = self.accelerator.gather(sampler_counts(logs, self.vllm_importance_sampling_clip_max)[None]).sum(0)
            for name, value in sampler_figures(counts).items():
                self._metrics["train"][f"sampler/{name}"].append(value)
        due = self.state.global_step % EVERY < updates_in_a_step(self.args) and self._is_first_sampling()
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)  # one process alone can call the model
        if self.model.training and due and whole:
            own = torch.tensor(self._picture_effect(output), device=self.accelerator.device)
            effect, rows = self.accelerator.gather(own).view(-1, 2).sum(0).tolist()
            if rows:
                self._metrics["train"]["picture_effect"].append(effect / rows)
        return output

    def _picture_effect(self, output: dict[str, Any]) -> tuple[float, float]:
        """(sum over a few completions of how much their own pictures raise their log-probabilities, number of these
        completions); (0, 0) where no question has a picture. The mean estimates a divergence: it is 0 or more."""
        pictures = output.get("num_images") or []
        rows = [row for row in range(0, len(pictures), self.num_generations) if pictures[row]][:ROWS]
        if not rows:
            return 0.0, 0.0
        own = rows_at(split_pixel_values_by_grid(output), rows)
        others = other_pictures(own["pixel_values"], own["image_grid_thw"])
        self.model.eval()  # no dropout, which would draw random numbers
        with torch.no_grad(), self.accelerator.autocast():
            right, wrong = (self._plain_logps(batch) for batch in (own, {**own, "pixel_values": others}))
        self.model.train()
        return ((right - wrong) * own["completion_mask"]).sum().item(), float(len(rows))

    def _plain_logps(self, batch: dict[str, Any]) -> torch.Tensor:
        """TRL's own log-probabilities of the completion tokens, (rows, tokens); pictures by row."""
        joined = unsplit_pixel_values_by_grid(batch)
        return GRPOTrainer._get_per_token_logps_and_entropies(
            self,
            self.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            batch_size=self.args.per_device_train_batch_size,
            **{k: joined.get(k) for k in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
        )[0]


class WatchedGroupedTrainer(WatchedTrainer, GroupedTrainer):
    """`GroupedTrainer` that logs this module's figures beside its own."""


def sampler_counts(logs: torch.Tensor, cap: float) -> torch.Tensor:
    """What `sampler_figures` needs of the logarithms (tokens,) of learner over sampler, ready to be summed over
    processes: tokens, sum of ratios, sum of their squares, ratios over `cap`, and a count for each range of BINS."""
    ratios = logs.double().exp()
    ranges = torch.bucketize(ratios, ratios.new_tensor(BINS)).bincount(minlength=len(BINS) + 1)
    head = torch.stack([ratios.new_tensor(len(ratios)), ratios.sum(), ratios.square().sum(), (ratios > cap).sum()])
    return torch.cat([head, ranges.double()])


def sampler_figures(counts: torch.Tensor) -> dict[str, float]:
    """`effective_share`: the effective sample size of the tokens' ratios, (sum w)^2 / sum w^2 (Kong 1992), as a share
    of the tokens, 1 where sampler and learner agree; `cut`: the share of ratios over the cap; and the histogram."""
    tokens, total, squares, cut, *ranges = counts.tolist()
    edges = ["0", *(f"{edge:g}" for edge in BINS), "more"]
    names = [f"ratio {low} to {high}" for low, high in pairwise(edges)]
    shares = {name: count / tokens for name, count in zip(names, ranges, strict=True)}
    return {"effective_share": total**2 / (tokens * squares), "cut": cut / tokens, **shares}


def other_pictures(patches: list[torch.Tensor], grids: list[torch.Tensor]) -> list[torch.Tensor]:
    """For each row the patches of another row's pictures, the next that have the same sizes and other content; where
    there are none, blank ones (0, the mean of all pictures). `patches`: (n, width) a row; `grids`: (pictures, 3)."""
    others = []
    for row, own in enumerate(patches):
        following = [(row + step) % len(patches) for step in range(1, len(patches))]
        fitting = (patches[i] for i in following if grids[i].equal(grids[row]) and not patches[i].equal(own))
        others.append(next(fitting, torch.zeros_like(own)))
    return others
