"""How fast the tolerant grader and the leakage check are, on one core, on synthetic text.

    python benchmarks/data_speed.py --out benchmarks/data_speed.json

Grading: FORMS in equal shares, in a tag, after thinking, after prose and in a sentence, with 300 characters of prose;
and, as the hard case, every form of tests/unit/test_tolerant.py, most of which state no answer at all.
Leakage: 200,000 training against 10,000 test questions of about 330 characters, 1,000 of them planted copies with up to
4 % of their characters changed; pictures: as many perceptual hashes, 1,000 of them planted with up to 14 bits changed.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from record import parser, save

from medvlt_lib.core.memory import peak_memory_mb
from medvlt_lib.data.leakage import Fingerprint, find_leaks
from medvlt_lib.grading.grade import grade_response
from tests.grading.test_tolerant import OPTIONS, STATED, UNSTATED

FORMS = (
    "(B)",
    "B)",
    "**B**",
    "B: Lung",
    "\\boxed{B}",
    "B\nLung",
    '{"answer": "B"}',
    "$\\text{B}$",
    "The correct option is B.",
    "LUNG.",
    "not A but B",
    "Ｂ",
    "E",
    "The answer is A. No, the answer is B.",
    "A lung lesion",
)


def vocabulary(rng: random.Random, n: int) -> list[str]:
    return ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randrange(2, 11))) for _ in range(n)]


def responses(n: int, forms: list[str]) -> list[str]:
    """Responses of at least 300 characters in every form, thinking or not."""
    rng = random.Random(0)
    words = vocabulary(rng, 500)
    found = []
    for i in range(n):
        form, prose = forms[i % len(forms)], ""
        while len(prose) < 300:
            prose += rng.choice(words) + rng.choice((" ", " ", " ", ", ", ". "))
        frames = (
            f"<think>{prose}</think>\n<answer>{form}</answer>",
            f"<think>{prose}</think>\n{form}",
            f"{prose}\n{form}",
            f"{prose} The answer is {form}.",
        )
        found.append(frames[i // len(forms) % 4] if "think" not in form else f"{form} {prose}")
    return found


def speed(grader: str, rows: list[str]) -> list[int]:
    """Responses a second in five runs."""
    runs = []
    for _ in range(5):
        started = time.perf_counter()
        for response in rows:
            grade_response(response, OPTIONS, "B", grader)
        runs.append(round(len(rows) / (time.perf_counter() - started)))
    return sorted(runs)


def grading() -> dict:
    rows = responses(60_000, list(FORMS))
    hard = responses(60_000, [form for form, _ in STATED] + UNSTATED)
    assert min(map(len, rows + hard)) >= 300
    speeds = {g: speed(g, rows) for g in ("tolerant", "published", "published-medvlm-r1")} | {
        "tolerant, hard forms": speed("tolerant", hard)
    }
    pieces = (
        "<think>",
        "<answer>",
        "<answer></answer>",
        "\\boxed{",
        "The answer is not ",
        "B) ",
        "Ｂ",
        "</think><answer></answer>",
    )
    slowest = 0.0
    for piece in pieces:
        started = time.perf_counter()
        grade_response(piece * (1_000_000 // len(piece)), OPTIONS, "B", "tolerant")
        slowest = max(slowest, time.perf_counter() - started)
    return {
        "mean_characters": round(sum(map(len, rows)) / len(rows)),
        "responses_per_second": speeds,
        "slowest_hostile_megabyte_seconds": round(slowest, 3),
    }


def leakage(n_train: int, n_test: int, planted: int) -> dict:
    rng = random.Random(1)
    words = vocabulary(rng, 20_000)
    weights = [1 / (i + 10) for i in range(len(words))]

    def question(name: str, text: str, value: int) -> Fingerprint:
        return Fingerprint(name, "set", "text", text, text, (name,), (value,))

    def fresh() -> str:
        return " ".join(rng.choices(words, weights, k=rng.randrange(15, 85)))

    test = [question(f"t{i}", fresh(), rng.getrandbits(256)) for i in range(n_test)]
    train = []
    for i in range(n_train):
        if i < planted:
            text, value = list(test[i].words), test[i].hashes[0]
            for at in rng.sample(range(len(text)), int(rng.uniform(0, 0.04) * len(text))):
                text[at] = rng.choice("abcdefghij ")
            for bit in rng.sample(range(256), rng.randrange(15)):
                value ^= 1 << bit
            train.append(question(f"r{i}", "".join(text), value))
        else:
            train.append(question(f"r{i}", fresh(), rng.getrandbits(256)))
    started = time.perf_counter()
    found = list(find_leaks(train, test))
    seconds = time.perf_counter() - started
    hit = {how: {row["train_id"] for row in found if row["how"].endswith(how)} for how in ("text", "image")}
    copies = {f"r{i}" for i in range(planted)}
    return {
        "train": n_train,
        "test": n_test,
        "mean_characters": round(sum(len(t.words) for t in train) / n_train),
        "seconds": round(seconds, 1),
        "planted": planted,
        "found_of_planted": {how: len(names & copies) for how, names in hit.items()},
        "found_beside_them": {how: len(names - copies) for how, names in hit.items()},
    }


def main() -> None:
    out = parser(__doc__).parse_args().out
    checked = [leakage(50_000, 10_000, 1000), leakage(200_000, 10_000, 1000)]
    packages = ("rapidfuzz", "datasketch", "imagehash", "numpy")
    save(out, packages, "one of them used", grading=grading(), leakage=checked, peak_memory_mb=peak_memory_mb())


if __name__ == "__main__":
    main()
