"""`medvlt course`, `lesson`, `site`, `table`, `exercises` and `reference`: the commands about the course as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.terminal import ProfileName, RunName, Settings, show_table

lesson = typer.Typer(no_args_is_help=True, help="Your own way through the course.")


@lesson.command("status")
def lesson_status() -> None:
    """Show which notebooks ran to their end, in which runs of this folder, and which exercises are passed or left.

    A pass is noted by the check on an exercise page, in your user folder for programs' state ($MEDVLT_LESSON names
    another folder; delete it to begin anew).
    """
    from medvlt_lib.course.progress import passed_folder
    from medvlt_lib.course.status import status

    show_table("the course so far", status(), caption=f"passes are noted in {passed_folder()}")


def course(
    profile: ProfileName = None,
    run: RunName = None,
    first: Annotated[str | None, typer.Option("--from", help="first notebook, 00 ... 06")] = None,
    last: Annotated[str | None, typer.Option("--to", help="last notebook, 00 ... 06")] = None,
    set_: Settings = None,
) -> None:
    """Run the notebooks in order, without a person; started again, it goes on after the last finished one."""
    from medvlt_lib.core.config import parse_settings
    from medvlt_lib.course.runner import run_course, summary
    from medvlt_lib.stages import report

    settings = parse_settings(set_ or [])
    opened = run_course(profile, run, first, last, {"SETTINGS": settings} if settings else {})
    if took := summary(opened):
        total, outside = took
        print(f"notebooks: {total / 60:.1f} min, {100 * outside:.0f} % of it outside model compute and training")
    if (opened.folder / "05_eval").exists():
        rows = report.results(opened, report.evaluated_arms(opened))
        show_table(f"{opened.folder}/05_eval", report.table(rows), caption=report.notes(rows))
    page = opened.folder / "06_analysis" / "report.html"
    print(f"report: {page}" if page.exists() else f"executed notebooks: {opened.folder}/notebooks")


def site(
    run: Annotated[list[str], typer.Option(help="folder under runs/, may be repeated; notebooks are of the first")],
    out: Annotated[Path, typer.Option(help="folder of the site; an earlier site there is replaced")] = Path("site"),
) -> None:
    """The executed notebooks, README, findings and the runs' reports as a static site, which can be searched.

    Runs nothing: `medvlt course` made the notebooks. No page asks another machine for anything.
    Example: medvlt site --run tiny, then python -m http.server --directory site
    """
    from medvlt_lib.core.runs import open_run
    from medvlt_lib.course.site import build_site

    made = build_site([open_run(None, name, make=False).folder for name in run], out)
    print(f"{out}: {made['pages']} pages, {made['files']} files, {made['bytes'] / 1e6:.1f} MB")


def table() -> None:
    """Draw the README's first pictures into results/; print its first screen, its tables of recorded times, memory,
    accuracies and studies, its sentence on the habit of working, and the table of estimated times in docs/PATHS.md."""
    from medvlt_lib.course import times
    from medvlt_lib.course.front import draw, first_screen
    from medvlt_lib.course.readme import arms_table, times_table
    from medvlt_lib.study.results import SHIPPED
    from medvlt_lib.study.sentences import carries_over
    from medvlt_lib.study.tables import summary_table

    draw()
    parts = (first_screen(), times_table(), arms_table(), summary_table(SHIPPED), carries_over(), times.table())
    print(*parts, sep="\n\n")


def exercises() -> None:
    """Make anew what is made from the notebooks: notebooks/exercises/ (what was written into those pages is replaced),
    the times that their first lines state, and notebook 00's badges."""
    from medvlt_lib.course.badges import put_badges
    from medvlt_lib.course.exercises import write_exercises
    from medvlt_lib.course.times import state_times

    put_badges()
    state_times()
    print(*write_exercises(), sep="\n")


def reference() -> None:
    """Make the small reference run that USE_REFERENCE starts from (some minutes)."""
    from medvlt_lib.course.lesson import REFERENCE
    from medvlt_lib.course.reference import build_reference

    build_reference()
    print(REFERENCE)
