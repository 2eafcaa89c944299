"""What goes wrong in a GRPO run, told from its log: each alarm names the likely cause and the setting to turn.

`alarms` looks at the rows of log.jsonl (one a step, in TRL's names) and says what it sees; `alarm_bell` says it on
stderr while training goes on. That the loss is about 0 is no alarm: at the first update after sampling the ratio is
1, so the loss is minus the mean advantage, which is 0 by construction; its gradient is not. No torch here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

RECENT = 10  # steps that an alarm looks back over
PATIENCE = 30  # steps before "nothing is learnt" may be said

Log = Sequence[dict[str, float]]


def alarms(log: Log) -> dict[str, str]:
    """The alarms that a log gives, by name; empty for a healthy run. `log`: one row of figures a training step."""
    rows = [row for row in log if "reward" in row]
    if len(rows) < RECENT:
        return {}
    return {name: sentence for name, (holds, sentence) in ALARMS.items() if holds(rows)}


def alarm_bell() -> TrainerCallback:
    """A trainer callback that says each alarm once, on stderr, at the step at which it is first given."""
    from transformers import TrainerCallback

    class AlarmBell(TrainerCallback):
        said: set[str] = set()

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for name, sentence in alarms(state.log_history).items():
                if name not in self.said and state.is_world_process_zero:
                    self.said = {*self.said, name}
                    print(f"step {state.global_step}, {name}: {sentence}", file=sys.stderr)

    return AlarmBell()


def column(rows: Log, *names: str) -> list[float]:
    """The figures of the first of `names` that the rows have."""
    found = next((name for name in names if name in rows[-1]), None)
    return [float(row[found]) for row in rows if found in row] if found else []


def reward_is_constant(rows: Log) -> bool:
    share = column(rows, "frac_reward_zero_std")[-RECENT:]
    return bool(share) and min(share) == 1.0


def gradient_is_zero(rows: Log) -> bool:
    spread, norms = column(rows, "reward_std")[-RECENT:], column(rows, "grad_norm")[-RECENT:]
    return bool(norms) and max(norms) == 0.0 and max(spread, default=0.0) > 0 and not reward_is_constant(rows)


def entropy_collapsed(rows: Log) -> bool:
    entropy = column(rows, "entropy")
    return len(entropy) >= 2 * RECENT and _late(entropy) < 0.1 * _early(entropy)


def lengths_are_at_the_cap(rows: Log) -> bool:
    return _late(column(rows, "completions/clipped_ratio")) > 0.5


def rate_is_too_high(rows: Log) -> bool:
    """The reward was well above what it is now, and the policy moved in large steps."""
    reward = column(rows, "reward")
    means = [fmean(reward[i : i + RECENT]) for i in range(len(reward) - RECENT + 1)]
    return max(means) > 0 and means[-1] < 0.6 * max(means)


def nothing_is_learnt(rows: Log) -> bool:
    """After PATIENCE steps the late rewards are not above the early ones by what chance alone may give."""
    reward = column(rows, "reward")
    if len(reward) < PATIENCE:
        return False
    early, late = reward[:RECENT], reward[-RECENT:]
    noise = ((stdev(early) ** 2 + stdev(late) ** 2) / RECENT) ** 0.5
    return fmean(late) - fmean(early) < noise


def _early(values: list[float]) -> float:
    return fmean(values[:RECENT]) if values else 0.0


def _late(values: list[float]) -> float:
    return fmean(values[-RECENT:]) if values else 0.0


ALARMS: dict[str, tuple[Callable[[Log], bool], str]] = {
    "constant reward": (
        reward_is_constant,
        "every answer of every group gets the same reward, so nothing can be learnt; look at the samples: is the "
        "grader right, are questions too hard or too easy (filtering.keep_from, keep_to), does the form fit?",
    ),
    "reward without gradient": (
        gradient_is_zero,
        "rewards differ but the gradient is 0; no trained weight reaches the loss: look at model.lora and its targets, "
        "and at whether the completions are masked as truncated.",
    ),
    "entropy collapse": (
        entropy_collapsed,
        "the policy has become nearly deterministic, so groups stop differing; lower grpo.learning_rate, or set "
        "grpo.epsilon_high above grpo.epsilon.",
    ),
    "lengths at the cap": (
        lengths_are_at_the_cap,
        "more than half of the completions are cut at grpo.max_completion_length and earn nothing; raise it.",
    ),
    "rate too high": (
        rate_is_too_high,
        "the reward was much higher before; the steps are too large: a third of grpo.learning_rate, from the best "
        "checkpoint.",
    ),
    "nothing is learnt": (
        nothing_is_learnt,
        f"after {PATIENCE} steps the reward is no higher than chance explains; raise grpo.learning_rate (LoRA wants "
        "about ten times the rate of full weights), grpo.prompts or grpo.group_size.",
    ),
}
