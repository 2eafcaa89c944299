"""Stage 03: supervised fine-tuning on the teacher's chains of thought, through TRL's SFTTrainer.

The loss falls on the assistant's tokens only, as published (MedVLThinker, train/sft); with `sft.target` answer_only on
the answer without its thinking, MedVLM-R1's baseline. Sequences are never truncated: one that is longer than
`sft.max_length` is refused with its id.
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
from medvlt_lib.rollout.vllm_engine import close_running
from medvlt_lib.stages.arms import arm_inputs
from medvlt_lib.training.launch import refuse_mixed
from medvlt_lib.training.sft_trainer import make_trainer
from medvlt_lib.training.stored_questions import StoredQuestions
from medvlt_lib.training.trackers import refuse_missing_tracker
from medvlt_lib.training.trainer import train_resumably
from medvlt_lib.training.validation import Validation, finish_validated

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run(
    run_: Run,
    arm: str = "sft_text",
    data: Path | None = None,
    init: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict:
    """Trains one arm into 03_sft/<arm>; returns steps, the first and last loss, and, where sft.validate_every is set,
    which step's weights are in checkpoint/ (see medvlt_lib.training.validation). `callbacks` go to the trainer."""
    profile = run_.profile.for_arm(arm)
    refuse_missing_tracker(profile)
    inputs = arm_inputs(run_, "03", arm, profile.sft.data, data, init)
    settings = {**run_.settings("model", "engine", "sft", "launch", arm=arm), "model.weights": weights_id(profile)}
    if profile.sft.validate_every is not None:
        inputs["validation"] = run_.require("01") / "validation.parquet"
        settings |= {"eval.grader": profile.eval.grader, "eval.max_new_tokens": profile.eval.max_new_tokens}
    with run_.stage("03", settings, inputs, arm, scratch=("training",)) as stage:
        if not stage.finished:
            stage.metrics = train(profile, inputs, stage.folder, callbacks)
        return stage.metrics


def train(
    profile: Profile, inputs: dict[str, Path], folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, float]:
    """Train a profile's model on inputs["data"], from inputs["init"] where given; checkpoint and log go to `folder`.
    Validated on inputs["validation"] where given; else `checkpoint` is the last step."""
    validation = Validation(profile, "sft", inputs["validation"], folder) if "validation" in inputs else None
    # Step 1: the questions that have a chain of thought; where the answer alone is learned, all.
    alone = profile.sft.target == "answer_only"
    usable = (q for q in iterate_questions(inputs["data"]) if q.reasoning or alone)
    questions = StoredQuestions(usable, folder / "training" / "questions.arrow")
    if not len(questions):
        raise UserError(
            f"{inputs['data']} has no question with a chain of thought (reasoning); name another file with --data, "
            "or set sft.target answer_only to learn the answers alone."
        )
    if len(questions) < profile.sft.batch:
        raise UserError(
            f"{inputs['data']} holds {len(questions)} questions to learn from, one step needs "
            f"sft.batch = {profile.sft.batch}; lower it or add questions."
        )
    refuse_mixed(profile, questions, inputs["data"])
    # Step 2: the model and TRL's trainer.
    processor = profile_processor(profile)
    close_running()
    model = load_policy(profile, inputs.get("init"), True, profile.sft.seed)
    trainer = make_trainer(profile, model, processor, questions, folder, callbacks)
    if validation is not None:
        validation.watch(trainer)
    # Step 3: train, from the last checkpoint where there is one, and keep what it ends with, or its best step.
    train_resumably(trainer, "loss")
    return finish_validated(trainer, folder, profile.model.name, validation)
