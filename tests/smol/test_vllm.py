"""phantom:smol in vLLM on a CPU: the answers of the transformers engine, pictures included."""

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.rollout.vllm_start import build_vllm_engine

GREEDY = Sampling(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def answers():
    """(vLLM's completion, the transformers engine's) of 8 text and 8 picture questions."""
    profile = load_profile("smol", {"engine.kind": "vllm"})
    asked = prompts_of(make_questions("curb65,apgar,bleed_type,cup_to_disc_ratio", "validation", 16, wording="plain"))
    reference = TransformersEngine(load_policy(profile).eval(), profile_processor(profile))
    expected = list(reference.generate(asked, GREEDY))
    return list(zip(build_vllm_engine(profile).generate(asked, GREEDY), expected, strict=True))


def test_prompts_and_greedy_answers_are_equal_token_by_token(answers):
    assert len(answers) == 16
    assert all(ours.prompt_ids == theirs.prompt_ids for ours, theirs in answers)
    assert [ours.token_ids for ours, _ in answers] == [theirs.token_ids for _, theirs in answers]


def test_log_probabilities_agree(answers):
    gaps = [abs(a - b) for one, other in answers for a, b in zip(one.logprobs, other.logprobs, strict=True)]
    assert len(gaps) > 100 and max(gaps) < 1e-3
