"""TRL's GRPO trainer with whole groups: a prompt is read once for all its completions, and groups that teach nothing
are left out.

Both within a micro-batch: where it holds fewer rows than a group, every micro-batch reads its prompt again, and of a
group that teaches nothing it still computes one row.

What is changed of TRL 1.16, each in few methods: questions come from a queue, when they are sampled, and groups
without signal may be replaced; micro-batches are made of whole groups (TRL scatters rows); the log-probabilities of a
group come from medvlt_lib.training.shared_prompt; groups whose rewards are all equal take no part in the update where
their loss is exactly 0. The loss, the advantages and everything else are TRL's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from medvlt_lib.training.batches import in_live_groups, live_rows, permuted_groups, with_groups_replaced
from medvlt_lib.training.picture_features import PictureFeatures
from medvlt_lib.training.question_queue import QuestionQueue
from medvlt_lib.training.rewarding import counted_right
from medvlt_lib.training.shared_prompt import Batch, completion_logprobs, switch_on

QUEUE = "question_queue"  # where the queue's state lies in a checkpoint's trainer_state.json
CLOSE = 1e-3  # largest difference of a log-probability from TRL's own path, in float32
# The same in bfloat16: its mean, as a share of the log-probabilities' mean size, and its largest value. Measured with
# the tiny models on a CPU: at most 1.5 % and 0.06; with a quarter of the prompt or the picture missing, 37 % and 1.3 or
# more. TRL's own path at two batch sizes: up to 0.66 (Qwen2.5-0.5B; https://github.com/huggingface/trl/issues/6789).
CLOSE_IN_BF16 = (0.2, 2.0)


class GroupedTrainer(GRPOTrainer):
    """`GRPOTrainer` whose update reads a prompt once. Generation batches, micro-batches and ranks hold whole groups, or
    one group is spread over micro-batches of its own; this is asserted on every batch."""

    def __init__(self, *args, queue: QuestionQueue, replacements: int = 0, **kwargs) -> None:
        """`queue` says which questions come next. `replacements`: how many times in a step groups without signal are
        replaced by those of new questions (dynamic sampling: DAPO, arXiv 2503.14476, section 3.2)."""
        super().__init__(*args, **kwargs)
        models = [model for model in (self.model, self.ref_model) if model is not None]
        for model in models:
            switch_on(model)
        self.picture_features = [PictureFeatures(model) for model in models]
        self.shared = None  # whether the shared path is used: decided at its first use, by comparison with TRL's own
        self._rows: list[int] | None = None  # the rows of a micro-batch that take part in the update
        self._entropies: torch.Tensor | None = None  # of a micro-batch, (rows, tokens)
        self._entropy: torch.Tensor | float = 0.0  # of an update so far, over all processes: sums and tokens
        self.queue, self.replacements = queue, replacements
        self.round = 0  # which sampling of this step it is: 0, then one for each replacement
        self._asked: list[int] = []  # the questions of a sampling, over all processes

    # --- which questions, and whole groups ---

    def get_train_dataloader(self) -> DataLoader:
        """Empty batches, as many as one time through the questions has: what is asked is decided when it is sampled."""
        generations = len(self.train_dataset) // (self.args.generation_batch_size // self.num_generations)
        batches = max(generations, 1) * self.args.steps_per_generation * self.num_iterations
        return DataLoader(range(batches), batch_size=1, collate_fn=list)

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        """As TRL's, but the questions come from the queue, and whole groups are permuted, not rows. Every process cuts
        its own part: with several updates from a sampling, two processes put other groups together than one does."""
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            if self._buffered_inputs is None and QUEUE in self.state.stateful_callbacks:  # of a checkpoint
                self.queue.restore(self.state.stateful_callbacks[QUEUE])
            batch = self._sampled_batch()
            self.state.stateful_callbacks[QUEUE] = self.queue.state()
            shuffle = torch.Generator().manual_seed(self.args.seed + self.state.global_step)
            parts = split_tensor_dict(
                permuted_groups(batch, self.num_generations, shuffle), self.args.steps_per_generation
            )
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _sampled_batch(self) -> dict[str, Any]:
        """This process's part of a step's generation batch, with pictures by row."""
        group, processes = self.num_generations, self.accelerator.num_processes
        self.round = 0
        batch = self._sample(self.args.generation_batch_size // group)
        asked = list(self._asked)
        alive = self._alive
        for sampling_round in range(1, self.replacements + 1):
            self.round = sampling_round
            missing = int((~alive).view(processes, -1).sum(1).max())
            if not missing or len(asked) + missing * processes > self.queue.count:
                break
            own = self._own(alive)
            metrics = {key: list(values) for key, values in self._metrics["train"].items()}
            fresh = self._sample(missing * processes, asked)
            asked += self._asked
            self._metrics["train"].clear()  # a step's figures are those of its first sampling
            self._metrics["train"].update(metrics)
            pairs = list(zip(places(~own), places(self._own(self._alive)), strict=False))
            batch = with_groups_replaced(batch, fresh, pairs, group, self.processing_class.tokenizer.pad_token_id)
            own = own.index_fill(0, torch.tensor([old for old, _ in pairs], dtype=torch.long, device=own.device), True)
            alive = self.accelerator.gather(own)
        tokens = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        self._metrics["train"]["rollouts"].append(self.queue.taken * group)
        self._metrics["train"]["live_groups"].append(alive.float().mean().item())
        return {**batch, "num_items_in_batch": tokens}

    def _sample(self, questions: int, asked: Sequence[int] = ()) -> dict[str, Any]:
        """Sampled and scored groups of the next `questions` questions over all processes, none of them in `asked`: this
        process's part."""
        self._asked = self.queue.take(questions, asked)
        share = questions // self.accelerator.num_processes
        own = self._asked[self.accelerator.process_index * share :][:share]
        columns = self.train_dataset[own]
        rows = [{key: values[i] for key, values in columns.items()} for i in range(share)]
        batch = self._generate_and_score_completions([dict(row) for row in rows for _ in range(self.num_generations)])
        return split_pixel_values_by_grid(batch)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """As TRL's; after the last update from a sampling, what was kept of its pictures goes, and no more is kept."""
        loss = super().training_step(*args, **kwargs)
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0:
            for features in self.picture_features:
                features.clear()
        return loss

    def _own(self, groups: torch.Tensor) -> torch.Tensor:
        """This process's part of a tensor with one entry a group over all processes."""
        return groups.view(self.accelerator.num_processes, -1)[self.accelerator.process_index]

    # --- groups that teach nothing ---

    def _calculate_rewards(self, *args, **kwargs) -> torch.Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)  # (all rows of all processes, reward functions)
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1).view(-1, self.num_generations)
        self._alive = (total != total[:, :1]).any(1)  # (groups of all processes,)
        if self.model.training and self._asked:
            right = counted_right(rewards, self.reward_func_names).view(-1, self.num_generations).sum(1)
            self.queue.learn(self._asked, right.tolist(), self.num_generations)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's; the advantages of a group whose rewards are all equal are exactly 0 (their mean may be rounded)."""
        if self.model.training:
            for features in self.picture_features:
                features.keep()
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            alike = ~self._own(self._alive).repeat_interleave(self.num_generations)
            output["advantages"] = output["advantages"].masked_fill(alike, 0.0)
        return output

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        silent = self.beta == 0 and not self._entropy_bonus_enabled and self.top_entropy_quantile == 1.0
        live = inputs["advantages"] != 0
        self._rows = live_rows(live, inputs.get("num_images"), self.num_generations) if silent else None
        if not self._metrics["train"].get("entropy"):  # the first micro-batch of an update
            self._entropy = 0.0
        loss = super()._compute_loss(model, inputs)
        if silent and self.model.training:
            part = in_live_groups(live, self.num_generations) if self.shared else torch.ones_like(live)
            self._log_entropy(inputs["completion_mask"], part)
        self._rows = None
        return loss

    def _log_entropy(self, mask: torch.Tensor, live: torch.Tensor) -> None:
        """The mean over the tokens (`mask`, (rows, T)) of `live` rows, of an update's micro-batches so far and of all
        processes; where no row is live, over those that were computed in their place. It takes the place of TRL's
        figure, for which a token that was left out has an entropy of 0."""
        counted = mask * live[:, None]
        sums = [(self._entropies * own).sum() for own in (counted, mask)]
        own = torch.stack([*sums, counted.sum(), mask[self._rows].sum()])
        self._entropy = self._entropy + self.accelerator.reduce(own, reduction="sum")
        total, computed, tokens, others = self._entropy.tolist()
        self._metrics["train"]["entropy"] = [total / tokens if tokens else computed / max(others, 1)]

    # --- log-probabilities ---

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        """As TRL's: log-probabilities and entropies (rows, logits_to_keep), and None; 0 where a row takes no part."""
        stock = super()._get_per_token_logps_and_entropies
        size = batch_size or len(input_ids)
        if self.shared is None:
            self.shared = self._agrees(stock, model, input_ids, attention_mask, logits_to_keep, size, kwargs)
        if not self.shared:
            options = {"batch_size": batch_size, "compute_entropy": compute_entropy, **kwargs}
            computed = stock(model, input_ids, attention_mask, logits_to_keep, **options)
            self._entropies = computed[1].detach() if compute_entropy else None
            return computed
        rows = list(range(len(input_ids))) if self._rows is None else self._rows
        logps = input_ids.new_zeros(len(input_ids), logits_to_keep, dtype=torch.float32)
        entropies = torch.zeros_like(logps) if compute_entropy else None
        for start in range(0, len(input_ids), size):
            chosen = [row for row in rows if start <= row < start + size]
            if chosen:
                batch = group_rows(input_ids, attention_mask, logits_to_keep, chosen, self._group_of, kwargs)
                with self.accelerator.autocast():
                    own_logps, own_entropies = completion_logprobs(model, batch)
                place = torch.tensor(chosen, device=logps.device)
                logps = logps.index_copy(0, place, own_logps.float())
                if entropies is not None:
                    entropies = entropies.index_copy(0, place, own_entropies.float())
        self._entropies = entropies.detach() if compute_entropy else None
        return logps, entropies, None

    def _group_of(self, row: int) -> int:
        return row // self.num_generations

    def _agrees(self, stock, model, input_ids, attention_mask, logits_to_keep, size, kwargs) -> bool:
        """Compare one group, or as much of it as a micro-batch of `size` rows holds, with TRL's own path; says so when
        they differ, and TRL's is used from then on."""
        rows = list(range(min(self.num_generations, size)))
        batch = group_rows(input_ids, attention_mask, logits_to_keep, rows, self._group_of, kwargs)
        images = kwargs.get("num_images")
        some = {k: v for k, v in kwargs.items() if v is not None}
        if images is not None:
            pictures = sum(images[: len(rows)])
            pixels = int(kwargs["image_grid_thw"][:pictures].prod(-1).sum())
            some |= {"num_images": images[: len(rows)], "image_grid_thw": kwargs["image_grid_thw"][:pictures],
                     "pixel_values": kwargs["pixel_values"][:pixels]}  # fmt: skip
        some |= {k: v[: len(rows)] for k, v in some.items() if k in ("mm_token_type_ids", "token_type_ids")}
        training = model.training
        model.eval()  # without dropout, which would differ between the two and draw random numbers
        with torch.no_grad(), self.accelerator.autocast():
            ours = completion_logprobs(model, batch)[0]
            theirs = stock(model, input_ids[rows], attention_mask[rows], logits_to_keep, **some)[0]
            exact = computes_in_float32(model, input_ids.device)
        model.train(training)
        apart, size = (x[batch.completion_mask].abs() for x in (ours - theirs, theirs))
        mean, far, share = apart.mean().item(), apart.max().item(), (apart.sum() / size.sum()).item()
        close = far <= CLOSE if exact else share <= CLOSE_IN_BF16[0] and far <= CLOSE_IN_BF16[1]
        if not close:
            print(
                f"reading a prompt once gives log-probabilities up to {far:.2g} from TRL's own, {mean:.2g} on average; "
                "TRL's path is used.",
                file=sys.stderr,
            )
        return close


def computes_in_float32(model: torch.nn.Module, device: torch.device) -> bool:
    """Whether a model computes in float32 here: no autocast is on, and no weight has fewer bits. What it returns does
    not tell, since TRL's head gives float32 whatever it computes in."""
    shorter = any(weight.is_floating_point() and weight.dtype.itemsize < 4 for weight in model.parameters())
    return not (shorter or torch.is_autocast_enabled(device.type))


def places(chosen: torch.Tensor) -> list[int]:
    """Where a tensor (n,) of truth values is True."""
    return chosen.nonzero().flatten().tolist()


def group_rows(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    completion_length: int,
    rows: list[int],
    group_of: Callable[[int], int],
    kwargs: dict[str, Any],
) -> Batch:
    """Some rows of TRL's batch with each prompt once. The prompts of a group must be equal; this is asserted."""
    place = torch.tensor(rows, device=input_ids.device)
    ids, mask = input_ids[place], attention_mask[place].bool()
    prompts, prompt_mask = ids[:, :-completion_length], mask[:, :-completion_length]
    groups = [group_of(row) for row in rows]
    first = [i for i in range(len(rows)) if i == 0 or groups[i] != groups[i - 1]]
    prompt_of = torch.tensor([sum(f <= i for f in first) - 1 for i in range(len(rows))], device=ids.device)
    assert (prompts == prompts[first][prompt_of]).all(), "a group holds completions of several prompts"
    pixels = grid = None
    if kwargs.get("pixel_values") is not None:
        images, sizes = kwargs["num_images"], kwargs["image_grid_thw"].prod(-1).tolist()
        ends = [sum(images[:i]) for i in range(len(images) + 1)]
        wanted = [n for i in first for n in range(ends[rows[i]], ends[rows[i] + 1])]
        begins = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
        if wanted:
            grid = kwargs["image_grid_thw"][wanted]
            pixels = torch.cat([kwargs["pixel_values"][begins[n] : begins[n + 1]] for n in wanted])
    own_ids, own_mask = ids[:, -completion_length:], mask[:, -completion_length:]
    return Batch(prompts[first], prompt_mask[first], own_ids, own_mask, prompt_of, pixels, grid)
