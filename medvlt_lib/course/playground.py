"""The playground of notebooks 02 and 04: one group's rewards, advantages and clipped objective, drawn.

Arithmetic and drawing are plain functions here; `playing.py` puts sliders and buttons on them.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from medvlt_lib.core.plot_style import BLUE, GREEN, GREY, ORANGE, RED
from medvlt_lib.core.sections import Grpo
from medvlt_lib.training import by_hand


@dataclass(frozen=True)
class Group:
    """The completions of one question: a reward each, and of each its tokens with their ratios (none where it is made
    up)."""

    rewards: list[float]
    tokens: list[list[str]]
    ratios: list[list[float]]


def drawn(p: float, size: int, seed: int = 0) -> Group:
    """A made-up group: `size` completions, each right (reward 1, else 0) with probability `p`.

    With the same seed a higher `p` turns wrong completions right, and never the other way round.
    """
    rewards = (np.random.default_rng(seed).random(size) < p).astype(float).tolist()
    return Group(rewards, [[] for _ in rewards], [[] for _ in rewards])


def silent_share(p: float, size: int) -> float:
    """The share of groups of `size` whose completions are all right or all wrong: they teach nothing."""
    return p**size + (1 - p) ** size


def advantages(rewards: Sequence[float]) -> list[float]:
    """The advantages of one group, one a completion."""
    return by_hand.group_advantages(torch.tensor([[float(reward) for reward in rewards]]))[0].tolist()


def objective(ratios: Sequence[float], advantage: float, epsilon: float) -> list[float]:
    """What a token of each of these ratios adds to the objective, in a completion of this advantage; without KL."""
    settings = Grpo(learning_rate=1e-6, epsilon=epsilon)
    one, gain = torch.ones(1, 1, dtype=torch.bool), torch.tensor([advantage])
    tokens = torch.tensor(ratios, dtype=torch.float64).log()
    return [
        -by_hand.policy_loss(token.view(1, 1), torch.zeros(1, 1), None, gain, one, settings)[0].item()
        for token in tokens
    ]


def pushes(ratio: float, advantage: float, epsilon: float) -> bool:
    """Whether a token still moves the policy: its advantage is not 0, and clipping does not hold it."""
    return advantage != 0 and not (ratio > 1 + epsilon if advantage > 0 else ratio < 1 - epsilon)


def told(group: Group, chosen: int) -> str:
    """The arithmetic of one completion's advantage, as a sentence."""
    own, all_ = group.rewards[chosen], advantages(group.rewards)
    mean, deviation = float(np.mean(group.rewards)), float(np.std(group.rewards, ddof=1))
    if deviation == 0:
        return f"All {len(all_)} rewards are {own:g}: every advantage is 0, and this group teaches nothing."
    sum_ = f"({own:g} − {mean:.2f}) / {deviation:.2f} = {all_[chosen]:+.2f}"
    return f"Completion {chosen + 1}: reward {own:g}, the group's mean {mean:.2f}, deviation {deviation:.2f}; {sum_}."


def draw_group(group: Group, chosen: int, p: float) -> Figure:
    """Left, how many groups of this size are silent at every p, with a dot at `p`; right, the group's advantages."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6])
    size, line = len(group.rewards), np.linspace(0, 1, 101)
    left.plot(line, [silent_share(x, size) for x in line], color=BLUE)
    left.plot(p, silent_share(p, size), "o", color=RED)
    left.set(xlabel="p: how often it is right", ylabel="groups without signal", ylim=(-0.03, 1.03))
    left.set_title(f"G = {size}: {100 * silent_share(p, size):.1f} % are silent", fontsize=10)
    _bars(right, group, chosen)
    return figure


def draw_objective(group: Group, chosen: int, epsilon: float) -> Figure:
    """Left, the group's advantages; right, the clipped objective of the chosen completion, a dot for each token."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    _bars(left, group, chosen)
    own, ratios = advantages(group.rewards)[chosen], group.ratios[chosen]
    line = np.linspace(0.4, 1.6, 61).tolist()
    right.axvspan(1 - epsilon, 1 + epsilon, color=GREY, alpha=0.25)
    right.plot(line, objective(line, own, epsilon), color=BLUE)
    colours = [ORANGE if pushes(ratio, own, epsilon) else GREY for ratio in ratios]
    right.scatter(
        ratios, objective(ratios, own, epsilon), c=colours, s=22, zorder=3, edgecolors="black", linewidths=0.4
    )
    right.set(xlabel="ratio of a token", ylabel="objective", xlim=(0.4, 1.6))
    held = sum(not pushes(ratio, own, epsilon) for ratio in ratios)
    right.set_title(f"A = {own:+.2f}: {held} of {len(ratios)} tokens held", fontsize=10)
    return figure


def _bars(axis, group: Group, chosen: int) -> None:
    """The advantages of a group: green where the reward is above the group's mean, red where it is not."""
    values, mean = advantages(group.rewards), np.mean(group.rewards)
    colours = [GREEN if reward > mean else RED for reward in group.rewards]
    edges = ["black" if i == chosen else "none" for i in range(len(values))]
    axis.bar(range(1, len(values) + 1), values, color=colours, edgecolor=edges, linewidth=2)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(xlabel="completion (green: above the mean)", ylabel="advantage")
    axis.set_title(f"rewards {sum(group.rewards):g} of {len(values)}, advantages sum to 0", fontsize=10)


def tokens_html(group: Group, chosen: int, epsilon: float) -> str:
    """The chosen completion's tokens: the redder, the rarer they have become, the bluer, the likelier; underlined where
    clipping holds them. The ratio stands in each token's tip."""
    own, boxes = advantages(group.rewards)[chosen], ""
    for token, ratio in zip(group.tokens[chosen], group.ratios[chosen], strict=True):
        red, green, blue = (0, 114, 178) if ratio > 1 else (213, 94, 0)
        strength = min(0.75, 2 * abs(ratio - 1))
        line = "none" if pushes(ratio, own, epsilon) else "underline 2px black"
        style = f"background:rgba({red},{green},{blue},{strength:.2f});text-decoration:{line};white-space:pre-wrap"
        boxes += f"<span title='ratio {ratio:.3f}' style='{style}'>{html.escape(token)}</span>"
    return f"<div style='font-family:monospace;line-height:1.7;text-align:left'>{boxes}</div>"
