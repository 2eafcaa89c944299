"""What a run found, in sentences made of its intervals and p-values; and what was not run. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from medvlt_lib.core.results import percent_span, questions_and_answers
from medvlt_lib.core.runs import STAGES, Run, arm_stage
from medvlt_lib.core.stage import finished_in, is_finished
from medvlt_lib.core.stats import holm
from medvlt_lib.core.tables import percent
from medvlt_lib.stages.arms import ARMS

LEVEL = 0.05


def headline(rows: Sequence[dict]) -> list[str]:
    """What was found and how sure it is, the most important sentence first. `rows`: of core/results.results."""
    if not rows:
        return ["No arm was evaluated, so nothing can be said of how well any model answers."]
    gains = differences(rows)
    if not gains:
        return _without_comparison(rows)
    asked = questions_and_answers(rows[0])
    better = sorted((g for g in gains if g["clear"] and g["difference"] > 0), key=lambda g: -g["difference"])
    worse = sorted((g for g in gains if g["clear"] and g["difference"] < 0), key=lambda g: g["difference"])
    unclear = [g for g in gains if not g["clear"]]
    said = []
    if better:
        best = f"{better[0]['arm']} answers better than the base: {_told(better[0])}"
        said.append(f"{best}, on {asked}, of which the base has {percent(rows[0]['macro'])} % right.")
    if better[1:]:
        said.append(f"Better than the base, too: {_each(better[1:])}.")
    if worse:
        said.append(f"Worse than the base: {_each(worse)}, on {asked}.")
    if unclear:
        largest = max(unclear, key=lambda g: abs(g["difference"]))
        whom = f"{_names(unclear)} cannot be told" if better or worse else "No trained arm differs"
        said.append(
            f"{whom} from the base by more than chance explains, on {asked}; the largest difference seen is "
            f"{_each([largest])}. A true difference below {percent(largest['detectable'])} points would be missed in "
            "one of five such comparisons or more."
        )
    said.append(_how_sure(len(gains)))
    return said


def differences(rows: Sequence[dict]) -> list[dict]:
    """The arms' paired differences from the base, each with its p-value after Holm's correction for all of them, and
    whether it is `clear`: below LEVEL, with an interval that leaves out 0."""
    found = [{"arm": row["arm"], **row["gain"]} for row in rows if row["gain"] is not None]
    for gain, p in zip(found, holm([gain["p"] for gain in found]) if found else [], strict=True):
        low, high = gain["interval"]
        gain |= {"p_holm": p, "clear": p < LEVEL and not low <= 0 <= high}
    return found


def differences_table(gains: Sequence[dict]) -> list[tuple[str, ...]]:
    """`differences` as text cells, header first; in points."""
    cells = [("arm", "against base, points", "95 % paired", "p", "p after Holm", "detectable, points")]
    for g in gains:
        ends = " to ".join(f"{100 * end:+.1f}" for end in g["interval"])
        seen = f"{100 * g['difference']:+.1f}"
        cells.append((g["arm"], seen, ends, _p(g["p"]), _p(g["p_holm"]), percent(g["detectable"])))
    return cells


def not_run(run_: Run, arms: Sequence[str]) -> list[str]:
    """What the run lacks, each with the command that would make it. `arms`: those that were evaluated."""
    name, said = run_.folder.name, []

    def add(what: str, command: str) -> None:
        said.append(f"{what} (medvlt {command} --run {name})")

    for stage, what, command in (
        ("01", "data", "data"),
        ("02", "filtering", "filter"),
        ("02b", "distilling", "distill"),
    ):
        if not is_finished(run_.stage_folder(stage)):
            add(what, command)
    trained = {arm for stage in ("03", "04") for arm in finished_in(run_.stage_folder(stage))}
    for arm in ARMS[1:]:
        if arm not in trained:
            add(f"training of {arm}", f"{'sft' if arm_stage(arm) == '03' else 'grpo'} --arm {arm}")
    for arm in ("base", *sorted(trained)):
        if arm not in arms:
            add(f"evaluation of {arm}", f"eval --arm {arm}")
    controlled = finished_in(run_.folder / STAGES["05b"])
    for arm in arms:
        if arm not in controlled:
            add(f"controls of {arm}", f"controls --arm {arm}")
    return said


def _without_comparison(rows: Sequence[dict]) -> list[str]:
    first = rows[0]
    said = [
        f"{first['arm']} is right on {percent(first['macro'])} % (95 % interval {percent_span(first['interval'])}) of "
        f"{questions_and_answers(first)}."
    ]
    missing = "no trained arm" if first["arm"] == "base" else "the base"
    return [*said, f"Nothing can be said of what training changed, since {missing} was not evaluated."]


def _told(gain: dict) -> str:
    ends = " to ".join(f"{100 * end:+.1f}" for end in gain["interval"])
    seen = f"{100 * gain['difference']:+.1f} points of macro accuracy"
    return f"{seen} (95 % paired interval {ends}; {_p(gain['p_holm'], True)})"


def _each(gains: Sequence[dict]) -> str:
    return "; ".join(f"{gain['arm']}, {_told(gain)}" for gain in gains)


def _p(value: float, named: bool = False) -> str:
    text = "< 0.001" if value < 0.001 else f"{value:.3f}"
    return text if not named else f"p {text}" if text.startswith("<") else f"p = {text}"


def _names(gains: Sequence[dict]) -> str:
    *others, last = (g["arm"] for g in gains)
    return f"{', '.join(others)} and {last}" if others else last


def _how_sure(number: int) -> str:
    corrected = f"p-values are corrected for {number} comparisons (Holm). " if number > 1 else ""
    return (
        f"{corrected}Intervals and p-values speak of other questions of this kind; each arm was trained once, and how "
        "much another training seed would change is not in them."
    )
