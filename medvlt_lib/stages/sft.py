"""Stage 03: supervised fine-tuning on the teacher's chains of thought, through TRL's SFTTrainer.

The loss falls on the assistant's tokens only, as published (MedVLThinker, train/sft). Sequences are never truncated:
one that is longer than `sft.max_length` is refused with its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import iterate_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.models.loading import load_policy, profile_processor, weights_id
from medvlt_lib.stages.arms import arm_inputs
from medvlt_lib.training.checkpoints import finish_training
from medvlt_lib.training.sft_trainer import make_trainer
from medvlt_lib.training.stored_questions import StoredQuestions
from medvlt_lib.training.trackers import refuse_missing_tracker
from medvlt_lib.training.trainer import train_resumably

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run(
    run_: Run,
    arm: str = "sft_text",
    data: Path | None = None,
    init: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict:
    """Trains one arm into 03_sft/<arm>; returns steps and the first and last loss. `callbacks` go to the trainer."""
    profile = run_.profile.for_arm(arm)
    refuse_missing_tracker(profile)
    inputs = arm_inputs(run_, "03", arm, profile.sft.data, data, init)
    settings = {**run_.settings("model", "engine", "sft", "launch", arm=arm), "model.weights": weights_id(profile)}
    with run_.stage("03", settings, inputs, arm, scratch=("training",)) as stage:
        if not stage.finished:
            stage.metrics = train(profile, inputs, stage.folder, callbacks)
        return stage.metrics


def train(
    profile: Profile, inputs: dict[str, Path], folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, float]:
    """Train a profile's model on inputs["data"], from inputs["init"] where given; checkpoint and log go to `folder`."""
    # Step 1: the questions that have a chain of thought.
    reasoned = (q for q in iterate_questions(inputs["data"]) if q.reasoning)
    questions = StoredQuestions(reasoned, folder / "training" / "questions.arrow")
    if not len(questions):
        raise UserError(
            f"{inputs['data']} has no question with a chain of thought (reasoning); name another file with --data."
        )
    if len(questions) < profile.sft.batch:
        raise UserError(
            f"{inputs['data']} holds {len(questions)} questions with a chain of thought, one step needs "
            f"sft.batch = {profile.sft.batch}; lower it or add questions."
        )
    # Step 2: the model and TRL's trainer.
    processor = profile_processor(profile)
    model = load_policy(profile, inputs.get("init"), True, profile.sft.seed)
    trainer = make_trainer(profile, model, processor, questions, folder, callbacks)
    # Step 3: train, from the last checkpoint where there is one, and keep what it ends with.
    train_resumably(trainer, "loss")
    return finish_training(trainer, folder, profile.model.name)
