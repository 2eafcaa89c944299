"""How long `medvlt compare` takes on a million graded rows, and how much memory; and `medvlt scores` on one file.

    python benchmarks/compare_scale.py --out benchmarks/compare_scale.json

Two parquet files of 1,000,000 rows each, as `medvlt eval` writes them: six data sets of unequal size, pictures with
several questions, one answer a question; for `scores` also 62,500 questions with 16 answers each. Each command is a
process of its own with its start-up, on one thread; clock seconds depend on what else the machine does. Memory is the
largest resident size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import parser, save

ROWS, SAMPLES = 1_000_000, 16
SHARES = [0.41, 0.24, 0.24, 0.06, 0.03, 0.02]  # of the six sets


def written(path: Path, seed: int, skill: float, samples: int = 1) -> Path:
    """A file of answers: questions that share a picture go alike."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    questions = ROWS // samples
    shared = np.random.default_rng(0)  # the same questions in every file
    pictures = np.sort(shared.integers(0, questions // 2, questions))
    sets = shared.choice(6, questions // 2, p=SHARES)[pictures]
    luck = shared.normal(0, 0.15, questions // 2)[pictures]
    rng = np.random.default_rng(seed)
    right = rng.random((questions, samples)) < np.clip(skill + luck, 0.02, 0.98)[:, None]
    letters = np.where(right, "A", np.array(list("BCD"))[rng.integers(0, 3, right.shape)])
    ids = np.array([f"question-{i}" for i in range(questions)])
    columns = {
        "id": np.repeat(ids, samples),
        "sample": np.tile(np.arange(samples), questions),
        "dataset": np.repeat(np.array([f"set-{i}" for i in range(6)])[sets], samples),
        "cluster": np.repeat(np.array([f"picture-{i}" for i in range(questions // 2)])[pictures], samples),
        "letter": letters.ravel(),
        "correct": right.ravel(),
        "options": np.full(right.size, 4),
    }
    pq.write_table(pa.table(columns), path)
    return path


CHILD = """
import resource, sys
from medvlt_lib.__main__ import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def measured(folder: Path, *arguments: str) -> dict:
    """Seconds and peak memory of one command, and what it wrote."""
    out = folder / "found.json"
    started, before = time.monotonic(), os.times()
    command = [sys.executable, "-c", CHILD, *arguments, "--json", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    seconds, after = round(time.monotonic() - started, 1), os.times()
    used = round(sum(after[2:4]) - sum(before[2:4]), 1)
    peak = round(int(done.stderr.splitlines()[-1]) / 1e6, 2)
    found = json.loads(out.read_text())
    return {"clock_seconds": seconds, "processor_seconds": used, "peak_gb": peak, "found": found}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [str(written(folder / f"{i}.parquet", i, 0.55 + 0.002 * i)) for i in (1, 2)]
        figures = {"compare, two files of 1,000,000 rows": measured(folder, "compare", *files)}
        figures["scores, one file of 1,000,000 rows"] = measured(folder, "scores", files[0])
        several = written(folder / "sampled.parquet", 3, 0.55, SAMPLES)
        figures["scores, 62,500 questions with 16 answers each"] = measured(folder, "scores", str(several))
    overall = figures["compare, two files of 1,000,000 rows"]["found"]["rows"][0]
    for own in figures.values():
        del own["found"]
    save(arguments.out, ("numpy", "scipy", "pandas", "pyarrow"), "beside other work", commands=figures,
         overall={key: overall[key] for key in ("questions", "difference", "low", "high", "p", "exact_p")})  # fmt: skip


if __name__ == "__main__":
    main()
