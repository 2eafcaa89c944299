"""How a check of an exercise tries a learner's function on several inputs, and says in one line what it found.

The line never holds the solution, and a learner's mistake never ends in a traceback.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from medvlt_lib.course.progress import note

NOTHING = "Nothing is there yet: write your answer into the cell above, run it, and then this one again."
Look = str | Callable[[Any], str]  # what to look at next; or what makes it from what came back
Case = tuple[tuple, Any, Look]  # arguments, what must come back, where to look if something else does


def tell(function: Any, cases: Sequence[Case], right: str, within: float = 1e-6) -> None:
    """Call `function` with the arguments of one case after another, and print one line about the first that fails.

    Numbers may be off by `within`. The first case expects something else than None, which is what a stub gives.
    """
    _say(_fault(function, cases, within), right)


def tell_names(answer: Any, runs: dict[str, tuple[str, str]], names: Sequence[str], right: str) -> None:
    """Print one line about a dictionary {run: name}; `runs` has each run's true name, one of `names`, and where to look
    when it is taken for another."""
    fault = None
    if _empty(answer) or (isinstance(answer, dict) and all(map(_empty, answer.values()))):
        fault = NOTHING
    elif not isinstance(answer, dict):
        fault = f"Not yet. A dictionary is asked for, with a name for each of {', '.join(runs)}."
    elif wrong := [run for run, (name, _) in runs.items() if not same(answer.get(run), name, 0)]:
        fault = f"Not yet. {_misread(wrong[0], answer.get(wrong[0]), runs[wrong[0]][1], names)}"
    _say(fault, right)


def _misread(run: str, name: Any, look: str, names: Sequence[str]) -> str:
    if not isinstance(name, str) or name not in names:
        return f"{run}: {name!r} is none of the names; they are {', '.join(names)}."
    return f"{run} is not {name!r}: {look}"


def _say(fault: str | None, right: str) -> None:
    """Print the line; a pass is noted under the name of the check, the function that called `tell` or `tell_names`."""
    print(fault or f"Right. {right}")
    if not fault:
        note(sys._getframe(2).f_code.co_name)


def _fault(function: Any, cases: Sequence[Case], within: float) -> str | None:
    """The line about the first case that fails, or None."""
    if not callable(function):
        kind = type(function).__name__
        return NOTHING if _empty(function) else f"Not yet. This is of type {kind}; a function is asked for."
    for number, (arguments, expected, look) in enumerate(cases):
        given, call = copy.deepcopy(arguments), _call(function, arguments)
        try:
            got = function(*given)
        except NotImplementedError:
            return NOTHING
        except Exception as error:
            kind = f"{type(error).__name__} ({' '.join(str(error).split())[:100]})"
            return f"Not yet. {call} stops with {kind}. {look(None) if callable(look) else look}"
        if number == 0 and _empty(got):
            return NOTHING
        if not same(given, arguments, 0):
            return f"Not yet. {call} changes what it is given; leave that as it is, and return something new."
        if not same(got, expected, within):
            return f"Not yet. {call} gives {_short(got)}. {look(got) if callable(look) else look}"
    return None


def same(got: Any, expected: Any, within: float) -> bool:
    """Whether two answers are equal: numbers within `within`, sequences of any kind item by item, sets in any order."""
    got = got.tolist() if hasattr(got, "tolist") else got
    expected = expected.tolist() if hasattr(expected, "tolist") else expected
    if isinstance(expected, set):
        return isinstance(got, set | frozenset | list | tuple) and set(map(repr, got)) == set(map(repr, expected))
    if isinstance(expected, list | tuple):
        alike = isinstance(got, list | tuple) and len(got) == len(expected)
        return alike and all(same(g, e, within) for g, e in zip(got, expected, strict=True))
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return math.isclose(got, expected, rel_tol=within, abs_tol=within) or (got != got and expected != expected)
    return type(got) is type(expected) and got == expected


def _empty(value: Any) -> bool:
    return value is None or value is ...


def _call(function: Any, arguments: tuple) -> str:
    text = ", ".join(map(_short, arguments))
    return f"{getattr(function, '__name__', 'your function')}({text if len(text) <= 100 else '...'})"


def _short(value: Any) -> str:
    """A value as Python writes it, not longer than a line can hold."""
    value = value.tolist() if hasattr(value, "tolist") else value
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
