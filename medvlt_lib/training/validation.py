"""Greedy accuracy on the same few validation questions while GRPO trains, and which step an arm's checkpoint is of.

The questions come from 01_data/validation.parquet, never from the test set; the greedy answers draw no random numbers,
so training is the same with and without them. What was right at every validated step is kept in the trainer's state,
and so in its checkpoints.

RULE: the checkpoint is that of the last step. Only where the best validated step is better than the last by a paired
difference whose interval, corrected for the number of validated steps, lies above 0, it is that of the best step. So a
run that collapsed is rescued, and a healthy one is not picked by chance: the largest of several accuracies on few
questions is too high by luck alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question, iterate_questions
from medvlt_lib.core.stats import macro, macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from trl import GRPOTrainer

VALIDATION = "validation"  # where the verdicts lie in a checkpoint's trainer_state.json
RULE = "the last step, unless the best validated step is better beyond chance"


def validation_slice(path: Path, count: int) -> list[Question]:
    """`count` questions of a validation file, as evenly from its groups as they go, the first of each.

    Raises UserError for a question without its answer, and where the file holds no question.
    """
    groups: dict[str, list[Question]] = {}
    for question in iterate_questions(path):
        own = groups.setdefault(question.group, [])
        if len(own) < count:
            own.append(question)
    chosen = [q for q in chain.from_iterable(zip_longest(*groups.values())) if q is not None][:count]
    if not chosen:
        raise UserError(f"{path} holds no question to validate on; set grpo.validate_every to null, or redo 01.")
    for question in chosen:
        if question.answer_label not in question.options:
            raise UserError(
                f"{path}: question {question.id} has no answer to validate with; give every row its answer_label."
            )
    return chosen


@dataclass(frozen=True)
class Choice:
    """Which step an arm's checkpoint is of, and what was known: accuracies in shares of 1."""

    step: int
    best_step: int
    last_step: int
    accuracy: dict[int, float]

    def figures(self) -> dict[str, Any]:
        """What metrics.json says of it."""
        return {
            "checkpoint_step": self.step,
            "checkpoint_rule": RULE,
            "best_step": self.best_step,
            "validation_accuracy": {str(step): round(value, 4) for step, value in self.accuracy.items()},
        }


def chosen_step(right: dict[int, list[int]], questions: Sequence[Question]) -> Choice:
    """RULE for the verdicts of every validated step, (questions,) each; the last of them is the last step."""
    strata, clusters = [q.group for q in questions], [q.cluster for q in questions]
    accuracy = {step: macro(verdicts, strata) for step, verdicts in right.items()}
    last = max(right)
    best = max(right, key=lambda step: (accuracy[step], step))
    gain = [b - a for b, a in zip(right[best], right[last], strict=True)]
    low, _, _ = macro_interval(gain, strata, clusters, bounds=(-1, 1), level=1 - 0.05 / max(len(right) - 1, 1))
    return Choice(best if low > 0 else last, best, last, accuracy)


class Validation(TrainerCallback):
    """Validates every `grpo.validate_every` updates and after the last, and keeps the weights of the best step.

    They lie in training/best-STEP. An older one goes once a checkpoint knows of the newer, so that whichever checkpoint
    training goes on from, the best step that it names is there.
    """

    def __init__(self, profile: Profile, questions: Sequence[Question], folder: Path) -> None:
        self.profile, self.questions, self.folder = profile, questions, folder
        self.trainer: GRPOTrainer | None = None  # set when there is one

    def right(self) -> dict[int, list[int]]:
        """1 or 0 for every question, by validated step."""
        assert self.trainer is not None
        return {int(step): verdicts for step, verdicts in self.trainer.state.stateful_callbacks[VALIDATION].items()}

    def weights(self, step: int) -> Path:
        return self.folder / f"best-{step}"

    def on_step_end(self, args, state, control, **_):
        every = self.profile.grpo.validate_every
        if state.global_step % every and state.global_step < state.max_steps:
            return
        assert self.trainer is not None
        verdicts = self.validate()
        state.stateful_callbacks.setdefault(VALIDATION, {})[str(state.global_step)] = verdicts
        strata, clusters = [q.group for q in self.questions], [q.cluster for q in self.questions]
        low, high, _ = macro_interval(verdicts, strata, clusters)
        figures = {"accuracy": macro(verdicts, strata), "low": low, "high": high}
        for name, value in figures.items():
            self.trainer._metrics["train"][f"validation_{name}"].append(value)  # into this step's row of the log
        choice = chosen_step(self.right(), self.questions)
        if choice.best_step == state.global_step:
            self.trainer.save_model(str(self.weights(state.global_step)))  # every process takes part

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero and VALIDATION in state.stateful_callbacks:
            best = self.weights(chosen_step(self.right(), self.questions).best_step)
            for path in self.folder.glob("best-*"):
                if path != best:
                    shutil.rmtree(path, ignore_errors=True)

    def validate(self) -> list[int]:
        """1 for every question that is answered rightly, else 0; the processes share the questions."""
        assert self.trainer is not None
        p, t = self.profile, self.trainer
        training, processes = t.model.training, t.accelerator.num_processes
        own = list(range(t.accelerator.process_index, len(self.questions), processes))
        asked = [self.questions[i] for i in own]
        model = t.accelerator.unwrap_model(t.model).eval()
        engine = TransformersEngine(model, t.processing_class, p.engine.batch_tokens)
        sampling = Sampling(1, 0.0, p.eval.max_new_tokens, 0)
        style = p.model.prompt_style
        done = engine.generate(prompts_of(asked, style), sampling) if asked else ()
        verdicts = [
            (i, int(grade(c.text, q, p.eval.grader, style, c.finish_reason).correct))
            for i, q, c in zip(own, asked, done, strict=True)
        ]
        t.model.train(training)
        every = gather_object(verdicts) if processes > 1 else verdicts
        return [verdict for _, verdict in sorted(every)]
