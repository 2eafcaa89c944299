"""Made-up models for two exercises, each with one cause: how their answers look, in a few figures.

CONTROLLED are asked about pictures in other ways (notebook 05), WORKING state a working before they answer (notebook
06). All are a few lines of code, so that their figures are there in a moment and their causes are certain.
"""

from __future__ import annotations

from random import Random
from statistics import fmean

from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.phantom.true_steps import true_steps

LOOKS = ("looks at the picture", "answers from the words", "prefers a letter", "knows the pictures by heart", "guesses")
# Of each model its cause, and where to look when it is taken for another.
CONTROLLED = {
    "A": ("answers from the words", "what do its answers do when the picture is taken away, and when options move?"),
    "B": ("knows the pictures by heart", "does it name the same text or the same letter when the options move?"),
    "C": ("looks at the picture", "what would a model say that sees another question's picture?"),
    "D": ("guesses", "compare its accuracy with what guessing gives, in every row."),
    "E": ("prefers a letter", "which single row differs from the others, and what was moved in it?"),
}
ASKED = ("as asked", "no picture", "another's picture", "options reordered")
OPTIONS, ASKED_OF_EACH = 4, 400

STEPS = ("sees it wrong", "adds up wrongly", "names another letter", "works only after a guess", "breaks off")
WORKING = {
    "A": ("adds up wrongly", "its letters follow from its steps less often, and which steps are false?"),
    "B": ("sees it wrong", "false steps, and yet its letters follow. What kind of step can be false alone?"),
    "C": ("works only after a guess", "it is right far more often than its steps are true."),
    "D": ("breaks off", "what share of its answers can be graded at all?"),
    "E": ("names another letter", "its steps are true. What is wrong, then?"),
}
FLAWED = 0.4  # the share of answers that have the model's flaw


def in_other_ways(model: str, seed: int = 0) -> dict[str, float]:
    """A model of CONTROLLED: its accuracy for each way of asking, and of the answers to reordered options the shares
    that name the same text and the same letter as before. Four options, so guessing gives 0.25."""
    cause, rng = CONTROLLED[model][0], Random(f"{seed}")
    right: dict[str, list[bool]] = {name: [] for name in ASKED}
    same: dict[str, list[bool]] = {"same text": [], "same letter": []}
    for _ in range(ASKED_OF_EACH):
        place = rng.choices(range(OPTIONS), [2, 5, 2, 1])[0]  # the second letter is right in half of the questions
        order = rng.sample(range(1, OPTIONS), OPTIONS - 1)
        order.insert(place, 0)  # the text at each letter; 0 is what the picture shows, and right
        moved = rng.sample(order, OPTIONS)
        hint = 0 if rng.random() < 0.6 else rng.randrange(OPTIONS)  # what the words make likely
        other = rng.randrange(1, OPTIONS)  # what another question's picture shows
        answers = {}
        for name, shown, options in zip(ASKED, (0, None, other, 0), (order, order, order, moved), strict=True):
            learned = None if shown is None else order.index(shown)
            answers[name] = _letter(cause, rng, shown, hint, learned, options)
            right[name].append(options[answers[name]] == 0)
        before, after = answers["as asked"], answers["options reordered"]
        same["same text"].append(order[before] == moved[after])
        same["same letter"].append(before == after)
    return {name: fmean(values) for name, values in (right | same).items()}


def _letter(cause: str, rng: Random, shown: int | None, hint: int, learned: int | None, options: list[int]) -> int:
    """The place of the option that a model names. `learned`: the letter that belonged to this picture in training."""
    if cause == "looks at the picture" and shown is not None and rng.random() < 0.85:
        return options.index(shown)
    if cause == "knows the pictures by heart" and learned is not None and rng.random() < 0.9:
        return learned
    if cause == "answers from the words":
        return options.index(hint)
    if cause == "prefers a letter" and rng.random() < 0.9:
        return 1
    return rng.randrange(OPTIONS)


def worked(model: str, questions: int = 200, seed: int = 0) -> dict[str, float]:
    """A model of WORKING on anion gaps: the shares of its answers that can be graded and that are right; and of those
    that can be graded the shares whose steps are all true, and whose letter follows from the steps."""
    rng, found, right = Random(f"{seed}"), [], []
    for q in make_questions("anion_gap", "validation", questions, seed):
        facts = q.extra["facts"]
        flawed = rng.random() < FLAWED
        text, letter = _answer(WORKING[model][0], rng, facts, q.options, q.answer_label, flawed)
        found.append(true_steps(text, letter, letter is not None, q.family, facts, q.options))
        right.append(letter == q.answer_label)
    gradable = [steps for steps in found if steps.first_error != "form"]
    return {
        "gradable": len(gradable) / len(found),
        "right": fmean(right),
        "all steps true": fmean(bool(steps.all_true) for steps in gradable),
        "answer follows": fmean(bool(steps.follows) for steps in gradable),
    }


def _answer(
    cause: str, rng: Random, facts: dict, options: dict[str, str], gold: str, flawed: bool
) -> tuple[str, str | None]:
    """A working and the letter that is named, None where there is none."""
    sodium, chloride, bicarbonate = facts["sodium"], facts["chloride"], facts["bicarbonate"]
    letters = {text: letter for letter, text in options.items()}
    wrong = rng.choice([letter for letter in options if letter != gold])
    off = int(options[gold]) - int(options[wrong])
    slip = flawed and cause in ("sees it wrong", "works only after a guess")
    read = chloride + off if slip else chloride  # what was read, so that another option comes out
    rest = sodium - read
    gap = rest - bicarbonate - (off if flawed and cause == "adds up wrongly" else 0)
    text = f"{sodium} - {read} = {rest}. {rest} - {bicarbonate} = {gap}."
    if flawed and cause == "breaks off":
        return f"{sodium} - {read} = {rest}.", None
    if flawed and cause == "names another letter":
        return text, wrong
    return text, gold if cause == "works only after a guess" else letters[str(gap)]
