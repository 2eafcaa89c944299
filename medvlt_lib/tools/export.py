"""`medvlt export-data`: the kept questions with their pass counts, as a data set that others can load.

What the authors of MedVLThinker did not release: the filtered subsets and the counts they were chosen by. The columns
are theirs (medvlt_lib.data.readers), with pass counts and posteriors added; the card says how the counts were made.
"""

from __future__ import annotations

from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_json, read_jsonl, write_json
from medvlt_lib.core.records import count_questions, iterate_questions, write_rows
from medvlt_lib.core.runs import Run
from medvlt_lib.core.tables import markdown_table
from medvlt_lib.data.readers import to_published
from medvlt_lib.rollout.parts import PROVENANCE
from medvlt_lib.tools.sharing import refuse_used

SETS = ("kept_text", "kept_image", "control_text", "control_image")
COUNTS = ("pass_count", "samples", "pass_rate", "pass_rate_low", "pass_rate_high")


def export_data(run_: Run, out: Path) -> dict[str, int]:
    """Writes one parquet a set, provenance.json and README.md to `out`; returns the number of rows of each set.

    Raises UserError when 02 is not finished or its rollouts are gone, and when `out` is in use.
    """
    import pyarrow.parquet as pq

    folder = run_.require("02")
    refuse_used(out)
    provenance = {
        "rollouts": _provenance(folder),
        "filtering": run_.profile.filtering.model_dump(),
        "model": run_.profile.model.model_dump(),
        "sources": run_.manifest.get("sources", {}),
        "versions": run_.manifest["versions"],
    }
    counts = {row["id"]: row for row in pq.read_table(folder / "pass_counts.parquet").to_pylist()}
    sizes = {
        name: _write(folder / f"{name}.parquet", out / name / "train-00000-of-00001.parquet", counts) for name in SETS
    }
    write_json(out / "provenance.json", provenance)
    card = _card(run_, sizes, provenance, read_json(folder / "metrics.json"))
    atomic_write(out / "README.md", lambda temporary: Path(temporary).write_text(card, encoding="utf-8"))
    return sizes


def _write(source: Path, target: Path, counts: dict[str, dict]) -> int:
    """One set with its pass counts as parquet; returns its number of rows."""
    import datasets

    text, number, share = (datasets.Value(kind) for kind in ("string", "int64", "float64"))
    features = datasets.Features(
        {
            "images": [datasets.Image()],
            **dict.fromkeys(("question", "options", "answer_label", "answer", "reasoning"), text),
            **dict.fromkeys(("dataset_name", "hash", "misc"), text),
            "dataset_index": number,
            "id": text,
            **dict.fromkeys(COUNTS[:2], number),
            **dict.fromkeys(COUNTS[2:], share),
        }
    )
    rows = (
        {**to_published(question, index), "id": question.id, **{key: counts[question.id][key] for key in COUNTS}}
        for index, question in enumerate(iterate_questions(source))
    )
    columns = ({key: row.get(key) for key in features} for row in rows)
    atomic_write(target, lambda temporary: write_rows(columns, features.arrow_schema, temporary))
    return count_questions(target)


def _provenance(folder: Path) -> dict:
    """How the rollouts were made, as every row of them says. Raises UserError where there are none."""
    for part in sorted((folder / "rollouts").glob("part-*.jsonl")):
        for row in read_jsonl(part):
            return {key: row[key] for key in PROVENANCE}
    raise UserError(
        f"{folder / 'rollouts'} holds no rollouts, and the card must say how the answers were made; "
        "put that folder back, or do the stage again with --redo 02."
    )


def _card(run_: Run, sizes: dict[str, int], provenance: dict, metrics: dict) -> str:
    filtering, histogram = run_.profile.filtering, enumerate(metrics["pass_counts"])
    configs = "".join(f"\n- config_name: {name}\n  data_files: {name}/*.parquet" for name in sizes)
    facts = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in provenance["rollouts"].items())
    sources = [f"- {name}, revision {revision}" for name, revision in provenance["sources"].items()]
    up_to = "up to " if filtering.mode == "adaptive" else ""
    return f"""---
configs:{configs}
tags:
- medical
- visual-question-answering
---

# Questions of run {run_.folder.name} with pass counts

**Research and teaching material, not for clinical use.** Questions keep the licences of their sources, named below.

Every question was answered {up_to}{filtering.samples} times by {run_.profile.model.name}; `kept_*` hold those with
{filtering.keep_from} to {filtering.keep_to} right answers, sorted easy to hard, and `control_*` as many that were not
chosen. Columns are those of MedVLThinker's data sets, with `pass_count`, `samples` and the pass rate's posterior mean
and 95 % interval (Beta, uniform prior).

{markdown_table([("set", "questions"), *sizes.items()])}

How the answers were made (`provenance.json` has every setting):

{facts}

Sources:

{chr(10).join(sources) or "- the embedded synthetic world"}

{markdown_table([(f"right of {filtering.samples}", "questions"), *histogram])}
"""
