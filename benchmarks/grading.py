"""How fast the tolerant grader and `medvlt grade` are, on one core, beside another version of this repository.

    python benchmarks/grading.py --out benchmarks/grading.json --before OLD_CHECKOUT

Both versions run in turn, three times, in processes of their own, and the processor's time is counted, so that other
work on the machine matters little. `responses of 1 KB`: 960 characters of prose with the answer in a tag, in a box, in
a sentence, on a line, behind thinking, or nowhere, in equal shares. `medvlt grade`: the command with its start-up on a
file of 100,000 short rows. `hostile`: the slowest megabyte of pieces that trip expressions, and a quarter of it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import parser, save

ROUNDS, RESPONSES, ROWS = 3, 6_000, 100_000
OPTIONS = {"A": "Heart", "B": "Lung", "C": "Liver", "D": "Small bowel, distal"}
FRAMES = (
    "<think>{p}</think>\n<answer>{k}</answer>",
    "{p}\n\nThe correct answer is {k}. {t}",
    "{p}\n\n**Answer:** ({k}) {t}",
    "{p} \\boxed{{{k}}}",
    "{p}\n\n{k}. {t}",
    "{p}",
)
SHORT = ("<answer>{k}</answer>", "The answer is {k}.", "{k}", "**Answer:** {k}. {t}", "\\boxed{{{k}}}")
HOSTILE = ("<think>", "<answer>", "\\boxed{", "The answer is not ", "B) ", "Ｂ", "no wait, ", "\nQuestion: ",
           "A. x\nB. y\n", '{"answer": "', "</think><answer></answer>", "答案是", "is correct ", "\n")  # fmt: skip
WORDS = "the a patient film shows shadow of in and with age fever left right dark bright normal since was option answer"


def filled(frame: str, rng: random.Random, prose: str = "") -> str:
    letter = rng.choice("ABCD")
    return frame.format(p=prose, k=letter, t=OPTIONS[letter])


def function() -> dict:
    """Responses a second of processor time, and the seconds of hostile text (in a process of its own)."""
    from medvlt_lib.grading.tolerant import tolerant_answer

    rng = random.Random(0)
    words = WORDS.split()
    prose = [" ".join(rng.choice(words) for _ in range(400))[:960] for _ in range(RESPONSES)]
    rows = [filled(FRAMES[i % len(FRAMES)], rng, prose[i]) for i in range(RESPONSES)]
    started = time.process_time()
    answers = sum(tolerant_answer(row, OPTIONS)[0] is not None for row in rows)
    speed = RESPONSES / (time.process_time() - started)
    hostile = {}
    for piece in HOSTILE:
        for size in (250_000, 1_000_000):
            started = time.process_time()
            tolerant_answer(piece * (size // len(piece)), OPTIONS)
            hostile.setdefault(piece, []).append(round(time.process_time() - started, 3))
    return {"speed": round(speed), "answers": answers, "hostile": max(hostile.values(), key=lambda pair: pair[1])}


def command(tree: Path, rows: Path) -> int:
    """Rows a second of processor time of `medvlt grade`, start-up and all."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "medvlt_lib", "grade", str(rows), "--grader", "tolerant", "--out", f"{folder}/out.jsonl"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], env=environment(tree), cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(ROWS / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


def measured(trees: dict[str, Path]) -> dict:
    found: dict[str, dict] = {name: {"responses of 1 KB": [], "medvlt grade": []} for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        rows, rng = Path(folder) / "rows.jsonl", random.Random(1)
        with open(rows, "w", encoding="utf-8") as file:
            for i in range(ROWS):
                row = {"id": f"q{i}", "response": filled(SHORT[i % len(SHORT)], rng)}
                file.write(json.dumps({**row, "options": OPTIONS, "answer_label": "B"}) + "\n")
        for _ in range(ROUNDS):
            for name, tree in trees.items():
                one = [sys.executable, __file__, "--one"]
                done = subprocess.run(one, env=environment(tree), check=True, capture_output=True, text=True)
                figures = json.loads(done.stdout)
                found[name]["responses of 1 KB"].append(figures["speed"])
                found[name]["answers read"] = figures["answers"]
                found[name]["hostile, seconds of a quarter and of a megabyte"] = figures["hostile"]
                found[name]["medvlt grade"].append(command(tree, rows))
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--before", type=Path, help="a checkout of the version to compare with")
    arguments = made.parse_args()
    trees = {"before": arguments.before.resolve()} if arguments.before else {}
    trees["now"] = Path(__file__).resolve().parents[1]
    save(arguments.out, ("rapidfuzz",), "one of them used, beside other work; seconds of processor time",
         responses_with_an_answer=RESPONSES * 5 // 6, per_second=measured(trees))  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(function())) if sys.argv[1:] == ["--one"] else main()
