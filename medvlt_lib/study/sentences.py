"""What the studies found in whole sentences, made from their verdicts. The README and notebooks 04 and 06 show them as
they come from here, so that no sentence says more than the runs. No torch here."""

from __future__ import annotations

from pathlib import Path

from medvlt_lib.study.findings import CANNOT_TELL, DOES_NOT, HOLDS, NOT_RUN, Verdict, claims_file, kept_verdicts
from medvlt_lib.study.results import SHIPPED

ENDS = {
    HOLDS: "so it carries over here",
    DOES_NOT: "so it does not carry over here by more than the {matters:.0f} points that matter",
    CANNOT_TELL: "so these runs cannot tell whether it carries over",
}


def carries_over(folder: Path = SHIPPED) -> str:
    """Whether the habit of working, which RL on text rewards, carries over to pictures: the verdicts of the study
    `habit` on the share of answers to pictures that state a working."""
    habit = kept_verdicts(folder)["habit"]
    found = {(v.claim["a"]["arm"], v.claim["b"]["arm"]): v for v in habit if v.claim["a"].get("measure") == "works"}
    said = ["After RL on text with all weights trained, the share of answers to pictures that state a working"]
    said.append(f"{_change(found['rl_text', 'base'])};")
    said.append(f"with LoRA it {_change(found['rl_text.lora', 'base'])}.")
    against = found["rl_text", "sft_text"]
    if against.verdict != NOT_RUN:
        more = "more" if against.mean > 0 else "less"
        change = f"RL changes it by {_points(against.mean)} points {more} than SFT on text does {_span(against)}."
        said.append(f"With all weights, {change}")
    return " ".join(said)


def _change(v: Verdict) -> str:
    """How a share changed against the base, and whether that counts."""
    if v.verdict == NOT_RUN:
        return "was not measured (medvlt study habit)"
    moves = "rises" if v.mean > 0 else "falls"
    end = ENDS[v.verdict].format(matters=100 * claims_file()["matters"])
    return f"{moves} by {_points(v.mean)} points {_span(v)}, {end}"


def _points(share: float) -> str:
    return f"{abs(100 * share):.1f}"


def _span(v: Verdict) -> str:
    return f"(95 % interval {100 * v.low:+.1f} to {100 * v.high:+.1f}, {v.seeds} seeds)"


def verdict_line(v: Verdict) -> str:
    """A claim with its verdict and figures, as one line of text."""
    if v.verdict == NOT_RUN:
        return f"{v.claim['claim']}: {NOT_RUN} ({v.seeds} of {claims_file()['seeds']} seeds)"
    return f"{v.claim['claim']}: {v.verdict}, {100 * v.mean:+.1f} points {_span(v)}"
