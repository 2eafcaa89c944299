"""Run the course's notebooks in order through papermill, as a learner or a CI job would, and record what they took.

A notebook counts as done when its last cell has written its metrics file; a failing cell, `sys.exit` in a cell, a dead
kernel, an unknown parameter or a missing metrics file is an error that names notebook and cell. Started again, the
course goes on after the last finished notebook.
"""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.runs import Run, open_run
from medvlt_lib.course.lesson import NOTEBOOKS, expected


def notebooks(first: str | None = None, last: str | None = None, folder: Path = NOTEBOOKS) -> list[Path]:
    """The course's notebooks from number `first` to `last` ('03'). Raises UserError when there is none."""
    found = [p for p in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if (first or "00") <= p.name[:2] <= (last or "99")]
    if not found:
        numbers = f"from {first or '00'} to {last or '06'}"
        raise UserError(f"there is no notebook {numbers} in {folder}; choose from 00 to 06.")
    return found


def run_course(
    profile: str | None,
    name: str | None,
    first: str | None = None,
    last: str | None = None,
    parameters: dict[str, Any] | None = None,
    folder: Path = NOTEBOOKS,
) -> Run:
    """Execute the notebooks into runs/<name>/notebooks; returns the run.

    `parameters` go to each notebook's parameters cell (SETTINGS, SEED, USE_REFERENCE, ...). Raises UserError that names
    notebook and cell.
    """
    run = open_run(profile, name, (parameters or {}).get("SETTINGS"))  # a wrong key stops before any kernel starts
    profile = run.profile.profile
    values = {"PROFILE": profile, "RUN": run.folder.name, **(parameters or {})}
    out = run.folder / "notebooks"
    out.mkdir(parents=True, exist_ok=True)
    for path in notebooks(first, last, folder):
        done_with = out / f"{path.stem}.parameters.json"
        if (out / f"{path.stem}.metrics.json").exists() and done_with.exists() and read_json(done_with) == values:
            print(f"{path.stem}: done before", flush=True)
            continue
        write_json(done_with, values)
        record = run_notebook(path, out, values, expected(path.stem, profile))
        _record(run, path.stem, record)
        print(
            f"{path.stem}: {record['seconds']:.0f} s, of which {record['compute_seconds']:.0f} s model compute; "
            f"{record['peak_memory_mb']} MB",
            flush=True,
        )
    return run


def run_notebook(path: Path, out: Path, parameters: dict[str, Any], record: dict | None = None) -> dict:
    """Execute one notebook into `out`; returns its seconds, the seconds of its cells tagged compute, and its memory."""
    import logging

    import papermill
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    papermill_engines.register("redrawing", _redrawing_engine())
    known = papermill.inspect_notebook(str(path))
    if unknown := sorted(set(parameters) - set(known)):
        raise UserError(f"{path.stem} has no parameter {unknown[0]}; its parameters are {', '.join(known)}.")
    os.environ["MEDVLT_HEADLESS"] = "1"  # the playground is a figure then, see core/widgets.py
    metrics, executed = out / f"{path.stem}.metrics.json", out / path.name
    metrics.unlink(missing_ok=True)
    about = f" (recorded: {record['seconds']:.0f} s)" if record else ""
    bar = {"desc": f"{path.stem}{about}", "bar_format": "{desc}: {n_fmt}/{total_fmt} cells |{bar:20}| {elapsed}"}
    started = time.monotonic()
    with open(out / f"{path.stem}.stderr", "w", encoding="utf-8") as errors:
        try:
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters,
                kernel_name="python3",
                progress_bar=bar,
                stderr_file=errors,
                cwd=str(Path.cwd()),
                coalesce_streams=True,
                extra_arguments=["--IPKernelApp.log_level=50"],
                engine_name="redrawing",
                store_widget_state=False,  # GitHub refuses to show a notebook that holds it
            )
        except PapermillExecutionError as error:
            what = f"{error.ename}: {error.evalue.rstrip('.')}"
            raise UserError(f"{path.stem}, cell {_place(executed)}: {what}; see {executed}.") from None
        except Exception as error:  # nbclient's dead kernels and time-outs
            what = f"{type(error).__name__}: {str(error).rstrip('.')}"
            raise UserError(f"{path.stem}, cell {_place(executed)}: {what}; see {executed}.") from None
    for index, cell in enumerate(_cells(executed)):
        if any(o.get("ename") == "SystemExit" for o in cell.get("outputs", [])):
            raise UserError(
                f"{path.stem}, cell {index}: it called exit, so the cells after it did not run; see {executed}."
            )
    if not metrics.exists():
        raise UserError(f"{path.stem}, last cell: it ended without writing {metrics}; see {executed}.")
    compute = sum(
        c.metadata.papermill.get("duration") or 0 for c in _cells(executed) if "compute" in c.metadata.get("tags", [])
    )
    seconds = time.monotonic() - started
    return {
        "seconds": round(seconds, 1),
        "compute_seconds": round(compute, 1),
        "peak_memory_mb": read_json(metrics)["peak_memory_mb"],
    }


def _redrawing_engine() -> type:
    """papermill's engine, redrawing the progress bar while the kernel talks: its clock goes on inside a long cell."""
    from papermill.engines import NBClientEngine

    class RedrawingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            save = nb_man.autosave_cell

            def save_and_redraw():
                save()
                if nb_man.pbar is not None and time.time() - nb_man.pbar.last_print_t > 1:
                    nb_man.pbar.refresh()
                    nb_man.pbar.last_print_t = time.time()

            nb_man.autosave_cell = save_and_redraw
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    return RedrawingEngine


def _cells(path: Path) -> list:
    """An executed notebook's cells without those that papermill put in, so that their numbers are the notebook's."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    return [
        c for c in cells if not {"papermill-error-cell-tag", "injected-parameters"} & set(c.metadata.get("tags", []))
    ]


def _place(executed: Path) -> str:
    """The last cell that was started, by number (the first is 0) and first line."""
    started = [(i, c) for i, c in enumerate(_cells(executed)) if c.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return "0 (no cell was started)"
    index, cell = started[-1]
    return f"{index} (`{cell.source.strip().splitlines()[0]}`)"


def _record(run: Run, notebook: str, record: dict) -> None:
    """Add a notebook's figures to the run's course.json, in the form of results/course-PROFILE.json."""
    path = run.folder / "notebooks" / "course.json"
    done = read_json(path)["notebooks"] if path.exists() else {}
    manifest = read_json(run.folder / "manifest.json")
    head = {"date": date.today().isoformat(), "profile": run.profile.profile}
    write_json(
        path,
        {
            **head,
            "hardware": manifest["hardware"],
            "versions": manifest["versions"],
            "notebooks": {**done, notebook: record},
        },
    )


def summary(run: Run) -> tuple[float, float] | None:
    """Seconds of all recorded notebooks of a run, and the share of them outside model compute and training."""
    path = run.folder / "notebooks" / "course.json"
    if not path.exists():
        return None
    records = read_json(path)["notebooks"].values()
    total = sum(r["seconds"] for r in records)
    return total, 1 - sum(r["compute_seconds"] for r in records) / total
