"""vLLM's engine against the transformers engine: the same prompts, the same answers, the same log-probabilities."""

import gc
import json
import subprocess
import sys

import numpy as np
import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.stats import macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Prompt, Sampling, prompts_of
from medvlt_lib.rollout.vllm_start import build_vllm_engine

GREEDY = Sampling(temperature=0, max_new_tokens=128)


@pytest.fixture(scope="module")
def greedy(vllm_engine, reference, questions):
    """(vLLM's completion, the transformers engine's) of every question."""
    asked = prompts_of(questions)
    return list(zip(vllm_engine.generate(asked, GREEDY), reference.generate(asked, GREEDY), strict=True))


def test_prompts_and_greedy_answers_are_equal_token_by_token(greedy, questions):
    assert len(greedy) == 200 and {q.modality for q in questions} == {"text", "image"}
    assert all(ours.prompt_ids == theirs.prompt_ids for ours, theirs in greedy)
    assert all(ours.token_ids == theirs.token_ids and ours.text == theirs.text for ours, theirs in greedy)
    assert {ours.finish_reason for ours, _ in greedy} == {"stop"}


def test_log_probabilities_agree(greedy):
    gaps = [
        abs(one - other) for ours, theirs in greedy for one, other in zip(ours.logprobs, theirs.logprobs, strict=True)
    ]
    assert len(gaps) > 2000 and max(gaps) < 1e-4


def test_a_sample_s_seed_is_its_own_whatever_is_asked_beside_it(vllm_engine, questions):
    asked = prompts_of(questions[:20])
    together = list(vllm_engine.generate(asked, Sampling(8, 1.0, 128, seed=3)))
    again = list(vllm_engine.generate(asked[7:9], Sampling(4, 1.0, 128, seed=3, first=4)))
    by_name = {(c.question_id, c.sample): c.token_ids for c in together}
    assert [(c.question_id, c.sample) for c in again] == [(p.id, k) for p in asked[7:9] for k in (4, 5, 6, 7)]
    assert all(c.token_ids == by_name[c.question_id, c.sample] for c in again)
    assert len({tuple(ids) for ids in by_name.values()}) > 40  # they are samples, not one answer


def test_more_requests_than_vllm_takes_at_once(vllm_engine, questions):
    """On a CPU seeds hold also where requests have to wait for others."""
    asked = prompts_of(questions[:40])
    done = list(vllm_engine.generate(asked, Sampling(16, 1.0, 8, seed=1)))
    assert [(c.question_id, c.sample) for c in done] == [(p.id, k) for p in asked for k in range(16)]
    assert {c.finish_reason for c in done} >= {"length"} and max(len(c.token_ids) for c in done) == 8


def test_more_prompt_tokens_than_vllm_reads_at_once(vllm_engine):
    """On a CPU a seed fails where a prompt is read in pieces; each is read whole."""
    asked = prompts_of(make_questions("curb65,apgar", "validation", 250, seed=3, wording="plain"))
    done = list(vllm_engine.generate(asked, Sampling(1, 1.0, 2, seed=5)))
    assert [c.question_id for c in done] == [p.id for p in asked]
    read = vllm_engine.llm.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens
    assert sum(len(c.prompt_ids) for c in done) > read


def test_samples_are_scored_as_the_model_gives_them(vllm_engine, reference, questions):
    """The mean of the samples' log-probabilities is the one that the transformers engine's own samples have."""
    asked, sampling = prompts_of(questions[:40]), Sampling(16, 1.0, 128, seed=5)
    sums = [[sum(c.logprobs) for c in engine.generate(asked, sampling)] for engine in (vllm_engine, reference)]
    per_question = np.array(sums).reshape(2, 40, 16).mean(2)
    difference = per_question[0] - per_question[1]
    assert abs(difference.mean()) < 3 * difference.std() / 40**0.5


def test_a_prompt_that_is_too_long_is_a_sentence(vllm_engine):
    long = Prompt("long", [{"role": "user", "content": "pulse " * 5000}])
    with pytest.raises(UserError, match=r"vLLM refuses a prompt of long .*raise grpo.max_prompt_length"):
        list(vllm_engine.generate([long], GREEDY))


def test_filtering_with_vllm_from_the_command_line(tmp_path):
    """What a user types: the start-up says what it does, and every row names the engine."""
    settings = {"engine.kind": "vllm", "data.train_text_size": 12, "data.train_image_size": 12, "data.test_size": 10}
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    for command in ("data", "filter"):
        done = subprocess.run(
            [sys.executable, "-m", "medvlt_lib", command, "--profile", "tiny", *chosen],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "vLLM 0.31.0 starts: it loads the weights of" in done.stderr
    parts = sorted((tmp_path / "runs" / "tiny" / "02_filtering" / "rollouts").glob("part-*.jsonl"))
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert len(rows) == 24 * 16 and {row["engine"] for row in rows} == {"vllm 0.31.0"}
    assert 0.2 < np.mean([row["passed"] for row in rows]) < 0.9


@pytest.mark.slow
def test_pass_rates_of_both_engines_agree(vllm_engine, reference, questions):
    """200 questions x 16 answers, seed 11: the 95 % interval of the paired difference lies within 4 points."""
    by_id = {question.id: question for question in questions}
    rates = []
    for engine in (vllm_engine, reference):
        done = engine.generate(prompts_of(questions), Sampling(16, 1.0, 128, seed=11))
        right = [grade(c.text, by_id[c.question_id], finish_reason=c.finish_reason).correct for c in done]
        rates.append(np.array(right, float).reshape(len(questions), 16).mean(1))
    strata, clusters = [q.group for q in questions], [q.cluster for q in questions]
    low, high, *_ = macro_interval(rates[0] - rates[1], strata, clusters, bounds=(-1, 1))
    assert low > -0.04 and high < 0.04


def test_the_one_before_is_stopped_when_another_starts(vllm_engine, profile, questions):
    """What several of a process share would end with the first that is collected. Last here: it stops the others'."""
    asked = prompts_of(questions[:4])
    before = [c.text for c in vllm_engine.generate(asked, GREEDY)]
    after = build_vllm_engine(profile)
    gc.collect()
    assert [c.text for c in after.generate(asked, GREEDY)] == before


def test_a_model_that_is_not_there_is_a_sentence(tmp_path):
    profile = load_profile("tiny", {"engine.kind": "vllm", "model.name": str(tmp_path)})
    with pytest.raises(UserError, match=r"vLLM does not start \(.+\); set engine.kind transformers"):
        build_vllm_engine(profile)
