"""The model card of an exported arm: README.md with the Hub's metadata, data, recipe, results, limits, how to load it.

Everything in it is read from the run: what is not there is said to be missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medvlt_lib.core.files import file_hash, read_json
from medvlt_lib.core.records import count_questions
from medvlt_lib.core.results import NOTICE, as_markdown, check_alike, results
from medvlt_lib.core.runs import COMMANDS, STAGES, Run
from medvlt_lib.core.stage import finished_in, is_finished
from medvlt_lib.core.tables import markdown_table
from medvlt_lib.data.card import leakage_paragraphs
from medvlt_lib.tools.card_parts import hub_metadata, limits
from medvlt_lib.tools.changed_answers import in_words
from medvlt_lib.tools.loading_examples import loading_examples

METHODS = {"03": ("Supervised fine-tuning", "sft"), "04": ("Reinforcement with a verifiable reward (GRPO)", "grpo")}
MISSING = "**Missing:**"


def model_card(run_: Run, stage: str, arm: str, provenance: dict[str, Any], lora: bool) -> str:
    """The text of README.md. `stage`: '03' or '04', where the arm was trained; `lora`: whether that was an adapter."""
    base = provenance["base"]["name"]
    made = "A LoRA adapter for" if provenance["form"] == "adapter" else "Trained from"
    parts = [
        _metadata(run_, arm, provenance),
        f"# {arm} of run {run_.folder.name}",
        f"**{NOTICE}**",
        f"{made} `{base}`, made by `medvlt {COMMANDS[stage]} --arm {arm}`, profile `{run_.profile.profile}`. "
        f"{_precision(provenance, lora)}",
        "## How to load it",
        *loading_examples(run_.profile, arm, provenance),
        "## Data",
        *_data(run_, provenance),
        "## Recipe",
        *_recipe(stage, provenance),
        "## Results",
        *_results(run_, arm, provenance),
        "## What the export changed",
        _change(provenance),
        "## Limits",
        "\n".join(f"- {line}" for line in limits(run_.profile)),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(run_: Run, arm: str, provenance: dict[str, Any]) -> str:
    adapter = provenance["form"] == "adapter"
    return hub_metadata(run_.profile, [arm, *(["lora"] if adapter else [])], adapter, provenance["sources"])


def _precision(provenance: dict[str, Any], lora: bool) -> str:
    nf4 = provenance["trained_with"]["settings"]["model.quantization"] == "nf4"
    if provenance["form"] == "adapter":
        under = "the base in 4-bit NF4" if nf4 else "the base as it is"
        return f"The weights are those of the training, made over {under}."
    if lora:
        under = " over the base in 4-bit NF4" if nf4 else ""
        return f"It was trained as a LoRA adapter{under}, merged here into the base's original weights, in bfloat16."
    return "All weights were trained; they are stored in bfloat16."


def _data(run_: Run, provenance: dict[str, Any]) -> list[str]:
    """What the arm was trained on, found by its hash among the run's files, and the leakage report of 01."""
    card = read_json(run_.require("01") / "data_card.json")
    files = [path for stage in ("01", "02") for path in sorted(run_.stage_folder(stage).glob("*.parquet"))]
    inputs, said = provenance["trained_with"]["inputs"], []
    data = _with_hash(inputs["data"], files)
    where = f"`{data.parent.name}/{data.name}`, {count_questions(data)} questions" if data else "a file from elsewhere"
    said.append(f"Trained on {where} (SHA-256 {inputs['data'][:16]}).")
    if "init" in inputs:
        arms = [run_.stage_folder(s, a) / "checkpoint" for s in ("03", "04") for a in finished_in(run_.stage_folder(s))]
        start = _with_hash(inputs["init"], arms)
        origin = f"the arm {start.parent.name}" if start else "a checkpoint from elsewhere"
        said.append(f"It started from {origin} (SHA-256 {inputs['init'][:16]}), not from the base itself.")
    rows = [["set", "questions", "data sets", "licences", "wrong labels", "wrong traces"]]
    for name in [n for n in ("train_text", "train_image", "test") if n in card]:
        counts = (", ".join(f"{k}: {v}" for k, v in card[name][column].items()) for column in ("datasets", "licences"))
        rows.append([name, card[name]["questions"], *counts, card[name]["noisy_labels"], card[name]["noisy_traces"]])
    sources = [f"- {name}, revision {revision}" for name, revision in provenance["sources"].items()]
    listed = "\n".join(["Sources:", "", *sources]) if sources else "Source: the library's synthetic world."
    return [" ".join(said), markdown_table(rows), listed, "### Leakage", *_leaks(card["leakage"])]


def _leaks(leakage: dict[str, Any]) -> list[str]:
    """The leakage report of 01; of its pairs of sets those alone in which something leaks."""
    found = [row for row in leakage["pairs"] if row["flagged_train"]]
    if not found:
        return ["No training question equals a validation or a test question."]
    return [*leakage_paragraphs({**leakage, "pairs": found}), "Pairs of sets without such a question are left out."]


def _with_hash(wanted: str, paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.exists() and file_hash(path) == wanted), None)


def _recipe(stage: str, provenance: dict[str, Any]) -> list[str]:
    method, section = METHODS[stage]
    made, settings = provenance["training"], provenance["trained_with"]["settings"]
    last, kind = ("last_reward", "reward") if stage == "04" else ("last_loss", "loss")
    ended = f"{made['steps']} steps; the {kind} went from {made['first_' + kind]:.3f} to {made[last]:.3f}."
    rows = [(k, "none" if v is None else v) for k, v in settings.items() if k.split(".")[0] in ("model", section)]
    versions = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items() if number)
    return [
        f"{method}, {ended} Every setting that decided the result (`provenance.json` has them too):",
        markdown_table([("setting", "value"), *rows]),
        f"Versions: {versions}.",
    ]


def _results(run_: Run, arm: str, provenance: dict[str, Any]) -> list[str]:
    """The arm's scores of 05 beside the base's; scores of other weights than these count as missing."""
    folder = run_.folder / STAGES["05"]
    command = f"`medvlt eval --run {run_.folder.name} --arm {{}}`"
    said, arms = [], []
    for name in ("base", arm):
        if not is_finished(folder / name):
            said.append(f"{MISSING} {name} was not evaluated ({command.format(name)}).")
        elif name == arm and read_json(folder / arm / "stage.json")["inputs"]["checkpoint"] != provenance["checkpoint"]:
            said.append(f"{MISSING} the scores of {arm} in the run belong to other weights than these.")
        else:
            arms.append(name)
    if arm not in arms:
        return said
    check_alike(folder, arms)
    test = "Answers of the arm before it was exported, to the run's test questions, graded by "
    return [f"{test}{run_.profile.eval.grader} rules.", as_markdown(run_, results(run_, arms)), *said]


def _change(provenance: dict[str, Any]) -> str:
    if provenance["change"] is not None:
        return in_words(provenance["change"])
    if provenance["form"] == "adapter":
        return "Nothing: loaded on the base as shown above, the weights are those of the training."
    return "Nothing: the arm was evaluated in bfloat16, too, and these are the same numbers."
