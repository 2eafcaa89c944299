"""Stage 04: GRPO with a verifiable reward, through TRL's GRPOTrainer (medvlt_lib/training/grpo_trainer.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import iterate_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.models.loading import load_policy, profile_processor, weights_id
from medvlt_lib.rollout.vllm_engine import close_running
from medvlt_lib.stages.arms import arm_inputs
from medvlt_lib.training.grpo_trainer import make_trainer
from medvlt_lib.training.launch import refuse_mixed
from medvlt_lib.training.rewarding import scorable
from medvlt_lib.training.rollouts import gather_samples
from medvlt_lib.training.stored_questions import StoredQuestions
from medvlt_lib.training.trackers import refuse_missing_tracker
from medvlt_lib.training.trainer import train_resumably
from medvlt_lib.training.validation import Validation, finish_validated
from medvlt_lib.training.vllm_sampler import stop_sampling

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run(
    run_: Run,
    arm: str = "rl_text",
    data: Path | None = None,
    init: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict:
    """Trains one arm into 04_grpo/<arm>; returns steps, first and last mean reward, and which step's weights are in
    checkpoint/ (see medvlt_lib.training.validation). `callbacks` go to the trainer."""
    profile = run_.profile.for_arm(arm)
    _refuse_a_server(profile)
    refuse_missing_tracker(profile)
    inputs = arm_inputs(run_, "04", arm, profile.grpo.data, data, init)
    settings = {**run_.settings("model", "engine", "grpo", "launch", arm=arm), "model.weights": weights_id(profile)}
    if profile.grpo.order != "shuffled":
        inputs["pass_counts"] = run_.require("02") / "pass_counts.parquet"
    if profile.grpo.validate_every is not None:
        inputs["validation"] = run_.require("01") / "validation.parquet"
        settings["eval.grader"] = profile.eval.grader
    with run_.stage("04", settings, inputs, arm, scratch=("training", "samples")) as stage:
        if not stage.finished:
            stage.metrics = train(profile, inputs, stage.folder, callbacks)
        return stage.metrics


def train(
    profile: Profile, inputs: dict[str, Path], folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, float]:
    """Reinforce a profile's model on inputs["data"], from inputs["init"] where given; checkpoint, log and samples go to
    `folder`. Validated on inputs["validation"] where given; else `checkpoint` is the last step."""
    g = profile.grpo
    validation = Validation(profile, "grpo", inputs["validation"], folder) if "validation" in inputs else None
    # Step 1: the questions.
    questions = StoredQuestions(
        scorable(iterate_questions(inputs["data"]), g.reward, inputs["data"]), folder / "training" / "questions.arrow"
    )
    if len(questions) < g.prompts:
        raise UserError(
            f"{inputs['data']} holds {len(questions)} questions, one step needs grpo.prompts = {g.prompts}; "
            "lower it or add questions."
        )
    refuse_mixed(profile, questions, inputs["data"])
    # Step 2: the model and TRL's trainer, with our rollouts.
    processor = profile_processor(profile)
    close_running()
    model = load_policy(profile, inputs.get("init"), True, g.seed)
    pass_counts = pass_counts_of(questions, inputs["pass_counts"], g.order) if "pass_counts" in inputs else ()
    trainer = make_trainer(profile, model, processor, questions, folder, callbacks, pass_counts)
    if validation is not None:
        validation.watch(trainer)
    # Step 3: train, from the last checkpoint where there is one, and keep what it ends with, or its best step.
    train_resumably(trainer, "reward")
    if trainer.is_world_process_zero():
        gather_samples(folder)
    if g.sampler == "vllm":
        stop_sampling(trainer)
    means = [float(row["reward"]) for row in trainer.state.log_history if "reward" in row]
    rewards = {"first_reward": means[0], "last_reward": means[-1]}
    return {**finish_validated(trainer, folder, profile.model.name, validation), **rewards}


def _refuse_a_server(profile: Profile) -> None:
    """Filtering and evaluation may ask a server; the weights that are trained must be here."""
    if profile.engine.kind == "openai":
        raise UserError(
            f"GRPO cannot train {profile.model.name}, whose weights are at {profile.engine.url}; "
            "give this command --set engine.kind=transformers and the model as model.name."
        )


def pass_counts_of(questions: StoredQuestions, path: Path, order: str) -> list[tuple[int, int]]:
    """(right answers, answers) of every question in filtering's pass_counts.parquet; (0, 0) where it was not asked.

    Raises UserError where the order is easy-first and a question has none.
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=["id", "pass_count", "samples"]).to_pylist()
    counted = {row["id"]: (row["pass_count"], row["samples"]) for row in rows}
    missing = [number for number in questions.ids() if number not in counted]
    if missing and order == "easy-first":
        raise UserError(
            f"{path} has no pass count of question {missing[0]} ({len(missing)} are missing), which grpo.order "
            "easy-first needs; filter these questions, or set grpo.order shuffled or online."
        )
    return [counted.get(number, (0, 0)) for number in questions.ids()]
