"""`medvlt export-data`: the kept questions with their pass counts, as a data set that others can load.

What the authors of MedVLThinker did not release: the filtered subsets and the counts they were chosen by. The columns are
theirs (medvlt_lib.data.published), with pass counts and posteriors added; the card says how the counts were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import atomic_write, read_json, write_json
from medvlt_lib.core.records import iterate_questions, write_rows
from medvlt_lib.core.runs import Run
from medvlt_lib.data.published import to_published
from medvlt_lib.rollout.parts import PROVENANCE

SETS = ("kept_text", "kept_image", "control_text", "control_image")
COUNTS = ("pass_count", "samples", "pass_rate", "pass_rate_low", "pass_rate_high")


def export_data(run_: Run, out: Path) -> dict[str, int]:
    """Writes one parquet a set, provenance.json and README.md to `out`; returns the number of rows of each set.

    Raises UserError when 02 is not finished or `out` is in use.
    """
    import pyarrow.parquet as pq

    folder = run_.require("02")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another --out.")
    counts = {r["id"]: r for r in pq.read_table(folder / "pass_counts.parquet").to_pylist()}
    sizes = {
        name: _write(folder / f"{name}.parquet", out / name / "train-00000-of-00001.parquet", counts) for name in SETS
    }
    provenance = {
        "rollouts": _provenance(folder),
        "filtering": run_.profile.filtering.model_dump(),
        "model": run_.profile.model.model_dump(),
        "sources": run_.manifest.get("sources", {}),
        "versions": run_.manifest["versions"],
    }
    write_json(out / "provenance.json", provenance)
    card = _card(run_, sizes, provenance, read_json(folder / "metrics.json"))
    atomic_write(out / "README.md", lambda temporary: Path(temporary).write_text(card, encoding="utf-8"))
    return sizes


def push(out: Path, name: str) -> str:
    """Upload an exported folder to the Hub as the data set `name`; returns its address. Raises UserError when it is refused."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, repo_type="dataset", exist_ok=True)
        api.upload_folder(folder_path=str(out), repo_id=name, repo_type="dataset")
    except Exception as error:  # the Hub's, httpx's and the network's errors are of many families
        raise UserError(
            f"the Hub did not take {name} ({first_line(error)}); log in with `hf auth login`, and check the name and the network."
        ) from None
    return f"https://huggingface.co/datasets/{name}"


def _write(source: Path, target: Path, counts: dict[str, dict]) -> int:
    import datasets

    text, number = datasets.Value("string"), datasets.Value("int64")
    columns = ("question", "options", "answer_label", "answer", "reasoning", "dataset_name", "hash", "misc")
    features = {"images": [datasets.Image()], **dict.fromkeys(columns, text), "dataset_index": number, "id": text,
                **dict.fromkeys(COUNTS[:2], number), **dict.fromkeys(COUNTS[2:], datasets.Value("float64"))}  # fmt: skip
    done = 0

    def rows() -> Iterator[dict]:
        nonlocal done
        for done, question in enumerate(iterate_questions(source), 1):
            row = {**to_published(question, done - 1), "id": question.id, **{k: counts[question.id][k] for k in COUNTS}}
            yield {k: row.get(k) for k in features}

    schema = datasets.Features(features).arrow_schema
    atomic_write(target, lambda temporary: write_rows(rows(), schema, temporary))
    return done


def _provenance(folder: Path) -> dict:
    """How the rollouts were made, as every row of them says."""
    first = sorted((folder / "rollouts").glob("part-*.jsonl"))
    with open(first[0], encoding="utf-8") as file:
        row = json.loads(file.readline())
    return {k: row[k] for k in PROVENANCE}


def _card(run_: Run, sizes: dict[str, int], provenance: dict, metrics: dict) -> str:
    f, made = run_.profile.filtering, provenance["rollouts"]
    configs = "".join(f"\n- config_name: {n}\n  data_files: {n}/*.parquet" for n in sizes)
    rows = "\n".join(f"| {n} | {size} |" for n, size in sizes.items())
    histogram = "\n".join(f"| {c} | {n} |" for c, n in enumerate(metrics["pass_counts"]))
    sources = (
        "\n".join(f"- {name}, revision {revision}" for name, revision in provenance["sources"].items())
        or "- the embedded synthetic world"
    )
    facts = "\n".join(f"- {k.replace('_', ' ')}: {v}" for k, v in made.items())
    return f"""---
configs:{configs}
tags:
- medical
- visual-question-answering
---

# Questions of run {run_.folder.name} with pass counts

**Research and teaching material, not for clinical use.** Questions keep the licences of their sources, which stand below.

Every question was answered {"up to " if f.mode == "adaptive" else ""}{f.samples} times by {run_.profile.model.name}; `kept_*` hold those with {f.keep_from} to
{f.keep_to} right answers, sorted easy to hard, and `control_*` as many that were not chosen. Columns are those of MedVLThinker's
data sets, with `pass_count`, `samples` and the pass rate's posterior mean and 95 % interval (Beta, uniform prior).

| set | questions |
|---|---|
{rows}

How the answers were made (`provenance.json` has every setting):

{facts}

Sources:

{sources}

| right of {f.samples} | questions |
|---|---|
{histogram}
"""
