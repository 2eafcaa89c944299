"""What goes wrong in a GRPO run, told from its log: each alarm names the likely cause and the setting to turn.

`alarms` looks at the rows of log.jsonl (one a step, in the names of TRL and of watched.py) and says what it sees;
`alarm_bell` says it on stderr while training goes on. No torch here.

Where the order of the questions moves the reward by itself, alarms that read learning from the reward are left out
(`MOVED_BY`): with `easy-first` it falls as questions get harder, with `online` it stays where half of the answers are
right.

That the loss is about 0 is no alarm: at the first update after sampling the ratio is 1, so the loss is minus the mean
advantage, which is 0 by construction; its gradient is not. A loss of 0 is fatal only where grad_norm is 0 as well, and
then "constant reward" or "reward without gradient" says why.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

RECENT = 10  # steps that an alarm looks back over
PATIENCE = 30  # steps before it may be said what is not learnt
LOOKS = 3  # looks at the pictures' effect that an alarm takes together; there is one every ten steps
ENOUGH = 0.95  # effective share of the tokens that another engine sampled: a stale one falls below in single steps
NO_EFFECT = 0.1  # nats a completion: another picture makes it less likely by a tenth at most

MOVED_BY = {"easy-first": {"rate too high", "nothing is learnt"}, "online": {"nothing is learnt"}}  # by grpo.order

Log = Sequence[dict[str, float]]


def alarms(log: Log, order: str = "shuffled") -> dict[str, str]:
    """The alarms that a log gives, by name; empty for a healthy run. `log`: one row of figures a training step;
    `order`: grpo.order of the run."""
    rows = [row for row in log if "reward" in row]
    if len(rows) < RECENT:
        return {}
    asked = {name: alarm for name, alarm in ALARMS.items() if name not in MOVED_BY.get(order, ())}
    return {name: sentence for name, (holds, sentence) in asked.items() if holds(rows)}


def alarm_bell(order: str = "shuffled") -> TrainerCallback:
    """A trainer callback that says each alarm once, on stderr, at the step at which it is first given."""
    from transformers import TrainerCallback

    class AlarmBell(TrainerCallback):
        said: set[str] = set()

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for name, sentence in alarms(state.log_history, order).items():
                if name not in self.said and state.is_world_process_zero:
                    self.said = {*self.said, name}
                    print(f"step {state.global_step}, {name}: {sentence}", file=sys.stderr)

    return AlarmBell()


def grpo_panels(log: Log) -> dict[str, dict[str, str]]:
    """The panels of GRPO's curves for `plots.panels`; the reward's parts have lines where there are several."""
    parts = [key for key in _first_step(log) if key.startswith("rewards/") and key.endswith("/mean")]
    reward = {"reward": "reward"}
    if len(parts) > 1:
        reward = {"reward": "weighted sum", **{key: key.split("/")[1] for key in parts}}
    return {
        "mean reward": reward,
        "groups without signal": {"frac_reward_zero_std": "share"},
        "tokens a completion": {"completions/mean_length": "mean"},
        "entropy of groups in the update, nats a token": {"entropy": "mean"},
    }


def watched_panels(log: Log) -> dict[str, dict[str, str]]:
    """`grpo_panels`, and what else the log has that is not always 0: deviation, KL, ratios, gradient norm ..."""
    parts = [key for key in _first_step(log) if key.endswith("/group_std")]
    others = {
        "deviation of the reward in a group": {key: key.split("/")[1] for key in parts},
        "share of completions": {"truncated": "truncated", "no_answer": "without an answer"},
        "KL, nats a token": {"kl": "mean"},
        "share of tokens that clipping holds": {"clip_ratio/region_mean": "mean"},
        "ratio to the probabilities before the update": {f"ratio/{name}": name for name in ("min", "mean", "max")},
        "effective share of the sampler's tokens": {"sampler/effective_share": "share"},
        "gradient norm": {"grad_norm": "norm"},
        "sampled tokens a second": {"tokens_per_second": "tokens"},
    }
    seen = {key for row in log for key, value in row.items() if value}
    return {**grpo_panels(log), **{label: lines for label, lines in others.items() if seen & set(lines)}}


def _first_step(log: Log) -> dict[str, float]:
    """The first row of a training step: before it may stand one of validation."""
    return next((row for row in log if "reward" in row), {})


def column(rows: Log, name: str) -> list[float]:
    """The figures called `name`, of the rows that have one."""
    return [float(row[name]) for row in rows if row.get(name) is not None]


def reward_is_constant(rows: Log) -> bool:
    """`live_groups` compares rewards; TRL's share looks at their deviation, which rounding may keep from 0."""
    live, alike = column(rows, "live_groups")[-RECENT:], column(rows, "frac_reward_zero_std")[-RECENT:]
    return max(live) == 0.0 if live else bool(alike) and min(alike) == 1.0


def gradient_is_zero(rows: Log) -> bool:
    spread, norms = column(rows, "reward_std")[-RECENT:], column(rows, "grad_norm")[-RECENT:]
    return bool(norms) and max(norms) == 0.0 and max(spread, default=0.0) > 0 and not reward_is_constant(rows)


def entropy_collapsed(rows: Log) -> bool:
    entropy = column(rows, "entropy")
    return len(entropy) >= 2 * RECENT and _late(entropy) < 0.1 * _early(entropy)


def lengths_are_at_the_cap(rows: Log) -> bool:
    return _late(column(rows, "completions/clipped_ratio")) > 0.5


def rate_is_too_high(rows: Log) -> bool:
    """The reward was well above what it is now, by more than chance alone may give."""
    reward = column(rows, "reward")
    windows = [reward[i : i + RECENT] for i in range(len(reward) - RECENT + 1)]
    best, last = max(windows, key=fmean), windows[-1]
    return fmean(best) > 0 and fmean(last) < 0.6 * fmean(best) and fmean(best) - fmean(last) > 2 * _chance(best, last)


def nothing_is_learnt(rows: Log) -> bool:
    return len(rows) >= PATIENCE and not _has_risen(column(rows, "reward"))


def form_is_hacked(rows: Log) -> bool:
    """Form and reward have risen; of the answers that were given, no more are right (a guess in form may be, too)."""
    form = column(rows, "well_formed")
    right = [row["correct"] / (1 - row["no_answer"]) for row in rows if row.get("no_answer", 1) < 1]
    if len(form) < PATIENCE or len(right) < 2 * RECENT or _late(form) - _early(form) < 0.1:
        return False
    return _has_risen(form, 2) and _has_risen(column(rows, "reward"), 2) and not _has_risen(right)


def pictures_do_not_matter(rows: Log) -> bool:
    effect = column(rows, "picture_effect")[-LOOKS:]
    return len(effect) == LOOKS and fmean(effect) < NO_EFFECT


def sampler_is_another_policy(rows: Log) -> bool:
    return min(column(rows, "sampler/effective_share")[-RECENT:], default=1.0) < ENOUGH


def _has_risen(values: list[float], times: float = 1) -> bool:
    """Whether the late values are above the early ones by `times` what chance alone may give, or more."""
    early, late = values[:RECENT], values[-RECENT:]
    return fmean(late) - fmean(early) >= times * _chance(early, late)


def _chance(one: list[float], other: list[float]) -> float:
    """The standard error of the difference of two windows' means."""
    return ((stdev(one) ** 2 + stdev(other) ** 2) / RECENT) ** 0.5


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
    "form hacking": (
        form_is_hacked,
        "the reward rises because more answers have the asked form, while no more of them are right; set grpo.reward "
        "to one that pays for form and answer together (published), or lower the weight of what pays for form alone.",
    ),
    "sampler is another policy": (
        sampler_is_another_policy,
        "the engine that samples gives its answers other probabilities than the model that learns from them; set "
        "grpo.sampler_base dequantized for an NF4 model, look whether weights arrive (sampler/ratio), or set "
        "grpo.sampler engine.",
    ),
    "pictures do not matter": (
        pictures_do_not_matter,
        "another question's picture makes the sampled answers just as likely, so the policy answers from the words; "
        "look whether the pictures are large enough (model.max_pixels) and belong to their questions, and whether the "
        "questions can be answered without them (another data.train_image).",
    ),
}
