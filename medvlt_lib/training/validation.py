"""Which step of a training run is kept: greedy accuracy on validation questions while it trains, and one rule.

Before the first step, every `validate_every` steps and after the last one the model answers the same
`validation_questions` questions (settings of `sft` and of `grpo`), greedily, graded as evaluation grades. What the rule
decides is RULE. The highest of several noisy figures is too high by construction, so it is not taken for being the
highest: a healthy run keeps its last step, and a run that collapsed is rescued. Test questions are never read, and no
random number of training is used.

On disk, in `training/`: `validation/STEP.json`, which questions were answered rightly, and `best-STEP/`, the weights of
the step with the highest accuracy. A checkpoint of step c is complete when the files of all steps up to c are there, so
training that was killed goes on with the history that it had.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.records import Question, iterate_questions
from medvlt_lib.core.stats import Interval, macro, macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.training.checkpoints import finish_training
from medvlt_lib.training.rewarding import scorable

if TYPE_CHECKING:
    from transformers import Trainer

    from medvlt_lib.core.config import Profile
    from medvlt_lib.core.sections import Optimisation
    from medvlt_lib.rollout.engine import Engine

RULE = (
    "the last step, unless the step with the highest validation accuracy is better by a paired difference whose 95 % "
    "interval, widened for the number of steps that were compared, lies above 0; then that step"
)
ROUNDS = 10_000  # of the bootstrap: a widened interval ends far out in the tails


class Validation:
    """The validation of one arm: its questions, which of them each step answered rightly, and what follows from that.

    profile: whose grader, prompt style and lengths count. section: "sft" or "grpo", the training it watches. path: the
    validation file. folder: the arm's folder.
    Raises UserError when the file is missing, or has a question without an answer.
    """

    def __init__(self, profile: Profile, section: Literal["sft", "grpo"], path: Path, folder: Path) -> None:
        settings: Optimisation = getattr(profile, section)
        self.profile, self.folder = profile, folder / "training"
        self.every, self.seed = settings.validate_every, settings.seed
        self.length = profile.grpo.max_completion_length if section == "grpo" else profile.eval.max_new_tokens
        self.with_vllm = section == "grpo" and profile.grpo.sampler == "vllm"
        self.questions = validation_slice(path, settings.validation_questions, settings.seed)
        self.strata = [question.group for question in self.questions]
        self.clusters = [question.cluster for question in self.questions]
        self.right: dict[int, list[int]] = {}  # by step, one 0 or 1 a question

    def watch(self, trainer: Trainer) -> None:
        """From now on `trainer` validates while it trains: between the log of a step and its checkpoint."""
        from transformers import TrainerCallback

        from medvlt_lib.rollout.transformers_engine import TransformersEngine

        validation = self
        engine: Engine = TransformersEngine(trainer.model, trainer.processing_class, self.profile.engine.batch_tokens)
        if self.with_vllm:
            engine = trainer.vllm_generation

        class Watch(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                validation.right = validation.read(state.global_step)
                if state.global_step == 0:
                    trainer.evaluate()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step % validation.every == 0 or state.global_step >= state.max_steps:
                    control.should_evaluate = True

            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.is_world_process_zero:
                    validation.drop_former_bests()

        trainer.evaluate = lambda *_, **__: self.evaluate(trainer, engine)
        trainer.add_callback(Watch())

    def evaluate(self, trainer: Trainer, engine: Engine) -> dict[str, float]:
        """Validate the step that the trainer stands at: note and log its figures, keep its weights if it is the best.

        A new best step is made a checkpoint too, so that training which is killed finds both or neither.
        """
        step = trainer.state.global_step
        self.right[step] = self.answers(trainer, engine)
        if trainer.is_world_process_zero():
            write_json(self.folder / "validation" / f"{step:06d}.json", {"step": step, "right": self.right[step]})
        figures = self.figures(step)
        trainer.log(dict(figures))
        if self.best_step() == step and step < trainer.state.max_steps:
            self.keep_weights(trainer, step)
            trainer.control.should_save = True
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, figures)
        return figures

    def answers(self, trainer: Trainer, engine: Engine) -> list[int]:
        """One 0 or 1 a question; several processes share the questions among them."""
        from accelerate.utils import gather_object

        style, processes = self.profile.model.prompt_style, trainer.accelerator
        own = range(processes.process_index, len(self.questions), processes.num_processes)
        asked = [self.questions[place] for place in own]
        training = trainer.model.training
        trainer.model.eval()
        if self.with_vllm:
            engine.sync_weights()
        completions = list(engine.generate(prompts_of(asked, style), self.sampling()))
        trainer.model.train(training)
        grader = self.profile.eval.grader
        graded = [
            (place, int(grade(c.text, question, grader, style, c.finish_reason).correct))
            for place, question, c in zip(own, asked, completions, strict=True)
        ]
        return [right for _, right in sorted(gather_object(graded))]

    def sampling(self) -> Sampling:
        return Sampling(1, 0.0, self.length, self.seed)

    def keep_weights(self, trainer: Trainer, step: int) -> None:
        """Write best-STEP/ as a whole. Every process takes part, the first one writes."""
        temporary, target = self.folder / ".best", self.folder / f"best-{step}"
        first = trainer.is_world_process_zero()
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(temporary))
        trainer.accelerator.wait_for_everyone()
        if first:
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)

    def drop_former_bests(self) -> None:
        """Delete the weights of steps that are no longer the best, once a checkpoint knows the new best."""
        for path in self.folder.glob("best-*"):
            if path.name != f"best-{self.best_step()}":
                shutil.rmtree(path, ignore_errors=True)

    def read(self, last: int) -> dict[int, list[int]]:
        """What is on disk of the steps up to `last`; later ones are of steps that were lost and are trained again."""
        rows = map(read_json, sorted((self.folder / "validation").glob("[0-9]*.json")))
        return {row["step"]: row["right"] for row in rows if row["step"] <= last}

    def figures(self, step: int) -> dict[str, float]:
        """A step's macro accuracy and its 95 % interval, as the log names them."""
        low, high, _ = macro_interval(self.right[step], self.strata, self.clusters)
        accuracy = macro(self.right[step], self.strata)
        return {"validation_accuracy": accuracy, "validation_low": low, "validation_high": high}

    def best_step(self) -> int:
        """The validated step with the highest accuracy, the first of equals."""
        return max(sorted(self.right), key=lambda step: macro(self.right[step], self.strata))

    def against_last(self) -> tuple[float, Interval]:
        """The best step's accuracy minus the last's, paired, with its interval.

        The interval's level is 1 - 0.05 / n, where n earlier steps could have been the best (Bonferroni): when none is
        better than the last, one of them is found better in at most about 5 % of runs.
        """
        best, last = self.right[self.best_step()], self.right[max(self.right)]
        gain = [b - a for b, a in zip(best, last, strict=True)]
        level = 1 - 0.05 / max(1, len(self.right) - 1)
        interval = macro_interval(gain, self.strata, self.clusters, (-1, 1), ROUNDS, level)
        return macro(gain, self.strata), interval

    def chosen_step(self) -> int:
        """The step whose weights become `checkpoint`, by RULE."""
        _, interval = self.against_last()
        return self.best_step() if interval.low > 0 else max(self.right)

    def best_weights(self) -> Path | None:
        """Where the best step's weights lie; None when it is the last step, which the trainer itself holds."""
        best = self.best_step()
        return None if best == max(self.right) else self.folder / f"best-{best}"

    def metrics(self) -> dict[str, Any]:
        """What metrics.json says of it: the checkpoint's step, the rule, and every validated step's figures."""
        difference, (low, high, _) = self.against_last()
        return {
            "checkpoint_step": self.chosen_step(),
            "checkpoint_rule": RULE,
            "best_step": self.best_step(),
            "best_minus_last": {"difference": difference, "low": low, "high": high},
            "validation_questions": len(self.questions),
            "validation": [{"step": step, **self.figures(step)} for step in sorted(self.right)],
        }


def finish_validated(trainer: Trainer, folder: Path, model: str, validation: Validation | None) -> dict[str, Any]:
    """What training ends with, on disk (see `finish_training`) and as metrics; by RULE where it was validated."""
    if validation is None:
        return finish_training(trainer, folder, model)
    choice, best = validation.metrics(), validation.best_weights()
    take_best = choice["checkpoint_step"] < trainer.state.global_step
    return {**finish_training(trainer, folder, model, best, take_best), **choice}


def validation_slice(path: Path, size: int, seed: int) -> list[Question]:
    """`size` questions of a file, or all where it has fewer, as evenly from every group as the groups reach.

    A question's place in the draw depends on `seed` and its id alone. Raises UserError for a file that is missing or
    torn, or that holds a question without an answer.
    """
    seen: Counter[str] = Counter()
    drawn = sorted(
        (hashlib.sha256(f"{seed}:{question.id}".encode()).hexdigest(), place, question.group)
        for place, question in enumerate(scorable(iterate_questions(path), (), path))
    )
    rounds = []
    for digest, place, group in drawn:
        rounds.append((seen[group], digest, place))  # first every group's first question, then every group's second
        seen[group] += 1
    chosen = {place for *_, place in sorted(rounds)[:size]}
    return [question for place, question in enumerate(iterate_questions(path)) if place in chosen]
