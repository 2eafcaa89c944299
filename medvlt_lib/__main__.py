"""`medvlt`: the command line, a thin face on the library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The MedVLThinker recipe, from data to analysis. Research and teaching only, not for clinical use.",
)
phantom = typer.Typer(no_args_is_help=True, help="The embedded world: synthetic questions, images and two tiny models.")
app.add_typer(phantom, name="phantom")

ProfileName = Annotated[
    str | None, typer.Option(help="tiny, tiny-qlora, qlora-3b, ...; may be left out once the run exists")
]
RunName = Annotated[str | None, typer.Option(help="folder under runs/ (default: the profile's name)")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="change a setting: grpo.learning_rate=1e-5")]
Redo = Annotated[list[str] | None, typer.Option(help="throw a stage (01 ... 06) away and do it again")]
Inputs = Annotated[list[str] | None, typer.Option(help="take a stage from another run: 02=runs/qlora-3b")]
TrainingFile = Annotated[Path | None, typer.Option("--data", help="question file to train on instead of the arm's own")]
Start = Annotated[Path | None, typer.Option("--init", help="checkpoint to start from instead of the base model")]
Size = Annotated[str, typer.Option(help="small (about 1M weights) or base (3-4M)")]


@app.callback()
def _main() -> None:
    """Stages and tools; `medvlt COMMAND --help` teaches each."""


def _open(profile, run, settings, redo, inputs):
    from medvlt_lib.core.config import parse_settings
    from medvlt_lib.core.runs import open_run

    return open_run(profile, run, parse_settings(settings or []), redo, inputs)


def _show(title: str, cells: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medvlt_lib.core.runs import first_process

    if not first_process():
        return
    table = Table(*cells[0], title=title)
    for row in cells[1:]:
        table.add_row(*map(escape, row))
    console = Console()
    console.width = max(console.width, 100)  # where nothing tells the width, 80 would cut tables
    console.print(table)


def _train(stage: str, figure: str, work, arm: str, data, init, opened) -> None:
    """Run stage 03 or 04 on one arm and show its steps and the first and last loss or reward."""
    from medvlt_lib.core.runs import STAGES
    from medvlt_lib.training.launch import how_to_launch

    folder = STAGES[stage]
    launch = how_to_launch(opened, sys.argv[1:])
    if launch:
        raise UserError(launch)
    metrics = work(opened, arm, data, init)
    row = (arm, str(metrics["steps"]), f"{metrics[f'first_{figure}']:.3f}", f"{metrics[f'last_{figure}']:.3f}")
    _show(f"{opened.folder}/{folder}/{arm}", [("arm", "steps", f"first {figure}", f"last {figure}"), row])


@app.command()
def data(profile: ProfileName = None, run: RunName = None, set_: Settings = None, redo: Redo = None) -> None:
    """01: gather the training, validation and test questions of a run, with a data card.

    Writes runs/RUN/01_data, with data_card.md and leaks.jsonl: training questions that equal test questions (data.drop_leaks leaves
    them out). The settings data.train_text, train_image, validation and test name the sources: phantom:FAMILIES, hub:NAME (data.mirror:
    a folder of local copies), split:train_text, or a question file such as `medvlt import` writes.
    Example: medvlt data --run noisy --set data.label_noise=0.3
    """
    from medvlt_lib.stages.data import run as work

    opened = _open(profile, run, set_, redo, None)
    metrics = work(opened)
    _show(f"{opened.folder}/01_data", [("set", "questions"), *((k, str(v)) for k, v in metrics.items())])


@app.command("filter")
def filter_(
    profile: ProfileName = None,
    run: RunName = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
    shard: Annotated[str | None, typer.Option(help="do one share of the rollouts on this machine: 3/8")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="count the rollouts of all shards; roll out nothing")] = False,
) -> None:
    """02: answer every training question n times with the base model; keep the medium-hard ones.

    Needs 01. Writes rollouts, pass_counts.parquet, kept and control sets to runs/RUN/02_filtering. The band is filtering.keep_from
    to filtering.keep_to; filtering.mode=adaptive stops asking a question once its band is decided. Interrupted, it continues.
    On several machines that share runs/: `medvlt filter --shard 1/8` ... `--shard 8/8`, then `medvlt filter --merge`.
    Example: medvlt filter --set filtering.keep_to=6
    """
    from medvlt_lib.stages.filtering import run as work

    opened = _open(profile, run, set_, redo, inputs)
    metrics = work(opened, _shard(shard) if shard else None, merge)
    if metrics is None:
        print(
            f"{opened.folder}/02_filtering/rollouts: shard {shard} is done; when all are: medvlt filter --run {opened.folder.name} --merge"
        )
        return
    percent = lambda x: f"{100 * x:.1f} %"  # noqa: E731
    rows = [(kind, str(metrics[f"of_{kind}"]), str(metrics[f"kept_{kind}"]), percent(metrics[f"zero_variance_kept_{kind}"]))
            for kind in ("text", "image")]  # fmt: skip
    alike = f"groups of {metrics['group_size']} all alike"
    _show(f"{opened.folder}/02_filtering", [("questions", "probed", "kept", f"{alike}, among the kept"), *rows])
    facts = [("rollouts", str(metrics["rollouts"])), ("saved by stopping early", percent(metrics["saved"])), ("truncated", percent(metrics["truncated"])),
             ("no answer", percent(metrics["no_answer"])), (f"{alike}, before filtering", percent(metrics["zero_variance_all"]))]  # fmt: skip
    _show("rollouts", [("", ""), *facts])
    most = max(metrics["pass_counts"])
    bars = [(str(c), str(n), "█" * round(40 * n / most)) for c, n in enumerate(metrics["pass_counts"])]
    _show("questions by pass count", [(f"right of {metrics['samples']}", "questions", ""), *bars])


def _shard(text: str) -> tuple[int, int]:
    number, sign, total = text.partition("/")
    if not (sign and number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise UserError(f"--shard {text}: write it as I/N, the I-th of N shares, for example 3/8.")
    return int(number), int(total)


@app.command("export-data")
def export_data(
    out: Annotated[Path, typer.Option(help="folder to write")],
    run: RunName = None,
    push: Annotated[str | None, typer.Option(help="also upload to the Hub as this data set, NAME/SET")] = None,
) -> None:
    """Write the kept and control sets with their pass counts as a data set that others can load.

    Needs 02. Parquet in MedVLThinker's columns, a data card and provenance.json. Example: medvlt export-data --run qlora-3b --out kept
    """
    from medvlt_lib.tools.export import export_data as work
    from medvlt_lib.tools.export import push as upload

    sizes = work(_open(None, run, None, None, None), out)
    _show(str(out), [("set", "questions"), *((k, str(v)) for k, v in sizes.items())])
    if push:
        print(upload(out, push))


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

    Needs 01 (with sft.data=kept also 02). Writes a checkpoint and log.jsonl to runs/RUN/03_sft/ARM. Interrupted, it continues from
    its last checkpoint (every sft.save_every steps). Example: medvlt sft --arm sft_image --set sft.epochs=1
    """
    from medvlt_lib.stages.sft import run as work

    _train("03", "loss", work, arm, data, init, _open(profile, run, set_, redo, inputs))


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

    Needs 02, and for a chained arm such as sft_text-rl_image its first part. Writes a checkpoint, log.jsonl and samples.jsonl to
    runs/RUN/04_grpo/ARM. Interrupted, it continues. Example: medvlt grpo --arm rl_image --set grpo.max_steps=20
    """
    from medvlt_lib.stages.grpo import run as work

    _train("04", "reward", work, arm, data, init, _open(profile, run, set_, redo, inputs))


@app.command("eval")
def eval_(
    profile: ProfileName = None,
    run: RunName = None,
    arm: Annotated[str | None, typer.Option(help="one arm (default: base and every finished arm)")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="a model or adapter folder, or a Hub name, that is no arm of the run; needs --out"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the answers and scores of --model")] = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
) -> None:
    """05: answer the test questions with every arm and grade the answers.

    Needs 01 and the arms' checkpoints. Writes answers.parquet and scores.json to runs/RUN/05_eval/ARM; intervals are bootstrapped over
    pictures. Anything that is not an arm: medvlt eval --model FOLDER --out DIR
    """
    from medvlt_lib.stages.evaluate import evaluate_checkpoint
    from medvlt_lib.stages.evaluate import run as work

    opened = _open(profile, run, set_, redo, inputs)
    if (model is None) != (out is None):
        raise UserError("--model and --out go together: which checkpoint, and where its answers go.")
    scores = {model: evaluate_checkpoint(out, opened, model)} if model is not None else work(opened, arm)
    percent = lambda x: f"{100 * x:.1f}"  # noqa: E731
    rows = [
        (a, percent(s["macro"]), " to ".join(map(percent, s["interval"])), percent(s["well_formed"]))
        for a, s in scores.items()
    ]
    _show(f"{out or opened.folder / '05_eval'}", [("arm", "macro accuracy", "95 % interval", "well-formed"), *rows])


@app.command()
def report(profile: ProfileName = None, run: RunName = None, set_: Settings = None, redo: Redo = None) -> None:
    """06: tables, figures and a page that compares the evaluated arms.

    Needs 05. Writes report.html, model_card.md, figures and tables to runs/RUN/06_analysis, again each time.
    """
    from medvlt_lib.stages.report import evaluated_arms, results, table
    from medvlt_lib.stages.report import run as work

    opened = _open(profile, run, set_, redo, None)
    work(opened)
    _show(f"{opened.folder}/06_analysis", table(results(opened, evaluated_arms(opened))))
    print(f"report: {opened.folder}/06_analysis/report.html")


@app.command()
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
    from medvlt_lib.stages.report import evaluated_arms, results
    from medvlt_lib.stages.report import table as arms_table

    settings = parse_settings(set_ or [])
    opened = run_course(profile, run, first, last, {"SETTINGS": settings} if settings else {})
    total, outside = summary(opened)
    print(f"notebooks: {total / 60:.1f} min, {100 * outside:.0f} % of it outside model compute and training")
    if (opened.folder / "05_eval").exists():
        _show(f"{opened.folder}/05_eval", arms_table(results(opened, evaluated_arms(opened))))
    page = opened.folder / "06_analysis" / "report.html"
    print(f"report: {page}" if page.exists() else f"executed notebooks: {opened.folder}/notebooks")


@app.command()
def grade(
    file: Annotated[
        Path,
        typer.Argument(help="JSONL rows with response, options, answer_label (and perhaps dataset, finish_reason)"),
    ],
    out: Annotated[Path, typer.Option(help="graded rows (.jsonl)")],
    grader: Annotated[str, typer.Option(help="published, published-medvlm-r1 or tolerant")] = "published",
) -> None:
    """Grade a file of responses from anywhere. Interrupted, it continues.

    options is an object {letter: text}, or a JSON string of one. Each row comes out with letter (or null), correct, how, well_formed,
    truncated, and reward and online where the grader has them. Rows that cannot be graded go to OUT.refused.jsonl; the exit code is then 1.
    Example: medvlt grade answers.jsonl --grader tolerant --out graded.jsonl
    """
    from medvlt_lib.tools.grade_file import grade_file, summary

    refused = grade_file(file, out, grader)
    _show(f"{out}, by {grader}; shares in percent", summary(out))
    if refused:
        print(
            f"error: {refused} rows of {file} could not be graded; {out}.refused.jsonl says which and why.",
            file=sys.stderr,
        )
        raise SystemExit(1)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help=".jsonl, .jsonl.gz, .csv or .parquet")],
    out: Annotated[Path, typer.Option(help="folder for questions.parquet and import.json")],
    map_: Annotated[list[str] | None, typer.Option("--map", help="which column holds a field: question=stem")] = None,
    dataset: Annotated[str | None, typer.Option(help="name of the data set, where no column has it")] = None,
    licence: Annotated[str | None, typer.Option(help="licence of the data, kept with every question")] = None,
) -> None:
    """Bring your own questions: multiple choice, with or without images.

    Fields and the columns they are looked for in (--map FIELD=COLUMN says otherwise): id; dataset (dataset, dataset_name); question;
    options (options, choices: an object, a list, or a JSON string; or columns A, B, C ..., or --map options=opa,opb,opc,opd);
    answer (answer_label, label, answer: a letter or an option's text); answer_index (a number from 0); images (images, image: paths beside
    the file, or bytes); reasoning; image_modality. Where there are no options, answers yes and no get Yes and No.
    Refused rows are listed in OUT/refused.jsonl with file, row, column and reason; the exit code is then 1.
    Example: medvlt import mine.csv --out mine --map question=stem --map options=opa,opb,opc,opd; then --set data.train_text=mine/questions.parquet
    """
    from medvlt_lib.tools.import_file import import_files

    counts = import_files(files, out, map_ or [], dataset, licence)
    _show(
        f"{out}/questions.parquet",
        [("rows", "imported", "refused"), tuple(str(counts[k]) for k in ("read", "kept", "refused"))],
    )
    if counts["refused"]:
        print(
            f"error: {counts['refused']} of {counts['read']} rows were refused; {out}/refused.jsonl says which and why.",
            file=sys.stderr,
        )
        raise SystemExit(1)


@app.command()
def table() -> None:
    """Print the README's tables of recorded times, memory and accuracies, from results/."""
    from medvlt_lib.course.readme import arms_table, times_table

    print(times_table(), arms_table(), sep="\n\n")


@app.command()
def reference() -> None:
    """Make the small reference run that USE_REFERENCE starts from (some minutes)."""
    from medvlt_lib.course.lesson import REFERENCE
    from medvlt_lib.course.reference import build_reference

    build_reference()
    print(REFERENCE)


@phantom.command("questions")
def phantom_questions(
    out: Annotated[Path, typer.Option(help="file to write: .parquet, or .jsonl for text families")],
    families: Annotated[str, typer.Option(help="all, text, image, or family names with commas")] = "all",
    split: Annotated[str, typer.Option(help="train, validation or test; they never share a question")] = "train",
    n: Annotated[int, typer.Option(help="questions in all, spread evenly over the families")] = 100,
    seed: Annotated[int, typer.Option(help="another seed, other questions")] = 0,
    label_noise: Annotated[float, typer.Option(help="share of training questions with a wrong label")] = 0.0,
    trace_noise: Annotated[
        float, typer.Option(help="share of training questions with a wrong step in the trace")
    ] = 0.0,
) -> None:
    """Write questions whose answers are computed, with the teacher's chains of thought."""
    from collections import Counter

    from medvlt_lib.core.records import write_questions
    from medvlt_lib.phantom.questions import make_questions

    questions = make_questions(families, split, n, seed, label_noise, trace_noise)
    write_questions(questions, out)
    print(f"{out}: {len(questions)} {split} questions")
    for family, count in Counter(q.family for q in questions).items():
        print(f"  {family:24} {count}")


@phantom.command("preview")
def phantom_preview(
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    seed: Annotated[int, typer.Option(help="another seed, other pictures")] = 0,
) -> None:
    """Draw a contact sheet of every image family: picture, question, options, answer, trace."""
    from medvlt_lib.phantom.preview import preview

    preview(str(out), seed)
    print(out)


@phantom.command("build-model")
def phantom_build_model(
    size: Size,
    out: Annotated[Path | None, typer.Option(help="folder to write (default: phantom-SIZE here)")] = None,
) -> None:
    """Train a tiny model from scratch on two CPU cores. Stopped and started again, it continues."""
    from medvlt_lib.tiny.pretrain import pretrain

    folder = out or Path(f"phantom-{size}")
    pretrain(size, folder)
    print(f"{folder}: finished; describe it with `medvlt phantom card --model {folder}`")


@phantom.command("card")
def phantom_card(
    model: Annotated[Path | None, typer.Option(help="model folder (default: the shipped one of --size)")] = None,
    size: Size = "base",
    questions: Annotated[int, typer.Option(help="validation questions a family")] = 400,
    training_questions: Annotated[int, typer.Option(help="training questions a family, 16 samples each")] = 60,
) -> None:
    """Measure a tiny model and write its model_card.md and card.json."""
    from medvlt_lib.models.loading import shipped
    from medvlt_lib.tiny.card import write_card

    folder = model or shipped(size)
    figures = write_card(folder, per_family=questions, training_per_family=training_questions)
    print(f"{folder}/model_card.md: macro greedy accuracy {100 * figures['macro']:.1f} %")


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
        print(
            f"error: cannot write {error.filename} ({error.strerror}); make room, or work in another folder.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command continues from what is on disk.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
