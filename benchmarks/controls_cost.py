"""What `medvlt controls` costs an arm, and what it finds, on the reference run that ships with the package.

    python benchmarks/controls_cost.py --out benchmarks/controls_cost.json

Six controls of 100 image questions each. Seconds of the processor are those of asking, grading and scoring, with the
weights' loading, without the start of Python; seconds of the clock depend on what else the machine does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from record import parser, save


def main() -> None:
    arguments = parser(__doc__).parse_args()
    from medvlt_lib.core.runs import open_run
    from medvlt_lib.course.lesson import REFERENCE
    from medvlt_lib.stages import controls, evaluate

    arms = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(REFERENCE, Path(folder) / "reference")
        run = open_run(None, "reference", root=Path(folder))
        for arm in evaluate.finished_arms(run):
            began, clock = time.process_time(), time.monotonic()
            rows = controls.run(run, arm)[arm]
            arms[arm] = {
                "processor_seconds": round(time.process_time() - began, 1),
                "clock_seconds": round(time.monotonic() - clock, 1),
                "controls": [{key: value for key, value in row.items() if key != "explanation"} for row in rows],
            }
            print(arm, arms[arm]["processor_seconds"], arms[arm]["clock_seconds"], flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as are free")
    save(arguments.out, ("torch", "transformers"), f"beside other work, threads: {threads}", questions=100, arms=arms)


if __name__ == "__main__":
    main()
