"""A made-up result of a cell, for tests of what is made of results."""

from random import Random

from medvlt_lib.phantom.questions import FAMILIES


def made_up_result(
    label: str, seed: int, share: float, questions: int = 50, profile: str = "tiny"
) -> tuple[dict, list[dict]]:
    """A result and its answers: in every family about this share of them right, the same in none of two seeds."""
    result = {
        "format": 1, "key": f"{label}-s{seed}-0000{profile}", "label": label, "arm": label.partition(".")[0],
        "seed": seed, "profile": profile, "looks": ["greedy"], "seconds": {"training": 60.0, "all": 66.0},
    }  # fmt: skip
    rng, rows = Random(f"{label} {seed}"), []
    for family in FAMILIES:
        right = round(share * questions) + rng.choice([-1, 0, 1])
        for number in range(questions):
            row = {"look": "greedy", "id": f"{family}-{number}", "sample": 0, "dataset": family, "letter": "A"}
            rows.append({**row, "correct": number < right, "modality": FAMILIES[family].modality})
    return result, rows
