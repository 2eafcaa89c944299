"""The commands that read or write other people's files, `medvlt plan` (what a GPU needs) and `medvlt doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question
from medvlt_lib.core.terminal import RunName, Settings, show_table


def export_data(
    out: Annotated[Path, typer.Option(help="folder to write")],
    run: RunName = None,
    push: Annotated[str | None, typer.Option(help="also upload to the Hub as this data set, NAME/SET")] = None,
) -> None:
    """Write the kept and control sets with their pass counts as a data set that others can load.

    Needs 02. Parquet in MedVLThinker's columns, a data card and provenance.json.
    Example: medvlt export-data --run qlora-3b --out kept
    """
    from medvlt_lib.core.runs import open_run
    from medvlt_lib.tools.export import export_data as work
    from medvlt_lib.tools.sharing import push as push_to_hub

    sizes = work(open_run(None, run), out)
    show_table(str(out), [("set", "questions"), *((name, str(size)) for name, size in sizes.items())])
    if push:
        print(push_to_hub(out, push, "dataset"))


def export(
    arm: Annotated[str, typer.Option(help="a trained arm: sft_text, rl_image, ...")],
    out: Annotated[Path, typer.Option(help="folder to write; it must not hold anything yet")],
    run: RunName = None,
    form: Annotated[
        str, typer.Option(help="merged: one bf16 model; adapter: the LoRA weights alone, beside the base's name")
    ] = "merged",
    push: Annotated[str | None, typer.Option(help="also upload to the Hub as this model, NAME/MODEL")] = None,
) -> None:
    """Write a trained arm as a model that others load: plain transformers, PEFT and vLLM, without this library.

    Needs 01 and the arm. Weights, processor, provenance.json, and as README.md a model card with data, leaks, recipe,
    results (of 05, where the arm was evaluated), limits and the code that loads it. An adapter is merged into its
    base's original weights, also when it was trained over 4-bit ones; up to 100 test questions are then answered by the
    arm and by the export, and the card says how far they differ. With --push the folder is uploaded when it is
    complete, publicly.
    Example: medvlt export --run qlora-3b --arm rl_text --out rl_text-merged
    """
    from medvlt_lib.core.runs import open_run
    from medvlt_lib.tools.changed_answers import in_words
    from medvlt_lib.tools.export_model import export_model
    from medvlt_lib.tools.sharing import push as push_to_hub

    made = export_model(open_run(None, run), arm, out, form)
    files = sorted(p for p in out.rglob("*") if p.is_file())
    sizes = [(str(p.relative_to(out)), f"{p.stat().st_size / 1e6:.2f}") for p in files]
    show_table(str(out), [("file", "MB"), *sizes])
    if made["change"]:
        print(in_words(made["change"]))
    if push:
        print(push_to_hub(out, push, "model"))


def grade(
    file: Annotated[
        Path,
        typer.Argument(help="JSONL rows with response, options, answer_label (and perhaps dataset, finish_reason)"),
    ],
    out: Annotated[Path, typer.Option(help="graded rows (.jsonl)")],
    grader: Annotated[str, typer.Option(help="published, published-medvlm-r1 or tolerant")] = "published",
    explain: Annotated[bool, typer.Option("--explain", help="add each row's evidence, and a summary by kind")] = False,
) -> None:
    """Grade a file of responses from anywhere. Interrupted, it continues.

    options is an object {letter: text}, or a JSON string of one. Each row comes out with letter (or null), correct,
    how, well_formed, truncated, and reward and online where the grader has them. Rows that cannot be graded go to
    OUT.refused.jsonl; the exit code is then 1. With --explain each row says which piece was read, by which rule, what
    else was stated, and what was put aside (evidence: piece, rule, others, put_aside).
    Example: medvlt grade answers.jsonl --grader tolerant --out graded.jsonl
    """
    from medvlt_lib.tools.grade_file import grade_file, kinds, summary

    refused = grade_file(file, out, grader, explain)
    show_table(f"{out}, by {grader}; shares in percent", summary(out))
    if explain:
        show_table("what decided, and what was put aside", kinds(out))
    if refused:
        _end_with_code_1(f"{refused} rows of {file} could not be graded; {out}.refused.jsonl says which and why.")


# Lines of at most 78 characters, so that none is broken on a terminal of 80.
IMPORT_HELP = """Bring your own questions: multiple choice, with or without images.

What known data sets need:
- MedMCQA, original train.json and dev.json: --index-from 1
- MedMCQA, Hugging Face parquet: nothing (its test split has no keys)
- MedQA: nothing
- MMLU, CSV without a header: --columns question,A,B,C,D,answer
- MMLU, Hugging Face parquet: --map answer_index=answer --index-from 0
- PubMedQA: nothing (files without final_decision have no keys)
- MMMU-Pro, "standard" sets: nothing ("vision" has no column with a question)
- MedVLM-R1: --options-in-question

Fields, and the columns that they are looked for in, the first filled one of
which counts; --map FIELD=COLUMN says otherwise:
- id: id, question_id, pubid
- dataset: dataset, dataset_name; else the file's name. --dataset overrides
  both: give it for files such as test-00000-of-00001.parquet
- question: question, stem, QUESTION, problem
- context, which goes before the question: context, CONTEXTS
- options: options, choices: an object, a list with commas, or a text of one;
  or a column each: A B ..., opa opb ..., option_a option_b ...,
  ending0 ending1 ...; or --map options=first,second,third
- answer: answer_label, label, answer_idx, answer, final_decision, solution:
  a letter, an option's text, or a number that counts options
- answer_index: answer_index, cop: a number that counts options
- images: images, image; or image_1 image_2 ... to image_9: paths from the
  file's folder, or bytes
- reasoning: reasoning, explanation, exp, LONG_ANSWER, long_answer
- image_modality: image_modality
- split: split. Kept in extra: subject, subject_name, topic_name

An answer is never guessed. Whether numbers count from 0 or from 1, and
whether A is a letter or the text of an option, is seen from all rows of a
file; where they do not show it, the import stops and asks for one of:
- --index-from 0 or --index-from 1: what numbers of options count from
- --map answer_index=COLUMN: its numbers count options
- --map answer_letter=COLUMN: it holds letters
- --map answer_text=COLUMN: it holds the texts of options, numbers too
These are believed unless the rows contradict them. Import files that count
from different numbers one at a time. Beside a column that holds the number or
letter, a column answer may repeat the key as letter or text; a row where it
says something else is refused.

Questions without options: answers yes and no get Yes and No; where a row of
any of the files says maybe, all get yes, no and maybe.
Pictures: a side below 28 pixels grows to 28, else the longest shrinks to
1024; what is transparent is laid on white. A row whose text names <image 2>
and has no second picture is refused.

Three questions are shown with their keys before anything is written. Refused
rows are in OUT/refused.jsonl with file, row, column and reason; the exit code
is then 1. OUT/import.json says how each file's keys were read, whether there
was a maybe, and how many pictures were changed.
Example:
medvlt import mine.csv --out mine --map question=stem --map answer=right
medvlt data --run mine --set data.train_text=mine/questions.parquet"""


def import_(
    files: Annotated[list[Path], typer.Argument(help=".jsonl, .jsonl.gz, .json, .csv or .parquet")],
    out: Annotated[Path, typer.Option(help="folder for questions.parquet and import.json")],
    map_: Annotated[list[str] | None, typer.Option("--map", help="which column holds a field: question=stem")] = None,
    index_from: Annotated[
        int | None,
        typer.Option(min=0, max=1, help="what numbers of options count from", show_default="seen from the rows"),
    ] = None,
    options_in_question: Annotated[
        bool, typer.Option("--options-in-question", help='the question\'s text ends with its options: "A) x B) y"')
    ] = False,
    columns: Annotated[
        str | None, typer.Option(help="columns of CSV files without header: question,A,B,C,D,answer")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="name of the data set, whatever the files say")] = None,
    licence: Annotated[str | None, typer.Option(help="licence of the data, kept with every question")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask after the preview; for scripts")] = False,
) -> None:
    """Bring your own questions: multiple choice, with or without images. IMPORT_HELP is what --help says."""
    from medvlt_lib.tools.import_file import import_files

    names = columns.split(",") if columns else None
    approve = _show if yes else _ask
    counts = import_files(
        files, out, map_ or [], dataset, licence, index_from, options_in_question, names, approve=approve
    )
    sizes = tuple(str(counts[name]) for name in ("read", "kept", "refused"))
    show_table(f"{out}/questions.parquet", [("rows", "imported", "refused"), sizes])
    if refused := counts["refused"]:
        _end_with_code_1(f"{refused} of {counts['read']} rows were refused; {out}/refused.jsonl says which and why.")


def doctor() -> None:
    """Say whether this machine can run the course, what else it can run, and what to mend. Takes about half a minute.

    Looks at versions, CUDA, packages that may not load, disk, memory, threads and the Hub, then times three seconds of
    the course. With a GPU it also plans every profile that could fit, which takes longer. The exit code is 1 only when
    the default course cannot run.
    """
    from medvlt_lib.tools.doctor import examine

    print("looking around; this takes a while ...", file=sys.stderr)
    findings = list(examine())
    show_table("medvlt doctor", [("what", "state", "finding"), *((f.what, f.state, f.says) for f in findings)])
    if fatal := [f.what for f in findings if f.fatal]:
        _end_with_code_1(f"the default course cannot run here; see {', '.join(fatal)}.")


def plan(
    profile: Annotated[str, typer.Option(help="qlora-3b, lora-7b, full-7b, ...")],
    gpu: Annotated[
        str | None, typer.Option(help="RTX4090, H100, ..., or its memory, such as 24GB (default: this machine's GPU)")
    ] = None,
    set_: Settings = None,
) -> None:
    """What a profile needs of a GPU, counted before anything is loaded or downloaded.

    The stages' own SFT step and GRPO update run once on tensors without contents, in the model's true shape and the
    largest rows that the profile allows: every byte that would be live is counted, by what it is for. Beside it: what
    vLLM needs, host memory, disk, downloads, and an estimate of minutes and dollars. If it does not fit: up to three
    settings with which it would, each with its cost; the exit code is then 1.
    Example: medvlt plan --profile qlora-7b --gpu 24GB --set grpo.micro_batch=1
    """
    from medvlt_lib.core.config import load_profile, parse_settings
    from medvlt_lib.tools import plan_report as report
    from medvlt_lib.tools.gpus import chosen_gpu
    from medvlt_lib.tools.plan import plan_profile
    from medvlt_lib.tools.ways_to_fit import ways_to_fit

    made = plan_profile(load_profile(profile, parse_settings(set_ or [])), chosen_gpu(gpu))
    show_table(f"{profile} on {made.gpu.name}", report.memory_rows(made), caption=report.memory_caption(made))
    print(report.vllm_sentence(made))
    show_table("host, disk and network", report.storage_rows(made))
    if made.gpu.flops is not None:
        show_table("time and money", report.estimate_rows(made), caption=report.estimate_caption())
    if made.fits:
        return
    changes = ways_to_fit(made)
    if changes:
        show_table("it fits with these settings together", report.change_rows(changes))
    _end_with_code_1(report.misfit(made, changes))


def _show(questions: list[Question]) -> None:
    """Questions as they will be asked, each with its key."""
    for question in questions:
        text = (
            question.question
            if len(question.question) <= 400
            else f"{question.question[:200]} ... {question.question[-200:]}"
        )
        number = len(question.images)
        pictures = f" ({number} picture{'s' if number > 1 else ''})" if number else ""
        print(f"{question.id}{pictures}: {text}")
        for letter, option in question.options.items():
            print(f"  {letter}. {option}{'   <- the key' if letter == question.answer_label else ''}")


def _ask(questions: list[Question]) -> None:
    """Show questions and go on only if they are right."""
    _show(questions)
    try:
        right = typer.confirm("Are these questions and keys right?")
    except typer.Abort:
        right = False
    if not right:
        raise UserError(
            "nothing was written; `medvlt import --help` has the options, and --yes goes on without asking."
        )


def _end_with_code_1(sentence: str) -> None:
    """The work was done, and something is to be said about it."""
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(1)
