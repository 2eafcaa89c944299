"""What the notebooks say of their own outputs: the words, as they stand there, and whether the metrics bear them out.

Whoever changes such a sentence changes its row, and the other way round. `whole`: it is said of a run at the profile's
full size; at smoke limits it need not hold.
"""

from collections.abc import Callable
from typing import NamedTuple

from medvlt_lib.core.files import read_json
from medvlt_lib.course.lesson import RESULTS

STYLES = read_json(RESULTS / "sft-styles-tiny.json")  # notebook 03 shows recorded runs


class Claim(NamedTuple):
    """`holds` takes the metrics that the notebook wrote."""

    notebook: str
    words: str
    holds: Callable[[dict], bool]
    whole: bool = False


def near(value: float, other: float, by: float) -> bool:
    return abs(value - other) <= by


def rises(values: list[float], by: float = 0) -> bool:
    return values[-1] > values[0] + by


def trained(m: dict, yes: bool) -> list[dict]:
    return [family for family in m["families"].values() if family["trained"] == yes]


def more(pair: list[float]) -> float:
    """How much the second of two is above the first."""
    return pair[1] - pair[0]


CLAIMS = [
    # 00
    Claim("00_start_here", "ask a small vision-language model five medical questions", lambda m: m["asked"] == 5),
    Claim("00_start_here", "In the table below the two agree", lambda m: m["verdicts_agree"]),
    Claim(
        "00_start_here",
        "All five. At temperature 1 the model answers each of them rightly now and then, and wrongly now and then.",
        lambda m: all(0 < count < 16 for count in m["pass_counts"]),
    ),
    Claim("00_start_here", "Lower, as it must be", lambda m: m["sft_loss"][1] < m["sft_loss"][0]),
    Claim("00_start_here", "B rises because B's answers come with a positive", lambda m: rises(m["bandit"], 0.5)),
    Claim(
        "00_start_here",
        "The two gradients agree, and the bars move to B.",
        lambda m: all(near(a, b, 0.01) for a, b in zip(*m["bandit_gradients"], strict=True)) and m["bandit"][-1] > 0.9,
    ),
    Claim(
        "00_start_here",
        "one right-or-wrong bit per completion was enough to push the right ones up against the wrong ones",
        lambda m: m["log_probability_change"]["right"] > m["log_probability_change"]["wrong"] + 0.5,
    ),
    Claim(
        "00_start_here",
        "Two steps on five questions move the score by a few points",
        lambda m: near(*m["accuracy"], 0.1) and m["difference_interval"][0] < 0 < m["difference_interval"][1],
        whole=True,
    ),
    # 01
    Claim("01_data", "check a gold answer yourself", lambda m: near(m["ratio"][0], float(m["ratio"][1][:-1]) / 100, 1e-6)),
    Claim("01_data", "4 × 4 = 16.", lambda m: m["tokens"]["picture"] == 16 == m["card"]["test"]["image_tokens"]["max"]),
    Claim(
        "01_data",
        "The words and the picture are counted as in section 3.",
        lambda m: sum(m["tokens"][part] for part in ("words", "picture", "template")) == m["tokens"]["all"]
        and m["tokens"]["words"] <= m["card"]["train_image"]["prompt_tokens"]["max"]
        and near(m["tokens"]["words"], m["card"]["train_image"]["prompt_tokens"]["median"], 8),
    ),
    Claim(
        "01_data",
        "There are fewer pictures than image questions",
        lambda m: 0 < m["card"]["train_image"]["images"] < m["questions"]["train_image"],
    ),
    Claim(
        "01_data",
        "A and B are commoner than E",
        lambda m: all(min(own["A"], own["B"]) > own.get("E", 0) for own in m["gold_letters"].values()),
        whole=True,
    ),
    Claim(
        "01_data",
        "It finds no copy, but a few look-alikes",
        lambda m: 0 < len(m["leaks"]) < 20
        and all(how.startswith("near") and 90 < score <= 100 for how, score in m["leaks"]),
        whole=True,
    ),
    Claim(
        "01_data",
        "some drawn eyes are nearly alike",
        lambda m: {how for how, _ in m["leaks"]} == {"near text", "near image"},
        whole=True,
    ),
    Claim(
        "01_data",
        "A score says how alike two questions are: 100 is equal.",
        lambda m: all(95 <= score <= 100 for _, score in m["planted_leaks"].values()),
    ),
    Claim(
        "01_data",
        "Both are found.",
        lambda m: {name: how for name, (how, _) in m["planted_leaks"].items()}
        == {"words": "near text", "picture": "near image"}
        and m["planted_words"] == [True],
    ),
    Claim(
        "01_data",
        "every rule lies within noise of chance, at most three points away from it",
        lambda m: all(abs(points) <= 3 for points in m["above_chance"].values()),
        whole=True,
    ),
    Claim("01_data", "makes a share of *training* labels wrong", lambda m: m["wrong_labels"] == 0.3 * 200),
    Claim("01_data", "so it is 0 at", lambda m: near(m["slopes"]["75 %"], 0, 1e-9)),
    Claim(
        "01_data",
        "At 20 % of wrong labels the signal is weaker but points the right way",
        lambda m: 0 < m["slopes"]["20 %"] < m["slopes"]["0 %"] == 1,
    ),
    Claim(
        "01_data",
        "spoil four rows as real ones are spoiled",
        lambda m: m["cleaning"]["read"] - m["cleaning"]["kept"] == 4 == sum(m["cleaning"]["dropped"].values()),
    ),
]
