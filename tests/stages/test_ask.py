"""`medvlt ask`: what is asked and shown, and what is refused before a model is loaded."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.prompts import prompt_text
from medvlt_lib.core.records import Completion
from medvlt_lib.core.runs import open_run
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.stages import ask as work
from medvlt_lib.stages.answer_view import parted

SMALL = ["--set", "model.name=phantom:small"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def words_of(question) -> list[str]:
    return [f"{letter}={text}" for letter, text in question.options.items()]


@pytest.mark.parametrize("family", ["nodule_count", "curb65"])
def test_the_answer_is_that_of_an_evaluation(family):
    """A picture and its question, and a question alone: as the engine answers them, with the letter that counts."""
    [question] = make_questions(family, "test", 1)
    engine = TransformersEngine(load_model(shipped("small")), load_processor(shipped("small")))
    [expected] = engine.generate(prompts_of([question]), Sampling(1, 0.0, 128))
    words = [question.question, "--options", *words_of(question), *SMALL]
    if question.images:
        Path("picture.png").write_bytes(question.images[0])
        words = ["picture.png", *words]
    shown = CliRunner().invoke(app, ["ask", *words]).output
    thinking, answer = parted(expected.text)
    assert f"base\n  thinking: {thinking or '(none)'}\n  answer: {answer}" in shown
    letter = grade(expected.text, question).letter
    assert f"option: {letter}, {question.options[letter]}" in shown
    assert "Not for clinical use." in shown
    assert not Path("runs").exists()


class Scripted:
    """An engine that says what was asked, as far as the test wants to know it."""

    asked: list = []

    def __init__(self, text):
        self.text = text

    def generate(self, prompts, sampling):
        Scripted.asked += prompts
        return [Completion(p.id, 0, self.text, [], None, "stop") for p in prompts]


def test_several_arms_each_with_thinking_and_answer(monkeypatch):
    """Arms that are named twice are asked once, in the order given; the prompt is that of other commands."""
    said = {None: "<think> by the left border </think>\n<answer> B </answer>", "rl": "<think> no end"}
    monkeypatch.setattr(work, "build_engine", lambda profile, checkpoint: Scripted(said[checkpoint]))
    monkeypatch.setattr(work, "arm_of", lambda run, arm: work_arm(run, arm, None if arm == "base" else "rl"))
    run = open_run("tiny", None, make=False)
    Scripted.asked = []
    found = list(work.ask(run, "Which side?", None, {"A": "left", "B": "right"}, ["rl_text", "base", "rl_text"]))
    assert [(s.arm, s.thinking, s.answer, s.letter) for s in found] == [
        ("rl_text", "no end", "", None),
        ("base", "by the left border", "B", "B"),
    ]
    [question] = make_questions("curb65", "test", 1)
    list(work.ask(run, question.question, None, question.options, ["base"]))
    assert Scripted.asked[-1].messages[0]["content"][-1]["text"] == prompt_text(question)
    list(work.ask(run, "Why?", None, {}, ["base"]))
    assert Scripted.asked[-1].messages[0]["content"][-1]["text"].endswith("Question: Why?")


def work_arm(run, arm, checkpoint):
    from medvlt_lib.stages.evaluate_any import Candidate

    return Candidate(arm, run.profile, checkpoint)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.png", "How many?"], "the image none.png cannot be read (No such file or directory); give a picture"),
        (["torn.png", "How many?"], "cannot read the image"),
        (["one", "two", "three"], 'give a picture and a question, or a question alone: medvlt ask [IMAGE] "QUESTION".'),
        (["How many?", "--options", "A=1"], "give at least two, lettered A, B, C ... in order"),
        (["How many?", "--options", "B=1", "C=2"], "the options are lettered B, C"),
        (["How many?", "--options", "A=1", "A=2"], "the option 'A=2' is not a new letter and a text"),
        (["How many?", "--options", "one"], "the option 'one' is not a new letter and a text; write A=left B=right."),
        (["How many?", "--arm", "rl_text"], "runs/tiny/04_grpo/rl_text is missing or unfinished; run `medvlt grpo"),
        ([" "], "the question is empty"),
    ],
)
def test_mistakes_are_one_sentence_before_a_model_is_loaded(words, sentence, monkeypatch):
    Path("torn.png").write_bytes(b"no picture")
    monkeypatch.setattr(work, "build_engine", lambda *_: pytest.fail("a model was loaded"))
    result = CliRunner().invoke(app, ["ask", *words])
    assert isinstance(result.exception, UserError) and sentence in str(result.exception)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think> a </think>\n<answer> B </answer>", ("a", "B")),
        ("<answer> B </answer>", ("", "B")),
        ("a </think> B", ("a", "B")),  # a template opened the thinking
        ("<think> a", ("a", "")),
        ("", ("", "")),
    ],
)
def test_thinking_and_answer_come_apart(text, parts):
    assert parted(text) == parts
