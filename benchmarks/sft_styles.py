"""What SFT learns from teachers who write alike or otherwise, with clean and with noisy traces.

    python benchmarks/sft_styles.py --out results/sft-styles-tiny.json

Every run trains the profile `tiny` by its own SFT settings on 400 questions of the profile's five families, whose
chains of thought the phantom teacher wrote in one style: `own` (as the model was raised), `foreign` (the same truth in
another order and wording), `terse` (the answer alone). In the noisy runs one step of the trace is wrong in 40 % of the
questions; labels are right in all. `foreign, long` trains for six epochs instead of two. Accuracy is greedy, macro over
families, on 400 held-out test questions, with paired 95 % intervals against the base model and against clean `own` of
the same seeds. Answers may be 320 tokens long. Steps are checked by medvlt_lib/phantom/rationale.py, which reads both
wordings. A run that is in --out already is not done again. About two minutes a run on one core.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from grpo_learns import FAMILIES, compared, right, step_figures, train_quietly
from record import parser, save

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.stats import macro
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.phantom.rationale import SENTENCE_END
from medvlt_lib.phantom.teacher import STYLES, as_own
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.training.sft_trainer import make_trainer

ARMS = {  # style, share of noisy traces, epochs
    **{f"{style}, {name}": (style, share, 2) for style in STYLES for name, share in (("clean", 0.0), ("noisy", 0.4))},
    "foreign, long": ("foreign", 0.0, 6),
}
SEEDS = (0, 1, 2)
CURVE = 10  # steps between two looks at the validation questions


def answers(model, processor, questions: list[Question]) -> list[Completion]:
    """Greedy answers, in the order of the questions."""
    training = model.training
    engine = TransformersEngine(model.eval(), processor)
    found = list(engine.generate(prompts_of(questions), Sampling(temperature=0, max_new_tokens=320)))
    model.train(training)
    return found


def written_in(text: str) -> str:
    """The style of an answer: its thinking has sentences in the foreign wording, or steps of the own one, or none."""
    thinking = text.partition("</think>")[0].replace("<think>", "")
    sentences = [sentence.strip() for sentence in SENTENCE_END.split(thinking) if sentence.strip()]
    if any(as_own(sentence) != sentence for sentence in sentences):
        return "foreign"
    return "own" if len(sentences) > 1 else "terse"


def figures(found: list[Completion], questions: list[Question]) -> dict:
    """Accuracy, form, steps and length of answers."""
    texts, strata = [c.text for c in found], [q.group for q in questions]
    correct, whole = right(texts, questions), np.array([c.finish_reason == "stop" for c in found])
    styles = [written_in(text) for text in texts]
    formed = [grade(text, question).well_formed for text, question in zip(texts, questions, strict=True)]
    return {
        "accuracy": round(macro(correct, strata), 4),
        "accuracy_untruncated": round(float(correct[whole].mean()), 4) if whole.any() else None,
        "truncated": round(1 - float(whole.mean()), 4),
        "well_formed": round(float(np.mean(formed)), 4),
        "tokens_an_answer": round(float(np.mean([c.tokens for c in found])), 1),
        "styles": {style: round(styles.count(style) / len(styles), 4) for style in STYLES},
        **step_figures(texts, questions),
    }


def run(style: str, noise: float, epochs: int, seed: int, test: list[Question], validation: list[Question]) -> dict:
    """Train once; its figures on the test questions, and a curve on the validation questions."""
    from transformers import TrainerCallback

    class Curve(TrainerCallback):
        rows: list[dict] = []

        def on_step_end(self, args, state, control, **_):
            if state.global_step % CURVE == 0:
                shown = figures(answers(model, processor, validation), validation)
                keys = ("accuracy", "well_formed", "styles", "true_steps", "right_by_true_steps")
                self.rows = [*self.rows, {"step": state.global_step, **{key: shown[key] for key in keys}}]

    profile = load_profile("tiny", {"sft.seed": seed, "sft.save_every": 10_000, "sft.epochs": epochs})
    processor, model, curve = profile_processor(profile), load_policy(profile, trainable=True), Curve()
    questions = make_questions(FAMILIES, "train", 400, seed=2000 + seed, trace_noise=noise, trace_style=style)
    tokens = [len(processor.tokenizer(q.reasoning).input_ids) for q in questions]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(profile, model, processor, questions, Path(folder), [curve])
        train_quietly(trainer)
    minutes = (time.monotonic() - started) / 60
    found = answers(model, processor, test)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "minutes": round(minutes, 1), "steps": trainer.state.global_step,
        "tokens_a_trace": round(float(np.mean(tokens)), 1),
        "first_loss": losses[0], "last_loss": losses[-1], **figures(found, test), "curve": curve.rows,
        "answers": "".join(str(int(x)) for x in right([c.text for c in found], test)),
    }  # fmt: skip


def as_numbers(answers: str) -> list[int]:
    """A run's answers to the test questions, 1 for right and 0 for wrong."""
    return [int(answer) for answer in answers]


def summary(runs: dict[str, dict], base: np.ndarray, test: list[Question]) -> dict:
    """By style and noise, over the seeds: means, and paired differences to the base and to clean `own`."""
    found: dict[str, dict] = {}
    for name in ARMS:
        own = [(seed, runs[f"{name}, {seed}"]) for seed in SEEDS if f"{name}, {seed}" in runs]
        if not own:
            continue
        keys = (
            "accuracy", "accuracy_untruncated", "truncated", "well_formed", "tokens_a_trace", "tokens_an_answer",
            "true_steps", "right_by_true_steps",
        )  # fmt: skip
        mean = np.mean([as_numbers(run["answers"]) for _, run in own], axis=0)
        row = {
            "seeds": len(own),
            **{key: round(float(np.mean([run[key] for _, run in own])), 4) for key in keys},
            "accuracies": [run["accuracy"] for _, run in own],
            "against_base": compared(base, mean, test),
        }
        plain = [as_numbers(runs[key]["answers"]) for seed, _ in own if (key := f"own, clean, {seed}") in runs]
        if name != "own, clean" and len(plain) == len(own):
            row["against_own_clean"] = compared(np.mean(plain, axis=0), mean, test)
        found[name] = row
    return found


def main() -> None:
    given = parser(__doc__).parse_args()
    runs: dict[str, dict] = json.loads(given.out.read_text())["runs"] if given.out.exists() else {}
    test, validation = (
        make_questions(FAMILIES, "test", 400, seed=7),
        make_questions(FAMILIES, "validation", 100, seed=8),
    )
    tiny = load_profile("tiny")
    model, processor = load_policy(tiny), profile_processor(tiny)
    at_start = answers(model, processor, test)
    base = right([c.text for c in at_start], test)
    first = {"step": 0, **figures(answers(model, processor, validation), validation)}
    for seed in SEEDS:
        for name, (style, share, epochs) in ARMS.items():
            key = f"{name}, {seed}"
            if key in runs:
                continue
            runs[key] = run(style, share, epochs, seed, test, validation)
            print(key, {k: v for k, v in runs[key].items() if k not in ("curve", "answers", "styles")}, flush=True)
            save(
                given.out, ("torch", "transformers", "trl"), f"{torch.get_num_threads()} threads",
                base=figures(at_start, test), validation_at_start=first,
                summary=summary(runs, base, test), runs=runs,
            )  # fmt: skip


if __name__ == "__main__":
    main()
