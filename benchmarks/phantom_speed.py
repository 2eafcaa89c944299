"""How fast the embedded world is: questions a second on one core, and the cold start to one answered image question.

python benchmarks/phantom_speed.py --out benchmarks/phantom_speed.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

COLD = """
from medvlt_lib.models.loading import load_model
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.models.loading import shipped
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
engine = TransformersEngine(load_model(shipped("base")), load_processor(shipped("base")))
print(next(iter(engine.generate(prompts_of(make_questions("bleed_type", "test", 1)), Sampling(temperature=0)))).text)
"""
MAKING = """
import time
from medvlt_lib.phantom.questions import make_questions
make_questions("{family}", "train", 16)
start = time.perf_counter()
make_questions("{family}", "train", {n}, seed=1)
print({n} / (time.perf_counter() - start))
"""


def repeat(code: str, runs: int) -> tuple[list[float], list[str]]:
    """Wall seconds and output of `runs` fresh processes."""
    times, outputs = [], []
    for _ in range(runs):
        start = time.perf_counter()
        outputs.append(
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        )
        times.append(time.perf_counter() - start)
    return times, outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", help="where to record the result (JSON)")
    arguments = parser.parse_args()
    record: dict = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/phantom_speed.py",
        "runs": arguments.runs,
    }
    record["machine"] = platform.machine()
    record["versions"] = {n: version(n) for n in ("torch", "transformers", "pillow", "numpy")}
    for family, n in (("text", 4000), ("image", 1200)):
        _, speeds = repeat(MAKING.format(family=family, n=n), arguments.runs)
        record[f"{family}_questions_per_second"] = [round(float(s)) for s in speeds]
    record["cold_start_seconds"] = [round(t, 2) for t in repeat(COLD, arguments.runs)[0]]
    for key in ("text_questions_per_second", "image_questions_per_second", "cold_start_seconds"):
        print(f"{key}: median {statistics.median(record[key])} of {record[key]}")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
