"""What SFT looks like when it is broken on purpose: the table of an exercise in notebook 03.

    python benchmarks/broken.py --out results/broken-tiny.json

Every way of medvlt_lib/course/breaking.py is trained once, one seed, and asked 200 other questions. Two minutes or so.
"""

from __future__ import annotations

from record import parser, save

from medvlt_lib.course.breaking import ASKED, BATCH, FAMILY, RATE, STEPS, WAYS, trained


def main() -> None:
    out = parser(__doc__ or "").parse_args().out
    runs = {}
    for way in WAYS:
        runs[way] = trained(way)
        print(way, runs[way], flush=True)
    settings = {"family": FAMILY, "rate": RATE, "batch": BATCH, "steps": STEPS, "asked": ASKED}
    save(out, ("torch", "transformers"), "one thread, busy", settings=settings, runs=runs)


if __name__ == "__main__":
    main()
