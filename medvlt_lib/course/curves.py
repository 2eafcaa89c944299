"""Five small GRPO trainings for the exercise on reading curves, each with one cause.

The policy is a linear softmax over four options for each of 40 made-up questions, so that a training takes
milliseconds; it is done when it is asked for.
"""

from __future__ import annotations

import numpy as np

CAUSES = ("healthy", "rate too high", "sign turned round", "all rewards equal", "another thing rewarded")
# Of each run its cause, and where to look when it is taken for another.
RUNS = {
    "A": ("sign turned round", "compare where the reward begins, at guessing, with where it goes."),
    "B": ("another thing rewarded", "its reward does one thing, and the right answers do another."),
    "C": ("healthy", "follow its reward and its right answers from the start to the end."),
    "D": ("all rewards equal", "how large is its gradient, and does its entropy ever move?"),
    "E": ("rate too high", "what happens to its entropy in the very first steps?"),
}
_RATES = {"rate too high": 3000.0}
_RATE, _QUESTIONS, _FEATURES, _PROMPTS, _GROUP = 6.0, 40, 12, 8, 8


def trained(run: str, steps: int = 40, seed: int = 0) -> dict[str, list[float]]:
    """The curves of one run, one value a step.

    Shares: reward, right answers, silent groups. Entropy of the policy in nats; norm of the gradient.
    """
    cause, _ = RUNS[run]
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(_QUESTIONS, _FEATURES)) / _FEATURES**0.5
    gold = (features @ rng.normal(size=(_FEATURES, 4))).argmax(1)
    weights = np.zeros((_FEATURES, 4))
    seen = {"reward": [], "right answers": [], "silent groups": [], "entropy": [], "gradient norm": []}
    for _ in range(steps):
        asked = rng.choice(_QUESTIONS, _PROMPTS, replace=False)
        p = np.exp(_log_softmax(features[asked] @ weights))  # (prompts, 4)
        picks = np.array([rng.choice(4, _GROUP, p=row) for row in p])  # (prompts, G)
        right = (picks == gold[asked][:, None]).astype(float)
        rewards = _rewards(cause, picks, right)
        deviation = rewards.std(1, ddof=1, keepdims=True)
        advantages = (rewards - rewards.mean(1, keepdims=True)) / (deviation + 1e-4)
        if cause == "sign turned round":
            advantages = -advantages
        scores = np.eye(4)[picks] - p[:, None]  # of log p, with respect to the logits
        gradient = np.einsum("qf,qgk,qg->fk", features[asked], scores, advantages) / picks.size
        weights += _RATES.get(cause, _RATE) * gradient
        entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(1).mean()
        figures = (rewards.mean(), right.mean(), (deviation == 0).mean(), entropy, np.linalg.norm(gradient))
        for values, figure in zip(seen.values(), figures, strict=True):
            values.append(float(figure))
    return seen


def _rewards(cause: str, picks: np.ndarray, right: np.ndarray) -> np.ndarray:
    if cause == "all rewards equal":
        return np.zeros_like(right)
    return (picks == 1).astype(float) if cause == "another thing rewarded" else right


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
