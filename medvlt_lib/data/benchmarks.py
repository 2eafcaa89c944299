"""The benchmarks that `medvlt eval --benchmarks` knows, and their question files under runs/benchmarks.

A benchmark is read once and written to runs/benchmarks/NAME/questions.parquet, with the revision it was read at; every
evaluation started in the same folder asks the same file. Where the revision is another one later, it is refused: two
models would be compared on different questions.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.core.config import Data
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, read_json
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.core.stage import is_finished, work_in
from medvlt_lib.data.hub import local_copy, named_source, revision_of
from medvlt_lib.data.published import ADAPT, GROUPS
from medvlt_lib.data.rows import Tally
from medvlt_lib.data.sources import MADE, load_set

BENCHMARKS = {
    "six": "hub:six-benchmarks",
    "pmc_vqa": f"hub:{ADAPT}/PMC-VQA",
    "pathvqa": f"hub:{ADAPT}/PathVQA",
    "slake": f"hub:{ADAPT}/SLAKE",
    "vqa_rad": f"hub:{ADAPT}/VQA_RAD",
    "mmmu": "hub:MMMU/MMMU",
    "medxpertqa": "hub:TsinghuaC3I/MedXpertQA/MM",
    "medvlm-r1": "hub:JZPeterPan/MedVLM-R1",
}
# Questions of the six as published. Of MedXpertQA's 2,000, 1,996 were scored for local models.
SIX_QUESTIONS = {
    "pmc_vqa": (2000,),
    "pathvqa_closed": (3362,),
    "slake_closed": (416,),
    "vqa_rad_closed": (272,),
    "MMMU-medical": (170,),
    "MedXpertQA-MM": (2000, 1996),
}
WHOLE = 10**9  # more questions than any published set has


@dataclass(frozen=True)
class Benchmark:
    """Questions to ask: a source as in `data.test`, and how many of it (None: all)."""

    name: str
    source: str
    questions: int | None

    @property
    def folder(self) -> str:
        part = "" if self.questions is None else f"-{self.questions}"
        return re.sub(r"[^\w.-]+", "-", self.name).strip("-.") + part


def named_benchmarks(names: list[str], questions: int | None, made_questions: int) -> list[Benchmark]:
    """The benchmarks that a person names: names of BENCHMARKS, `phantom:FAMILIES`, `mni152:FAMILIES`, `hub:NAME`, or
    question files.

    `questions` of each; without a number a set is asked whole, and of a set that is made here `made_questions`.
    Raises UserError for an unknown name or family, and for a name given twice.
    """
    parts = [part.strip() for name in names for part in ([name] if ":" in name else name.split(","))]
    found = []
    for part in parts:
        kind, _, rest = part.partition(":")
        if kind in MADE:
            MADE[kind](rest)
            found.append(Benchmark(part, part, questions or made_questions))
        elif part in BENCHMARKS or kind == "hub" or Path(part).is_file():
            found.append(Benchmark(part, BENCHMARKS.get(part, part), questions))
        else:
            raise UserError(
                f"--benchmarks {part}: it is no benchmark and no file; choose {', '.join(BENCHMARKS)}, "
                "phantom:FAMILIES, mni152:FAMILIES, hub:NAME or a question file."
            )
    if twice := [b.name for b in found if [other.source for other in found].count(b.source) > 1]:
        raise UserError(f"--benchmarks names {twice[0]} twice; leave one out.")
    return found


def prepare(benchmark: Benchmark, data: Data, root: Path) -> tuple[Path, dict[str, str]]:
    """(question file, revision of each set in it) of a benchmark under `root`, read where that was not done before.

    Raises UserError where the file was made of another revision, and as `load_set`.
    """
    folder, files = root / benchmark.folder, {}
    revisions = _revisions(benchmark.source, data, folder)
    settings = {"source": benchmark.source, "questions": benchmark.questions or "all"}
    settings |= {f"revision of {name}": revision for name, revision in revisions.items()}
    if benchmark.questions is not None:
        settings["data.seed"] = data.seed
    if ":" not in benchmark.source:
        files["file"] = Path(benchmark.source)
    elif benchmark.source.startswith("hub:"):
        settings |= {"data.endpoint": data.endpoint, "data.endpoint_model": data.endpoint and data.endpoint_model}
    advice = "name the revision of before as hub:NAME@REVISION, or delete the folder to read the questions again"
    with work_in(folder, settings, files, advice) as stage:
        if not stage.finished:
            tallies: list[Tally] = []
            path = folder / "questions.parquet"
            questions = tqdm(_questions(benchmark, data, tallies), desc=benchmark.name, unit="question", delay=2)
            write_questions(questions, path)
            stage.metrics = {"sources": {t.name: t.card() for t in tallies}}
    for name, card in stage.metrics["sources"].items():
        if card["dropped"]:
            kinds = card["dropped"].items()
            why = ", ".join(f"{count} by {column} ({card['examples'][column]})" for column, count in kinds)
            print(f"{name}: {card['kept']} questions of {card['read']} rows; left out: {why}", file=sys.stderr)
    return folder / "questions.parquet", revisions


def _questions(benchmark: Benchmark, data: Data, tallies: list[Tally]) -> Iterator[Question]:
    """Raises UserError for a benchmark without questions, and where an id stands there twice."""
    wanted = {"test": benchmark.source, "test_size": benchmark.questions or WHOLE}
    ids: set[str] = set()
    for question in load_set("test", data.model_copy(update=wanted), tallies):
        if question.id in ids:
            raise UserError(f"{benchmark.name} has the id {question.id} twice; give every question its own id.")
        ids.add(question.id)
        yield question
    if not ids:
        dropped = next((reason for t in tallies for reason in t.examples.values()), "it is empty")
        raise UserError(f"{benchmark.name} holds no questions ({dropped}); name another benchmark.")


def _revisions(source: str, data: Data, folder: Path) -> dict[str, str]:
    """The revision of every published set of a source. Where the Hub cannot be asked, that of the file which is there.

    Raises UserError where neither is known.
    """
    if not source.startswith("hub:"):
        return {}
    name, _, asked = source.removeprefix("hub:").partition("@")
    before = read_json(folder / "stage.json")["settings"] if is_finished(folder) else {}
    found = {}
    for own in GROUPS.get(name, (name,)):
        published = named_source(own, "test", asked or None)
        if data.mirror:
            found[own] = f"local copy {copy_hash(local_copy(published, data.mirror))}"
            continue
        revision = revision_of(published, None) or before.get(f"revision of {own}")
        if revision is None:
            raise UserError(
                f"the Hub does not say which commit of {published.repo} is the newest; check the name and the network, "
                f"name a commit as hub:{own}@COMMIT, or a copy with data.mirror."
            )
        found[own] = revision
    return found


def copy_hash(folder: Path) -> str:
    """16 hex digits of the names and contents of all files in a folder; of a zip, of its entries' own checksums."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        if path.suffix == ".zip" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                digest.update(repr([(entry.filename, entry.CRC) for entry in packed.infolist()]).encode())
        else:
            digest.update(file_hash(path).encode())
    return digest.hexdigest()[:16]
