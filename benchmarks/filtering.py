"""What the adaptive mode saves and costs, and how fast many rollouts are counted.

    python benchmarks/filtering.py --out benchmarks/filtering.json

Adaptive: the training questions of the profile tiny, asked in full and adaptively, for the published band (1 to 7 of
16) and the profile's own, at several stated errors; every answer is the one that full sampling gives, so
decisions compare.
Counting: 100,000 questions x 16 synthetic rollouts of 300 characters, read from their files, counted, summarised,
written.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import parser, save

from medvlt_lib.core.memory import peak_memory_mb

COUNTING = """
import json, random, sys, time
from collections import defaultdict
from pathlib import Path
from medvlt_lib.stages import filtering
from medvlt_lib.core.config import load_profile
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.rollout.parts import parts_of, rows_of
folder, n = Path(sys.argv[1]), int(sys.argv[2])
profile = load_profile("tiny")
fixed = ("train", "text", "?", {"A": "x", "B": "y"}, "A", "x")
write_questions((Question(f"q{i}", f"set{i % 6}", *fixed) for i in range(n)), folder / "q.parquet")
started = time.perf_counter()
questions = QuestionFiles([folder / "q.parquet"])
counts = filtering.count(rows_of(parts_of(folder, questions, filtering.PART["full"])))
figures = filtering.posterior(counts, 8)
rows = questions.columns("id", "dataset", "family", "modality")
metrics = filtering.summary(rows, counts, figures, profile)
filtering.write_counts(folder / "pass_counts.parquet", rows, counts, figures)
kept = filtering.keep([row["id"] for row in rows], counts, profile.filtering)
seconds = round(time.perf_counter() - started, 1)
print(json.dumps({"seconds": seconds, "rollouts": metrics["rollouts"], "kept": len(kept)}))
"""


def counting(questions: int) -> dict:
    """Time and memory of counting, in a process of its own."""
    import random

    from medvlt_lib.rollout.parts import PROVENANCE
    from medvlt_lib.stages.filtering import PART

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        provenance = dict.fromkeys(PROVENANCE, "a value of some length")
        for number, start in enumerate(range(0, questions, PART["full"])):
            rows = []
            for i in range(start, min(start + PART["full"], questions)):
                for k in range(16):
                    row = {
                        "id": f"q{i}",
                        "sample": k,
                        "passed": rng.random() < i % 17 / 16,
                        "letter": "A",
                        "truncated": False,
                        "text": "x" * 300,
                    }
                    rows.append(json.dumps({**row, **provenance}))
            (folder / f"part-{number:05d}.jsonl").write_text("\n".join(rows) + "\n")
        environment = {**os.environ, "TQDM_DISABLE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", COUNTING, name, str(questions)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    peak = peak_memory_mb(resource.RUSAGE_CHILDREN)
    return {"questions": questions, **json.loads(done.stdout), "peak_memory_mb": peak}


def adaptive() -> list[dict]:
    """Full and adaptive probes of the same questions: rollouts and time saved, and decisions that agree."""
    from medvlt_lib.core.config import load_profile
    from medvlt_lib.data.sources import load_set
    from medvlt_lib.rollout.build import build_engine
    from medvlt_lib.stages.filtering import PART, adaptive_rollouts, count, full_rollouts, in_band

    base = load_profile("tiny")
    questions = [q for name in ("train_text", "train_image") for q in load_set(name, base.data)]
    engine = build_engine(base)
    rows = []

    def timed(profile):
        started, size = time.perf_counter(), PART[profile.filtering.mode]
        roll_out = adaptive_rollouts if profile.filtering.mode == "adaptive" else full_rollouts
        chunks = [questions[i : i + size] for i in range(0, len(questions), size)]
        counts = count(row for chunk in chunks for row in roll_out(engine, chunk, profile))
        return counts, time.perf_counter() - started

    full, seconds = timed(base)
    for low, high in ((1, 7), (1, 12)):
        for error in (0.02, 0.05, 0.1):
            settings = {
                "filtering.mode": "adaptive",
                "filtering.error": error,
                "filtering.keep_from": low,
                "filtering.keep_to": high,
            }
            counts, took = timed(load_profile("tiny", settings))
            inside = {q.id: in_band(counts[q.id].passed, counts[q.id].samples, 16, low, high) >= 0.5 for q in questions}
            agree = sum(inside[q.id] == (low <= full[q.id].passed <= high) for q in questions)
            asked = sum(c.samples for c in counts.values())
            rows.append(
                {
                    "band": [low, high],
                    "stated_error": error,
                    "rollouts_saved": round(1 - asked / (16 * len(questions)), 3),
                    "same_decision": round(agree / len(questions), 4),
                    "seconds": round(took, 1),
                    "seconds_in_full": round(seconds, 1),
                }
            )
    return rows


def main() -> None:
    out = parser(__doc__).parse_args().out
    save(out, ("torch", "transformers", "scipy"), "", counting=counting(100_000), adaptive=adaptive())


if __name__ == "__main__":
    main()
