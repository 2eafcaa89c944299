"""Results and findings of studies as tables: for the terminal, README.md, notebook 06 and findings.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import fmean

from medvlt_lib.core.files import write_json, write_text
from medvlt_lib.core.results import NOTICE
from medvlt_lib.core.tables import markdown_table, percent
from medvlt_lib.study.cells import study
from medvlt_lib.study.findings import (
    CANNOT_TELL,
    DOES_NOT,
    HOLDS,
    NOT_RUN,
    RULE,
    Verdict,
    as_json,
    beside,
    by_label,
    claims_file,
    families_of,
    judged,
    results_of_studies,
)
from medvlt_lib.study.measures import accuracies
from medvlt_lib.study.results import SHIPPED, answers_of

GROUPS = ("text.trained", "text.other", "image.trained", "image.other")
ONE_LETTER = 0.6  # a share of answers; no letter is right half as often
BESIDE = (
    "The same claims about the tiny model, which differs in more than its pretraining (size, no LoRA, wording of the "
    "questions, lengths, which step is kept): the two are set beside each other, not tested against each other."
)
Rows = list[tuple[str, ...]]


def findings_table(name: str, verdicts: list[Verdict]) -> tuple[Rows, str]:
    """One study as rows of text, header first, and what stands below it."""
    rows: Rows = [("claim", "difference, points", "p (Holm)", "detectable", "seeds", "verdict")]
    for v in verdicts:
        figures = (_span(v), f"{v.p_holm:.3f}", f"{100 * v.detectable:.1f}") if v.verdict != NOT_RUN else ("", "", "")
        rows.append((v.claim["claim"], *figures, str(v.seeds), v.verdict))
    own = study(name)
    below = f"{own['question']} {claims_file()['seeds']} seeds were planned."
    if any(v.claim["a"].get("measure") == "perplexity" for v in verdicts):
        below += " Of perplexity a point is about 1 %: 100 times the difference of natural logarithms."
    if any(v.verdict == NOT_RUN for v in verdicts):
        where = "" if own["profile"] == "tiny" else f" --profile {own['profile']}"
        below += f" What was not run: medvlt study {name}{where} --seeds {claims_file()['seeds']}."
    return rows, below


def _span(v: Verdict) -> str:
    return "" if v.verdict == NOT_RUN else f"{100 * v.mean:+.1f} [{100 * v.low:+.1f}, {100 * v.high:+.1f}]"


def beside_table(name: str, verdicts: list[Verdict], folder: Path) -> Rows:
    """The claims that a study shares with those that it is set `beside`, header first, each with the difference and the
    verdict in both; without any, no row at all."""
    rows: Rows = [
        (v.claim["claim"], _span(v), v.verdict, _span(other[1]), other[1].verdict, other[0])
        for v, other in zip(verdicts, beside(name, folder), strict=True)
        if other
    ]
    here = study(name)["profile"]
    head = ("claim", f"{here}, points", f"{here}, verdict", "tiny, points", "tiny, verdict", "tiny's study")
    return [head, *rows] if rows else []


def arms_table(name: str, results: dict[str, dict[int, dict]], folder: Path) -> Rows:
    """The arms of a study: mean accuracy over seeds by group of families, in per cent, where it was measured the mean
    perplexity on plain language, and the seeds that were run."""
    spoken = "language" in study(name)["looks"]
    rows: Rows = [("arm", *(f"{group}, %" for group in GROUPS), *["perplexity"] * spoken, "seeds")]
    for label in study(name)["arms"]:
        runs = results.get(label, {}).values()
        own = [accuracies(folder, runs, families_of(group)) for group in GROUPS]
        cells = [percent(fmean(shares)) if shares else "" for shares in own]
        if spoken:
            read = [result["language"]["perplexity"] for result in runs if "language" in result]
            cells.append(f"{fmean(read):.2f}" if read else "")
        rows.append((label, *cells, str(len(own[0])) if own[0] else "not run"))
    return rows


def cautions(name: str, verdicts: list[Verdict], results: dict[str, dict[int, dict]], folder: Path) -> list[str]:
    """What a reader of a study's verdicts must know: trainings that the rule for checkpoints undid, models that give
    most pictures the same letter, and claims whose two sides are equal in every seed."""
    found = []
    for label in study(name)["arms"]:
        trained = [result for result in results.get(label, {}).values() if result["training"]]
        steps = [result["training"].get("checkpoint_step") for result in trained]
        if undone := steps.count(0):
            found.append(
                f"{label}: in {undone} of {len(steps)} seeds validation fell, and the rule for checkpoints kept the "
                "weights from before the training; what is compared there is the model that it began with."
            )
        if spoilt := sum(_most_given(answers_of(folder, result)) > ONE_LETTER for result in trained):
            found.append(
                f"{label}: in {spoilt} of {len(trained)} seeds the model gives one letter to more than "
                f"{100 * ONE_LETTER:.0f} % of the questions on pictures; what is compared there is a model that "
                "training spoilt."
            )
    for v in verdicts:
        if v.verdict != NOT_RUN and not any(v.differences):
            found.append(f'"{v.claim["claim"]}": both sides are equal in every seed, so nothing could differ.')
    return found


def _most_given(rows: list[dict]) -> float:
    """The share of the letter that is given most often to questions on pictures, each asked once; 0 without any."""
    given = Counter(row["letter"] for row in rows if row["look"] == "greedy" and row["modality"] == "image")
    return max(given.values()) / given.total() if given else 0.0


def mean_accuracies(group: str, folder: Path = SHIPPED) -> dict[str, float]:
    """The mean accuracy over seeds, on a group of families, of every arm that was run."""
    found = {label: accuracies(folder, own.values(), families_of(group)) for label, own in by_label(folder).items()}
    return {label: fmean(shares) for label, shares in found.items() if shares}


def summary_table(folder: Path) -> str:
    """README's table: each study with its question and how many of its claims hold, as Markdown."""
    head, *rows = summary_rows(judged(None, folder))
    return markdown_table([head, *((f"`{name}`", *cells) for name, *cells in rows)])


def summary_rows(verdicts: dict[str, list[Verdict]]) -> Rows:
    """Each study with its question and how many of its claims hold, header first."""
    rows: Rows = [("study", "question", HOLDS, DOES_NOT, CANNOT_TELL, NOT_RUN)]
    for name, own in verdicts.items():
        counts = Counter(v.verdict for v in own)
        numbers = (str(counts[verdict]) for verdict in (HOLDS, DOES_NOT, CANNOT_TELL, NOT_RUN))
        rows.append((name, study(name)["question"], *numbers))
    return rows


def findings_markdown(every: dict[str, list[Verdict]], folder: Path) -> str:
    """The whole of findings.md: every study with its arms, its claims and their verdicts."""
    results = results_of_studies(every, folder)
    runs = {r["key"]: r for labels in results.values() for own in labels.values() for r in own.values()}.values()
    hours = sum(r["seconds"]["all"] for r in runs) / 3600
    trained = sum(bool(r["training"]) for r in runs)
    lines = [
        "# What the studies found", "", NOTICE, "",
        f"{len(runs)} runs, {trained} of them with training, {hours:.1f} hours of machine time. The claims were "
        "written before their runs (`medvlt_lib/assets/studies/claims.yaml`). Differences are points of the mean over "
        "families, with a 95 % t-interval over seeds; `detectable` is the difference that as many seeds would have "
        "found with a power of 80 %.", "", f"The rule: {RULE}.", "",
        f"The smallest difference that matters is {100 * claims_file()['matters']:.0f} points.", "",
        "What none of this shows: anything about real patients, real pictures or large models. The world is synthetic, "
        "its models have 1 and 4 million parameters, in `pretrained` 136 million, and each claim is about the settings "
        "that were run.", "",
    ]  # fmt: skip
    for name, verdicts in every.items():
        rows, below = findings_table(name, verdicts)
        papers = ["in the papers", *(v.claim["paper"] for v in verdicts)]
        table = [(claim, paper, *rest) for (claim, *rest), paper in zip(rows, papers, strict=True)]
        arms = markdown_table(arms_table(name, results[name], folder))
        care = [f"- Read with care: {caution}" for caution in cautions(name, verdicts, results[name], folder)]
        lines += [f"## {name}", "", below, "", arms, "", markdown_table(table), "", *care, *[""] * bool(care)]
        if shared := beside_table(name, verdicts, folder):
            lines += [BESIDE, "", markdown_table(shared), ""]
    return "\n".join(lines)


def write_findings(folder: Path) -> Path:
    """Write findings.md and findings.json beside the results; returns the path of the first."""
    path, every = folder / "findings.md", judged(None, folder)
    write_json(folder / "findings.json", as_json(every))
    write_text(path, findings_markdown(every, folder))
    return path
