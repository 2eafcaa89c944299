"""Checks of the exercises in notebook 01."""

from __future__ import annotations

from typing import Any

from medvlt_lib.course.telling import tell


def copies(function: Any) -> None:
    """copies(train, held_out): names of the training texts that are copies of a held-out one; from {name: text}."""
    test = {"t": "A man of 70 coughs. Urea is 7.5 mmol/l."}

    def case(text: str, found: set, look: str) -> tuple:
        return ({"a": text, "b": "Who was it?"}, test), found, look

    cases = [
        case(test["t"], {"a"}, "A training text that equals a held-out text is a copy; return its name."),
        case("a man of 70 COUGHS. urea is 7.5 mmol/l.", {"a"}, "Other capitals do not make another question."),
        case("A man  of 70\ncoughs.  Urea is 7.5 mmol/l. ", {"a"}, "Other spaces do not make another question."),
        case("A man of 70 coughs; urea is 7.5 mmol/l", {"a"}, "Other punctuation does not make another question."),
        case("A man of 71 coughs. Urea is 7.5 mmol/l.", set(), "Another number makes another question."),
        case("A man of 70 coughs. Urea is 75 mmol/l.", set(), "What does your code do to the point inside 7.5?"),
        case("A man coughs. Urea of 70 is 7.5 mmol/l.", set(), "The same words in another order are no copy."),
        case(f"{test['t']} He smokes.", set(), "A text that says more than the held-out one is no copy."),
        case("A man of 70 coughs.", set(), "A text that says less than the held-out one is no copy."),
        (({"a": "One.", "b": "Two.", "c": "one"}, {"x": "ONE", "b": "three"}), {"a", "c"}, "Compare texts, not names."),
        (({}, test), set(), "Without training texts there is no copy."),
        (({"a": "One."}, {}), set(), "Without held-out texts there is no copy."),
    ]
    tell(function, cases, "Copies are found whatever their form, and variations with another number are left alone.")


def boxed_letter(function: Any) -> None:
    r"""boxed_letter(text): the letter A to E in the last \boxed{...} of a response, upper case, or None."""
    cases = [
        ((r"So it is \boxed{B}.",), "B", "The letter stands between the braces."),
        ((r"\boxed{c}",), "C", "A lower-case letter is an answer, too; return it in upper case."),
        ((r"\boxed{ D }",), "D", "Spaces around the letter do not matter."),
        ((r"\boxed{A}? No, \boxed{B}.",), "B", "A model that corrects itself means its last box."),
        ((r"\boxed{B. Lung}",), "B", "After the letter the option's text may follow."),
        ((r"\boxed{e) Skin}",), "E", "The text of the option may follow after a bracket, too."),
        ((r"\boxed{Brain}",), None, "A word that begins with B is not the letter B."),
        ((r"\boxed{A or B}",), None, "Two letters are no answer; a letter stands alone, or before one of . ) :"),
        ((r"\boxed{F}",), None, "Only A to E are options."),
        ((r"\boxed{}",), None, "A box may be empty: then there is no answer."),
        ((r"\boxed{A}, or rather \boxed{none of them}",), None, "If the last box holds no letter, there is no answer."),
        (("The answer is B.",), None, "Without a box there is no answer, so None."),
        (("",), None, "A response may be empty: then there is no answer."),
    ]
    tell(function, cases, "Your grader reads the last box, and takes nothing else for an answer.")


def true_accuracy(function: Any) -> None:
    """true_accuracy(seen, noise, options): how often the model is really right; None where labels say nothing."""

    def case(ability: float, noise: float, options: int, look: str) -> tuple:
        seen = ability * (1 - noise) + (1 - ability) * noise / (options - 1)
        return (seen, noise, options), ability, look

    cases = [
        case(0.7, 0.0, 4, "Without noise, what is seen is true."),
        case(0.8, 0.2, 4, "Put your result back into the formula of section 7: it must give what was seen."),
        case(0.8, 0.2, 2, "Fewer options: a wrong label falls on a wrong answer more often."),
        case(0.25, 0.5, 4, "A model that guesses is right one time in four, with any noise."),
        case(0.0, 0.3, 5, "A model that is never right still earns a little."),
        case(0.6, 0.9, 4, "Beyond the point without signal the slope is negative, and can still be solved."),
        ((0.25, 0.75, 4), None, "Here every ability is paid alike: nothing can be said, so None."),
        ((0.5, 0.5, 2), None, "With two options half of the labels wrong say nothing."),
    ]
    tell(function, cases, "From a noisy reward you read the accuracy, and you know where nothing can be read.")
