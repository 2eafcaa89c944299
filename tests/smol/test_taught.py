"""phantom:smol as it ships: its answers are in form, and it sees."""

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.variants import grey
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.models.smol import TRAINED
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

SEEN = make_questions("midline_shift,cup_to_disc_ratio", "validation", 48, wording="plain")


@pytest.fixture(scope="module")
def graded():
    """Verdicts on questions with a picture, each with its own picture and with a grey one."""
    profile = load_profile("smol")
    engine = TransformersEngine(load_policy(profile).eval(), profile_processor(profile))

    def verdicts(questions):
        answers = engine.generate(prompts_of(questions), Sampling(temperature=0))
        return [grade(a.text, q, finish_reason=a.finish_reason) for a, q in zip(answers, questions, strict=True)]

    return verdicts(SEEN), verdicts([grey(question) for question in SEEN])


def test_what_ships_is_small():
    assert TRAINED.stat().st_size <= 12_000_000


def test_its_answers_are_in_form(graded):
    assert sum(verdict.well_formed for verdicts in graded for verdict in verdicts) >= 0.9 * 2 * len(SEEN)


def test_pictures_matter(graded):
    own, blanked = (sum(verdict.correct for verdict in verdicts) / len(SEEN) for verdicts in graded)
    assert own > blanked + 0.1
