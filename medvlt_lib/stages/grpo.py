"""Stage 04: GRPO with a verifiable reward, through TRL's GRPOTrainer.

What TRL's trainer sees: conversational prompts, an `images` column that is empty for text questions (so that one batch
may mix both), and a rollout function that samples each group once from its prompt with our engine. Advantages, clipping
and the KL term are TRL's; their settings are the papers', translated in the profiles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_json, read_jsonl, write_jsonl
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.core.records import Question, iterate_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.models.adapters import lora_to_float32
from medvlt_lib.models.loading import load_policy, profile_processor, weights_id
from medvlt_lib.rollout.engine import Engine, Prompt, Sampling
from medvlt_lib.stages.arms import arm_inputs
from medvlt_lib.training.checkpoints import finish_training
from medvlt_lib.training.monitor import alarm_bell
from medvlt_lib.training.rewarding import reward_columns, reward_functions, scorable
from medvlt_lib.training.stored_questions import StoredQuestions
from medvlt_lib.training.trainer import shared_arguments, train_resumably

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer


def run(
    run_: Run,
    arm: str = "rl_text",
    data: Path | None = None,
    init: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict:
    """Trains one arm into 04_grpo/<arm>; returns steps, first and last mean reward. `callbacks` go to the trainer."""
    profile = run_.profile.for_arm(arm)
    _refuse_other_engines(profile)
    inputs = arm_inputs(run_, "04", arm, profile.grpo.data, data, init)
    settings = {**run_.settings("model", "engine", "grpo", "launch", arm=arm), "model.weights": weights_id(profile)}
    with run_.stage("04", settings, inputs, arm, scratch=("training", "samples")) as stage:
        if not stage.finished:
            stage.metrics = train(profile, inputs, stage.folder, callbacks)
        return stage.metrics


def _refuse_other_engines(profile: Profile) -> None:
    """GRPO's own sampler is the transformers engine, whatever filtering and evaluation sample with."""
    if profile.grpo.sampler == "engine" and profile.engine.kind != "transformers":
        raise UserError(
            f"GRPO cannot sample with engine.kind {profile.engine.kind} yet; "
            "give this command --set engine.kind=transformers, and filter and eval the engine that you want."
        )


def train(
    profile: Profile, inputs: dict[str, Path], folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, float]:
    """Reinforce a profile's model on inputs["data"], from inputs["init"] where given; checkpoint, log and samples go to
    `folder`."""
    g = profile.grpo
    # Step 1: the questions.
    questions = StoredQuestions(
        scorable(iterate_questions(inputs["data"]), g.reward, inputs["data"]), folder / "training" / "questions.arrow"
    )
    if len(questions) < g.prompts:
        raise UserError(
            f"{inputs['data']} holds {len(questions)} questions, one step needs grpo.prompts = {g.prompts}; "
            "lower it or add questions."
        )
    # Step 2: the model and TRL's trainer, with our rollouts.
    processor = profile_processor(profile)
    model = load_policy(profile, inputs.get("init"), True, g.seed)
    trainer = make_trainer(profile, model, processor, questions, folder, callbacks)
    # Step 3: train, from the last checkpoint where there is one, and keep what it ends with.
    train_resumably(trainer, "reward")
    if trainer.is_world_process_zero():
        gather_samples(folder)
    metrics = finish_training(trainer, folder, profile.model.name)
    means = [float(row["reward"]) for row in trainer.state.log_history if "reward" in row]
    return {**metrics, "first_reward": means[0], "last_reward": means[-1]}


def make_trainer(
    profile: Profile,
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    questions: Sequence[Question],
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> GRPOTrainer:
    """TRL's trainer for a profile; LoRA weights, which TRL may have cast to bf16, are put back to float32."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # its rollout hook is marked experimental, and pinned here
    from trl import GRPOTrainer

    from medvlt_lib.rollout.transformers_engine import TransformersEngine
    from medvlt_lib.training.grouped import GroupedTrainer

    g = profile.grpo
    hook = None
    if g.sampler == "engine":
        engine = TransformersEngine(model, processor, profile.engine.batch_tokens)
        sampling = Sampling(g.group_size, g.temperature, g.max_completion_length, g.seed)
        hook = rollout_with(engine, sampling, g.max_prompt_length, folder / "samples")
    trainer_class = GroupedTrainer if g.update == "shared" else GRPOTrainer
    trainer = trainer_class(
        model=model,  # pyright: ignore[reportArgumentType] (TRL takes LoRA models, its types do not say so)
        reward_funcs=reward_functions(g.reward, g.max_completion_length),
        args=grpo_arguments(profile, folder),
        train_dataset=training_rows(questions, profile.model.prompt_style),
        processing_class=processor,
        rollout_func=hook,
        callbacks=[alarm_bell(), *callbacks],
    )
    lora_to_float32(trainer.model)
    for policy in (trainer.model, trainer.ref_model):
        if policy is not None:
            # TRL types a policy as what FSDP makes of it, which lacks the hook; in memory it is a module.
            policy.register_forward_pre_hook(_without_empty_pictures, with_kwargs=True)  # pyright: ignore
    return trainer


def _without_empty_pictures(module, args, kwargs):
    """TRL cuts a batch of text and image rows into micro-batches and hands one without images an empty tensor."""
    if kwargs.get("image_grid_thw") is not None and not len(kwargs["image_grid_thw"]):
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pixel_values", "image_grid_thw")}
    return args, kwargs


def grpo_arguments(profile: Profile, folder: Path) -> GRPOConfig:
    """A profile's grpo section in TRL's terms (RECIPE E1): `updates` optimizer steps from one generation batch."""
    from trl import GRPOConfig

    g = profile.grpo
    accumulation = profile.grpo_accumulation()
    server = {"use_vllm": True, "vllm_mode": "server"} if g.sampler == "trl-vllm-server" else {}
    return GRPOConfig(
        **shared_arguments(profile, g, folder),
        per_device_train_batch_size=g.micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=g.updates * accumulation,
        num_generations=g.group_size,
        max_completion_length=g.max_completion_length,
        beta=g.beta,
        use_bias_correction_kl=False,  # the papers' KL term is not weighted by the ratio; TRL's default is
        epsilon=g.epsilon,
        loss_type=g.loss_type,
        scale_rewards=g.scale_rewards,
        reward_weights=list(g.reward.values()),
        temperature=g.temperature,
        num_iterations=1,
        **server,
    )


def training_rows(questions: Sequence[Question], style: str = "medvlthinker") -> Dataset:
    """The data set that TRL's trainer reads: a question becomes a row, its pictures decoded, when asked for.

    TRL asks for a row once for every completion; the copies share their pictures. `images` is empty for text questions.
    """
    from datasets import Dataset

    def rows_of(batch: dict[str, list]) -> dict[str, list]:
        distinct = {number: questions[number] for number in batch["question"]}
        pictures = {number: [load_image(i) for i in question.images] for number, question in distinct.items()}
        asked = [distinct[number] for number in batch["question"]]
        columns = [reward_columns(question) for question in asked]
        return {
            "prompt": [[{"role": "user", "content": prompt_text(question, style)}] for question in asked],
            "images": [pictures[number] for number in batch["question"]],
            **{name: [row[name] for row in columns] for name in columns[0]},
        }

    return Dataset.from_dict({"question": list(range(len(questions)))}).with_transform(rows_of)


def rollout_with(
    engine: Engine, sampling: Sampling, max_prompt_length: int, samples: Path
) -> Callable[[list, Any], dict[str, list]]:
    """A TRL rollout function. TRL repeats every prompt G = sampling.n times in a row; each group is sampled once.

    The first group of every rollout is kept in `samples`, one file a step. Raises UserError for too long a prompt.
    """

    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        step, training = trainer.state.global_step, trainer.model.training
        group = sampling.n if training else trainer.num_generations_eval
        for place, messages in enumerate(prompts):
            assert messages == prompts[place - place % group], "TRL no longer hands over a prompt's copies in a row"
        distinct = [
            Prompt(f"{step}:{trainer.accelerator.process_index}:{number}", messages, _images(messages))
            for number, messages in enumerate(prompts[::group])
        ]
        trainer.model.eval()
        completions = list(engine.generate(distinct, replace(sampling, n=group)))
        trainer.model.train(training)
        asked, answered = [p.id for p in distinct for _ in range(group)], [c.question_id for c in completions]
        assert answered == asked, "the engine's completions are not in the order of the prompts"
        if trainer.accelerator.is_main_process:
            _write_samples(samples, step, prompts[0], completions[:group])
        longest = max(len(c.prompt_ids) for c in completions)
        if longest > max_prompt_length:
            raise UserError(
                f"a prompt is {longest} tokens long, grpo.max_prompt_length is {max_prompt_length}; "
                "raise it, or lower model.max_pixels."
            )
        return {
            "prompt_ids": [c.prompt_ids for c in completions],
            "completion_ids": [c.token_ids for c in completions],
            "logprobs": [c.logprobs for c in completions],
        }

    return rollout


def _images(messages: list[dict]) -> list:
    return [
        part["image"]
        for turn in messages
        if isinstance(turn["content"], list)
        for part in turn["content"]
        if part["type"] == "image"
    ]


def _write_samples(folder: Path, step: int, prompt: list[dict], done: list) -> None:
    content = prompt[-1]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    row = {"step": step, "prompt": text, "completions": [c.text for c in done]}
    line = json.dumps(row, ensure_ascii=False) + "\n"
    atomic_write(folder / f"{step:06d}.json", lambda temporary: Path(temporary).write_text(line, encoding="utf-8"))


def gather_samples(folder: Path) -> None:
    """One samples.jsonl from the files of the single steps; a kill in the middle of this loses nothing."""
    import shutil

    kept = folder / "samples.jsonl"
    rows = [*(read_jsonl(kept) if kept.exists() else ()), *map(read_json, (folder / "samples").glob("*.json"))]
    by_step = {row["step"]: row for row in rows}
    write_jsonl(kept, [by_step[step] for step in sorted(by_step)])
    shutil.rmtree(folder / "samples", ignore_errors=True)
