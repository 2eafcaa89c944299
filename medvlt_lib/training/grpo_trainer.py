"""TRL's GRPO trainer for a profile: its rows, its settings, and our rollouts.

What TRL's trainer sees: conversational prompts, an `images` column that is empty for text questions (so that one batch
may mix both), and a rollout function that samples each group once from its prompt with our engine. Advantages, clipping
and the KL term are TRL's; their settings are the papers', translated in the profiles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.core.records import Question
from medvlt_lib.models.adapters import lora_to_float32
from medvlt_lib.rollout.build import say_on_a_gpu
from medvlt_lib.rollout.engine import Engine, Sampling
from medvlt_lib.training.monitor import alarm_bell
from medvlt_lib.training.question_queue import QuestionQueue
from medvlt_lib.training.rewarding import reward_columns, reward_functions
from medvlt_lib.training.rollouts import rollout_with
from medvlt_lib.training.trainer import shared_arguments

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer


def make_trainer(
    profile: Profile,
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    questions: Sequence[Question],
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    pass_counts: Sequence[tuple[int, int]] = (),
) -> GRPOTrainer:
    """TRL's trainer for a profile; LoRA weights, which TRL may have cast to bf16, are put back to float32.

    `pass_counts`: (right answers, answers) of every question in filtering, for the orders that begin with them.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # its rollout hook is marked experimental, and pinned here
    _prepare_trl(profile.grpo.sampler)
    from medvlt_lib.rollout.transformers_engine import TransformersEngine
    from medvlt_lib.training.watched import Watch, WatchedGroupedTrainer, WatchedTrainer

    g = profile.grpo
    engine: Engine | None = None
    if g.sampler == "engine":
        say_on_a_gpu(profile, "GRPO samples with transformers, as grpo.sampler says.")
        engine = TransformersEngine(model, processor, profile.engine.batch_tokens)
    elif g.sampler == "vllm":
        from medvlt_lib.training.vllm_sampler import sample_with, start_sampler

        engine = start_sampler(profile, model, folder)
    sampling = Sampling(g.group_size, g.temperature, g.max_completion_length, g.seed)
    trainer_class: Callable[..., GRPOTrainer] = WatchedTrainer
    if g.update == "shared":
        queue = QuestionQueue(len(questions), g.order, g.seed, pass_counts)
        trainer_class = partial(WatchedGroupedTrainer, queue=queue, replacements=g.dynamic_sampling)
    trainer = trainer_class(
        watch=Watch(profile.eval.grader, profile.model.prompt_style, folder / "samples"),
        model=model,
        reward_funcs=reward_functions(g.reward, g.max_completion_length),
        args=grpo_arguments(profile, folder),
        train_dataset=training_rows(questions, profile.model.prompt_style),
        processing_class=processor,
        rollout_func=rollout_with(engine, sampling, g.max_prompt_length) if engine else None,
        callbacks=[alarm_bell(g.order), *callbacks],
    )
    if g.sampler == "vllm":
        sample_with(trainer, engine)
    lora_to_float32(trainer.model)
    for policy in (trainer.model, trainer.ref_model):
        if policy is not None:
            # TRL types a policy as what FSDP makes of it, which lacks the hook; in memory it is a module.
            policy.register_forward_pre_hook(_without_empty_pictures, with_kwargs=True)  # pyright: ignore
    return trainer


def _prepare_trl(sampler: str) -> None:
    """TRL's trainer imports vLLM wherever it is installed, be it broken or too old, and needs it for its own server
    alone; else it is told, before it is imported, that there is none.

    Raises UserError where the server is wanted and vLLM does not load.
    """
    import trl.import_utils as installed

    if sampler != "trl-vllm-server":
        installed.is_vllm_available = lambda min_version=None: False
        return
    try:
        import vllm  # noqa: F401
    except Exception as error:  # of many kinds
        raise UserError(
            f"grpo.sampler is trl-vllm-server, but vLLM does not load ({first_line(error)}); "
            "install requirements/gpu.txt."
        ) from None


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
    high = g.epsilon if g.epsilon_high is None else g.epsilon_high
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
        epsilon_high=1 + high if g.loss_type == "cispo" else high,  # TRL's CISPO takes the bound of the ratio itself
        loss_type="grpo" if g.loss_type == "gspo" else g.loss_type,
        importance_sampling_level="sequence" if g.loss_type == "gspo" else "token",
        scale_rewards=g.scale_rewards,
        reward_weights=list(g.reward.values()),
        temperature=g.temperature,
        num_iterations=1,
        vllm_importance_sampling_correction=g.importance_cap is not None,
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=g.importance_cap or 1.0,
        log_multimodal=False,  # TRL would gather pictures from those processes alone that have some, and never end
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
            "question_id": [question.id for question in asked],
            **{name: [row[name] for row in columns] for name in columns[0]},
        }

    return Dataset.from_dict({"question": list(range(len(questions)))}).with_transform(rows_of)
