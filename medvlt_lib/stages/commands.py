"""`medvlt eval` and `medvlt ask`: what trained models, and any others, answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.terminal import Inputs, ProfileName, Ray, Redo, RunName, Settings, open_named, show_table


def eval_(
    profile: ProfileName = None,
    run: RunName = None,
    arm: Annotated[str | None, typer.Option(help="one arm (default: base and every finished arm)")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="a model that is no arm of the run: a folder, an adapter, a name on the Hub, phantom:small, or with "
            "engine.kind=openai a server's name for it; needs --out"
        ),
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            help="what to ask instead of the run's test set: six, pmc_vqa, pathvqa, slake, vqa_rad, mmmu, medxpertqa, "
            "medvlm-r1, phantom:FAMILIES, mni152:FAMILIES, hub:NAME or a question file; may be repeated; needs --out"
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(min=1, help="questions of each benchmark (default: all; of phantom, mni152: data.test_size)"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the answers and scores; of arms: OUT/ARM")] = None,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
    ray: Ray = None,
) -> None:
    """05: answer test questions with every arm, or with any other model, and grade the answers.

    Needs 01 and the arms' checkpoints. Writes answers.parquet and scores.json to runs/RUN/05_eval/ARM. Intervals take
    all answers on one picture, or to one question, as one; scores.json says which kind each is.
    Anything that is not an arm: medvlt eval --model FOLDER --out DIR
    Other questions, for which no run is needed: medvlt eval --model MedVLThinker-7B-RL_m23k --profile lora-7b
    --benchmarks six --out DIR
    A model at a server: --model NAME --set engine.kind=openai --set engine.url=https://HOST/v1
    Several answers to each question: --set eval.samples=8 --set eval.temperature=1
    On several GPUs or machines: medvlt eval --ray ADDRESS
    Models that are known by name (the README lists them) are asked and graded as their paper did; --set
    model.prompt_style, eval.grader or eval.max_new_tokens says otherwise. Interrupted, it continues.
    """
    from medvlt_lib.core.config import parse_settings
    from medvlt_lib.stages import evaluate
    from medvlt_lib.stages.evaluate_any import evaluate_any

    elsewhere = model is not None or bool(benchmarks)
    if elsewhere != (out is not None):
        raise UserError("--out goes with --model and --benchmarks: it is the folder for their answers.")
    if model is not None and arm is not None:
        raise UserError("--model is a model that is no arm, and --arm names one; leave one of them out.")
    if questions is not None and not benchmarks:
        raise UserError("--questions goes with --benchmarks; a run's own test set is asked whole.")
    opened = open_named(profile, run, set_, redo, inputs, make=not elsewhere)
    if out is not None:
        what = {"model": model, "arm": arm, "benchmarks": benchmarks, "questions": questions}
        scores = evaluate_any(opened, out, **what, given=parse_settings(set_ or []), ray=ray)
    else:
        scores = evaluate.run(opened, arm, ray)
    title = str(out or opened.folder / "05_eval")
    show_table(title, evaluate.table(scores), caption=evaluate.notes(scores))


def ask(
    asked: Annotated[list[str], typer.Argument(metavar="[IMAGE] QUESTION", help="a picture file, and the question")],
    options: Annotated[list[str] | None, typer.Option(help="A=left B=right ...: the options, if there are any")] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="may be repeated (default: base and every finished arm)")
    ] = None,
    profile: ProfileName = None,
    run: RunName = None,
    set_: Settings = None,
    inputs: Inputs = None,
) -> None:
    """One question to one or several arms of a run: thinking and answer of each. Writes nothing.

    Without a run the base model of the profile answers.
    Example: medvlt ask chest.png "How many nodules?" --options A=0 B=1 C=2 --arm base --arm rl_text
    Text alone: medvlt ask "What is the anion gap at Na 140, Cl 100 and HCO3 24?"
    """
    from medvlt_lib.core.results import NOTICE
    from medvlt_lib.stages import ask as work

    listed = [word for word in asked if re.match(r"[A-J]=", word)]  # after --options A=left, others stand among these
    words = [word for word in asked if word not in listed]
    if len(words) not in (1, 2):
        raise UserError('give a picture and a question, or a question alone: medvlt ask [IMAGE] "QUESTION".')
    choices = work.options_of_words([*(options or []), *listed])
    picture = Path(words[0]) if len(words) == 2 else None
    opened = open_named(profile, run, set_, None, inputs, make=False)
    for said in work.ask(opened, words[-1], picture, choices, arm or []):
        show_answer(said.arm, said.thinking, said.answer, choices, said.letter, said.cut)
    print(NOTICE)


def show_answer(arm: str, thinking: str, answer: str, options: dict[str, str], letter: str | None, cut: bool) -> None:
    """Print what one arm said."""
    print(f"{arm}\n  thinking: {thinking or '(none)'}\n  answer: {answer or '(none)'}")
    if options:
        print(f"  option: {f'{letter}, {options[letter]}' if letter else 'none that could be read'}")
    print("  (cut off at eval.max_new_tokens)\n" if cut else "")
