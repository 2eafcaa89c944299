"""`medvlt phantom`: the embedded world on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The embedded world: synthetic questions, images and two tiny models.")

Size = Annotated[str, typer.Option(help="small (about 1M weights) or base (3-4M)")]


@app.command("questions")
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


@app.command("preview")
def phantom_preview(
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    seed: Annotated[int, typer.Option(help="another seed, other pictures")] = 0,
) -> None:
    """Draw a contact sheet of every image family: picture, question, options, answer, trace."""
    from medvlt_lib.phantom.preview import preview

    preview(str(out), seed)
    print(out)


@app.command("build-model")
def phantom_build_model(
    size: Size,
    out: Annotated[Path | None, typer.Option(help="folder to write (default: phantom-SIZE here)")] = None,
) -> None:
    """Train a tiny model from scratch on two CPU cores. Stopped and started again, it continues."""
    from medvlt_lib.tiny.pretrain import pretrain

    folder = out or Path(f"phantom-{size}")
    pretrain(size, folder)
    print(f"{folder}: finished; describe it with `medvlt phantom card --model {folder}`")


@app.command("card")
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
