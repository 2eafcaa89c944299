"""The notebooks' form: order of cells, literal parameters, short cells, no stray outputs, links that resolve."""

import ast
import itertools
import json
import re
from pathlib import Path
from statistics import mean

import nbformat
import pytest

from medvlt_lib.course.lesson import NOTEBOOKS
from medvlt_lib.course.runner import notebooks
from medvlt_lib.phantom.questions import FAMILIES

ROOT = Path(__file__).parents[2]
NAMES = ["00_start_here", "01_data", "02_filtering", "03_sft", "04_grpo", "05_eval", "06_analysis"]
TAGS = {"parameters", "compute", "keep_output", "metrics", "exercise", "solution", "check"}
ANSWER = re.compile(r"<details><summary>Answer</summary>\n\n(.+?)\n\n</details>", re.DOTALL)


def test_all_seven_are_there():
    assert [p.stem for p in notebooks()] == NAMES


@pytest.fixture(params=NAMES)
def notebook(request):
    read = nbformat.read(NOTEBOOKS / f"{request.param}.ipynb", as_version=4)
    read.cells = [c for c in read.cells if "install" not in c.metadata.get("tags", [])]  # see test_badges.py
    return read


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def is_of_an_exercise(cell):
    return bool({"exercise", "solution", "check"} & set(cell.metadata.get("tags", [])))


def tagged(notebook, tag):
    return [i for i, c in enumerate(notebook.cells) if tag in c.metadata.get("tags", [])]


def test_order_of_cells(notebook):
    kinds = [c.cell_type for c in notebook.cells]
    assert re.match(r"# \d\d · ", notebook.cells[0].source)
    assert "not for clinical use" in notebook.cells[0].source.replace("\n", " ")
    assert notebook.cells[1].source.startswith("You will")
    [parameters], [metrics] = tagged(notebook, "parameters"), tagged(notebook, "metrics")
    assert "lesson.begin" in notebook.cells[parameters + 1].source
    assert metrics == len(kinds) - 1 and "lesson.finish" in notebook.cells[metrics].source
    assert [c.source for c in code(notebook)].index(notebook.cells[parameters].source) == 1  # after the picture
    assert "If it goes wrong" in notebook.cells[metrics - 1].source and "Recap" in notebook.cells[metrics - 1].source


def test_tags_and_sizes(notebook):
    assert {t for c in notebook.cells for t in c.metadata.get("tags", [])} <= TAGS
    assert max(len(c.source.splitlines()) for c in code(notebook)) <= 25
    # Exercises are done, not read, and counted in minutes.
    read = [c for c in notebook.cells if not (is_of_an_exercise(c) or c.source.startswith("## Exercises"))]
    assert 15 <= sum(c.cell_type == "code" for c in read) <= 30
    words = sum(len(c.source.split()) for c in read if c.cell_type == "markdown")
    assert 800 <= words <= 2000, words


@pytest.mark.parametrize("name", NAMES)
def test_code_is_read_without_scrolling_and_without_comments_for_tools(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    lines = [line for cell in code(notebook) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 88 or re.search(r"# (noqa|fmt:|type:)", line)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_prediction_and_recap_has_its_folded_answer(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    words = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    asking = [text for text in words if "*Predict" in text or "## Recap" in text]
    assert len(asking) >= 4 and all(len(ANSWER.findall(text)) == 1 for text in asking), name
    for cell, after in itertools.pairwise(notebook.cells):  # a question that a cell prints is answered right below it
        if cell.cell_type == "code" and "Predict" in cell.source:
            assert ANSWER.search(after.source)
    plain = [c.source for c in notebook.cells if c.cell_type == "markdown" and not is_of_an_exercise(c)]
    assert sum(text.count("<details>") for text in plain) == sum(len(ANSWER.findall(text)) for text in plain)


def test_notebook_04_shows_the_lines_of_the_page_and_the_settings_as_they_are():
    from medvlt_lib.core.sections import Grpo
    from medvlt_lib.training import by_hand

    notebook = nbformat.read(NOTEBOOKS / "04_grpo.ipynb", as_version=4)
    [table] = [c.source for c in notebook.cells if "its line in `by_hand.py`" in c.source]
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if row.startswith("| ") and "`" in row][1:]
    page = Path(by_hand.__file__).read_text()
    assert len(rows) == 6 and all(row[1].strip(" `") in page for row in rows)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[2])]
    assert len(named) == 7 and set(named) <= set(Grpo.model_fields)


def test_parameters_are_literals_with_a_comment(notebook):
    [index] = tagged(notebook, "parameters")
    source = notebook.cells[index].source
    names = []
    for line, node in zip(source.splitlines(), ast.parse(source).body, strict=True):
        assert isinstance(node, ast.Assign) and "#" in line
        ast.literal_eval(node.value)
        names.append(node.targets[0].id)
    assert all(n.isupper() for n in names)
    assert names[:5] == ["PROFILE", "RUN", "SEED", "SETTINGS", "USE_REFERENCE"]


def test_outputs_are_kept_only_where_tagged(notebook):
    kept = 0
    for cell in code(notebook):
        if "keep_output" in cell.metadata.get("tags", []):
            kept += 1
            assert any("image/png" in o.get("data", {}) for o in cell.outputs), "a figure that is kept is there"
        else:
            assert not cell.outputs and cell.execution_count is None
        text = json.dumps(cell.outputs)
        assert "/home/" not in text and "/tmp/" not in text
    assert 1 <= kept <= 3
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"


def test_jsonl_is_read_by_the_one_reader(notebook):
    """`splitlines` would cut a completion at U+2028 or U+0085."""
    assert not any("splitlines" in c.source or "json.loads" in c.source for c in code(notebook))


def relative_links(text):
    return [t.split("#")[0] for t in re.findall(r"\]\(([^)]+)\)", text) if not re.match(r"https?:|#", t)]


def test_relative_links_resolve(notebook):
    links = [t for c in notebook.cells if c.cell_type == "markdown" for t in relative_links(c.source)]
    assert all((NOTEBOOKS / t).exists() for t in links), links


def test_commands_in_notebooks_exist(notebook):
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    check_commands(text)


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "TROUBLESHOOTING.md",
    "SECURITY.md",
    "docs/PATHS.md",
    "docs/INSTRUCTORS.md",
    ".github/pull_request_template.md",
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_link_and_command_what_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    folder = ROOT if name.startswith(".github") else (ROOT / name).parent
    assert all((folder / t).exists() for t in relative_links(text)), relative_links(text)
    check_commands(text)


def named_paths(text: str) -> list[str]:
    """Places in the library that a text names: medvlt_lib/core/stats.py, medvlt_lib/tiny/."""
    return re.findall(r"medvlt_lib/[\w./-]*[\w/]", text)


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG.md"])
def test_documents_name_places_that_exist(name):
    assert [p for p in named_paths((ROOT / name).read_text(encoding="utf-8")) if not (ROOT / p).exists()] == []


def test_notebooks_name_places_that_exist(notebook):
    assert [p for c in notebook.cells for p in named_paths(c.source) if not (ROOT / p).exists()] == []


@pytest.mark.parametrize("name", ["docs/PATHS.md", "docs/INSTRUCTORS.md"])
def test_pages_name_sections_and_exercises_that_exist(name):
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    sources = {n[:2]: [c.source for c in nbformat.read(NOTEBOOKS / f"{n}.ipynb", as_version=4).cells] for n in NAMES}
    sections, exercises = re.findall(r"(0\d), section (\d+)", text), re.findall(r"(0\d)\.(\d) \*(.+?)\*", text)
    assert len(sections) >= 5 and len(exercises) >= 5
    for notebook, number in sections:
        assert any(re.search(rf"^## {number}\. ", source, re.M) for source in sources[notebook]), (notebook, number)
    for notebook, number, title in exercises:
        head = f"### Exercise {number}: {title} ("
        assert any(source.startswith(head) for source in sources[notebook]), (notebook, number, title)


def test_the_paths_hold_the_computed_times_and_their_sums():
    from medvlt_lib.course.times import table, whole_course

    text = (ROOT / "docs" / "PATHS.md").read_text(encoding="utf-8")
    assert table() in text, "run `medvlt table`"
    hour = text[text.index("## 60 minutes") : text.index("## A day")]
    assert sum(int(minutes) for minutes in re.findall(r"^\| (\d+) \|", hour, re.M)) == 60
    cells = [c for n in NAMES for c in nbformat.read(NOTEBOOKS / f"{n}.ipynb", as_version=4).cells]
    core = [int(m[1]) for c in cells if (m := re.match(r"### Exercise \d: .+ \(core, (\d+) min\)", c.source))]
    assert f"({whole_course()[0]} minutes of reading) and the core exercises ({sum(core)} minutes)" in " ".join(
        text.split()
    )
    day = text[text.index("## A day") : text.index("What stays for another day")]
    assert len(re.findall(r"0\d\.\d \*", day)) == len(core)  # each of them has its place in the day


def test_the_points_of_the_assessment_are_a_hundred():
    text = (ROOT / "docs" / "INSTRUCTORS.md").read_text(encoding="utf-8")
    rubric = text[text.index("## Assessment") :]
    assert sum(int(points) for points in re.findall(r"^\| [^|]+ \| (\d+) \|", rubric, re.M)) == 100


def check_commands(text: str) -> None:
    """Every `medvlt ...` and `make ...` in a text exists, with its options."""
    import typer

    from medvlt_lib.__main__ import app

    root = typer.main.get_command(app)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"(?:^    |`|&& )make ([a-z-]+)", text, re.M):
        assert target in targets, target
    for line in re.findall(r"(?:^    |`|&& )medvlt ([^`\n&#]+)", text, re.M):
        words = line.split()
        command = root.commands.get(words[0])
        assert command is not None, line
        if hasattr(command, "commands") and len(words) > 1:
            command = command.commands.get(words[1])
            assert command is not None, line
        options = {o for p in command.params for o in p.opts} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{line}: {word}"


def test_check_commands_refuses_what_does_not_exist():
    for text in ("`medvlt teach`", "`medvlt data --speed 3`", "    make magic", "`medvlt phantom draw`"):
        with pytest.raises(AssertionError):
            check_commands(text)


def test_the_readme_shows_the_recorded_tables():
    from medvlt_lib.course.readme import arms_table, times_table

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert times_table() in text and arms_table() in text


def test_the_readme_s_sentence_on_pictures_is_that_of_the_recorded_runs():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    means = {}  # of each profile, in percent: base, sft_text, rl_text
    for profile in ("tiny", "tiny-qlora"):
        arms = [arm["datasets"] for arm in json.loads((ROOT / f"results/arms-{profile}.json").read_text())]
        families = [name for name in arms[0] if FAMILIES[name].modality == "image"]
        shares = [100 * mean(arm[name]["accuracy"] for name in families) for arm in arms]
        means[profile] = [f"{share + 1e-9:.1f} %" for share in shares]  # 63.75 is 63.8, not a little less than it
    assert "goes from {} to {} with SFT and to {} with GRPO".format(*means["tiny"]) in text
    assert "from {} to {} and to {}; no interval".format(*means["tiny-qlora"]) in text


def test_the_readme_s_sentence_on_teachers_is_that_of_the_recorded_runs():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    recorded = json.loads((ROOT / "results/sft-styles-tiny.json").read_text())
    shares = [recorded["base"], *(recorded["summary"][name] for name in ("own, clean", "foreign, clean"))]
    base, own, foreign = (f"{100 * share['accuracy'] + 1e-9:.1f} %" for share in shares)
    assert recorded["summary"]["own, clean"]["seeds"] == recorded["summary"]["foreign, clean"]["seeds"] == 3
    assert f"three seeds, the model goes from {base} to {own} with its own style, and to {foreign} with the" in text
