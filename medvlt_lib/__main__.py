"""`medvlt`: the command line, a thin face on the library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.terminal import (
    Inputs,
    ProfileName,
    Ray,
    Redo,
    RunName,
    Settings,
    Start,
    TrainingFile,
    open_named,
    show_table,
)
from medvlt_lib.course.commands import course, exercises, lesson, reference, site, table
from medvlt_lib.smol.commands import app as smol
from medvlt_lib.stages.commands import ask, eval_
from medvlt_lib.stages.control_commands import compare_app, controls
from medvlt_lib.study.commands import findings, study
from medvlt_lib.tiny.commands import app as phantom
from medvlt_lib.tools.answer_commands import compare, published, scores
from medvlt_lib.tools.commands import IMPORT_HELP, doctor, export, export_data, grade, import_, plan

if TYPE_CHECKING:
    from medvlt_lib.core.runs import Run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The MedVLThinker recipe, from data to analysis. Research and teaching only, not for clinical use.",
)


@app.callback()
def _main() -> None:
    """Stages and tools; `medvlt COMMAND --help` teaches each."""


def _train(
    stage: str, figure: str, work: Callable, arm: str, data: Path | None, init: Path | None, opened: Run
) -> None:
    """Run stage 03 or 04 on one arm; show its steps, first and last loss or reward, and the checkpoint's step."""
    from medvlt_lib.core.runs import STAGES
    from medvlt_lib.training.launch import how_to_launch

    folder = STAGES[stage]
    launch = how_to_launch(opened, sys.argv[1:])
    if launch:
        raise UserError(launch)
    metrics = work(opened, arm, data, init)
    row = (arm, str(metrics["steps"]), f"{metrics[f'first_{figure}']:.3f}", f"{metrics[f'last_{figure}']:.3f}")
    kept = None
    if "best_step" in metrics:
        kept = f"checkpoint/ is step {metrics['checkpoint_step']}; the best validated step is {metrics['best_step']}"
    title, head = f"{opened.folder}/{folder}/{arm}", ("arm", "steps", f"first {figure}", f"last {figure}")
    show_table(title, [head, row], caption=kept)


@app.command()
def data(profile: ProfileName = None, run: RunName = None, set_: Settings = None, redo: Redo = None) -> None:
    """01: gather the training, validation and test questions of a run, with a data card.

    Writes runs/RUN/01_data, with data_card.md and leaks.jsonl: training questions that equal validation or test
    questions (data.drop_leaks leaves them out). The settings data.train_text, train_image, validation and test name the
    sources: phantom:FAMILIES, mni152:FAMILIES (slices of an MRI), hub:NAME (data.mirror: a folder of local copies),
    split:train_text, or a question file such as `medvlt import` writes.
    Example: medvlt data --run noisy --set data.label_noise=0.3
    """
    from medvlt_lib.stages.data import run as work

    opened = open_named(profile, run, set_, redo)
    metrics = work(opened)
    show_table(f"{opened.folder}/01_data", [("set", "questions"), *((k, str(v)) for k, v in metrics.items())])


@app.command("filter")
def filter_(
    profile: ProfileName = None,
    run: RunName = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
    ray: Ray = None,
) -> None:
    """02: answer every training question n times with the base model; keep the medium-hard ones.

    Needs 01. Writes rollouts, pass_counts.parquet, kept and control sets to runs/RUN/02_filtering. The band is
    filtering.keep_from to filtering.keep_to; filtering.mode=adaptive stops asking a question once its band is decided.
    Interrupted, it continues.
    On several GPUs or machines: medvlt filter --ray ADDRESS; the README's section on clusters says how.
    Example: medvlt filter --set filtering.keep_to=6
    """
    from medvlt_lib.stages import filtering

    opened = open_named(profile, run, set_, redo, inputs)
    for title, rows in filtering.tables(filtering.run(opened, ray)).items():
        show_table(f"{opened.folder}/02_filtering: {title}", rows)


@app.command()
def distill(
    profile: ProfileName = None,
    run: RunName = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
    ray: Ray = None,
) -> None:
    """02b: ask teachers for chains of thought about the training questions; keep those whose answer is right.

    Needs 01. Writes traces_text and traces_image.parquet to runs/RUN/02b_distill, with every answer and why it was
    rejected; medvlt sft --set sft.data=distilled trains on them. Interrupted, or stopped by a cap, it continues.
    distill.teachers names teachers: phantom:own, a model at an OpenAI-compatible server (url), or one that is loaded.
    What a server may cost is shown before it is asked, and max_cost caps it.
    Published chains of thought need no teacher: medvlt data reads hub: sets that bring them, and sft trains on them.
    Example: medvlt distill --set distill.teachers='{mine: {name: MODEL, url: https://HOST/v1}}'
    """
    from medvlt_lib.stages import distill as stage

    opened = open_named(profile, run, set_, redo, inputs)
    metrics = stage.run(opened, ray)
    show_table(f"{opened.folder}/02b_distill", stage.table(metrics))
    show_table("answers by teacher", stage.teacher_table(metrics))


@app.command()
def sft(
    profile: ProfileName = None,
    run: RunName = None,
    arm: Annotated[str, typer.Option(help="sft_text or sft_image; other names need --data")] = "sft_text",
    data: TrainingFile = None,
    init: Start = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
) -> None:
    """03: fine-tune on the teacher's chains of thought.

    Needs 01 (also 02 with sft.data=kept, 02b with sft.data=distilled). Writes a checkpoint and log.jsonl to
    runs/RUN/03_sft/ARM. Interrupted, it continues from its last checkpoint (every sft.save_every steps); Ctrl-C and
    SIGTERM save one before they stop it. Every sft.validate_every steps it answers validation questions, from which
    checkpoint/ is chosen as in grpo. sft.target=answer_only learns the answers without the thinking.
    Example: medvlt sft --arm sft_image --set sft.epochs=1
    """
    from medvlt_lib.stages.sft import run as work

    _train("03", "loss", work, arm, data, init, open_named(profile, run, set_, redo, inputs))


@app.command()
def grpo(
    profile: ProfileName = None,
    run: RunName = None,
    arm: Annotated[
        str, typer.Option(help="rl_text, rl_image, sft_text-rl_image, rl_text-rl_image; other names need --data")
    ] = "rl_text",
    data: TrainingFile = None,
    init: Start = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
) -> None:
    """04: reinforce with a verifiable reward (GRPO) on the kept questions.

    Needs 01, 02, and for a chained arm such as sft_text-rl_image its first part. Writes a checkpoint, log.jsonl and
    samples.jsonl (one group a step) to runs/RUN/04_grpo/ARM. Says on stderr when something goes wrong, and which
    setting to turn. Interrupted, it continues; Ctrl-C and SIGTERM save a checkpoint first.
    launch.tracker=tensorboard (or trackio, wandb) reports the log there.
    Every grpo.validate_every steps it answers validation questions. checkpoint/ is the last step, unless the best
    validated step is better by more than chance explains; the other one of the two is kept in best/ or last/.
    Example: medvlt grpo --arm rl_image --set grpo.max_steps=20
    """
    from medvlt_lib.stages.grpo import run as work

    _train("04", "reward", work, arm, data, init, open_named(profile, run, set_, redo, inputs))


app.command("eval")(eval_)
app.command()(ask)


@app.command()
def report(profile: ProfileName = None, run: RunName = None, set_: Settings = None, redo: Redo = None) -> None:
    """06: one page that says what the run found and how sure that is, and a model card of the same content.

    Writes report.html (one file, for a browser, a phone or a printer), model_card.md in the Hub's form, figures and
    tables to runs/RUN/06_analysis, again each time. Reads the run's files alone: what was not run is named, and the
    rest is shown.
    Example: medvlt report --run tiny
    """
    from medvlt_lib.stages import report as stage

    opened = open_named(profile, run, set_, redo, make=False)
    if arms := stage.run(opened)["arms"]:
        rows = stage.results(opened, arms)
        show_table(f"{opened.folder}/06_analysis", stage.table(rows), caption=stage.notes(rows))
    print(f"report: {opened.folder}/06_analysis/report.html")


app.command()(compare)
app.command()(controls)
app.command("compare-app")(compare_app)
app.command()(course)
app.command()(doctor)
app.command()(export)
app.command("export-data")(export_data)
app.command()(grade)
app.command("import", help=IMPORT_HELP)(import_)
app.command()(plan)
app.command()(published)
app.command()(scores)
app.command()(site)
app.command()(study)
app.command()(findings)
app.command()(table)
app.command()(exercises)
app.command()(reference)
app.add_typer(lesson, name="lesson")
app.add_typer(phantom, name="phantom")
app.add_typer(smol, name="smol")


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        from medvlt_lib.core.files import disk_refused

        if not disk_refused(error):
            raise
        sentence = f"cannot write {error.filename} ({error.strerror}); make room, or work in another folder."
        print(f"error: {sentence}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command continues from what is on disk.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
