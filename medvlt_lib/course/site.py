"""`medvlt site`: the executed notebooks, README, findings and reports of runs as a small static site, made by MkDocs.

Every page is searchable; fonts and scripts are the theme's own files, formulas are MathML, and no page asks another
machine for anything. The notebooks and reports are those of runs that were made before; nothing is run here.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import yaml

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_text
from medvlt_lib.core.runs import STAGES
from medvlt_lib.course.lesson import NOTEBOOKS
from medvlt_lib.course.site_pages import Pages

TEXTS = {"README.md": "index.md", "TROUBLESHOOTING.md": "troubleshooting.md", "CONTRIBUTING.md": "contributing.md",
         "CHANGELOG.md": "changelog.md", "results/studies/findings.md": "findings.md"}  # fmt: skip
STYLE = """pre.output, .output { overflow-x: auto; } pre.output { border-left: 3px solid #0072B2; padding: .6rem; }
.output table { border-collapse: collapse; } .output td, .output th { padding: .2rem .6rem; text-align: right; }
.output img, img { max-width: 100%; height: auto; } .output img { background: #fff; }
math[display=block] { margin: 1rem 0; overflow-x: auto; }
table { display: block; overflow-x: auto; max-width: 100%; overflow-wrap: normal; }
main, .col-md-9 { overflow-wrap: anywhere; min-width: 0; }
"""
HEAD = """{% extends "base.html" %}{% block extrahead %}
<link id="hljs-light" rel="stylesheet" href="{{ 'code-light.css' | url }}">
<link id="hljs-dark" rel="stylesheet" href="{{ 'code-dark.css' | url }}" disabled>
{% endblock %}"""  # the theme's own names for the colours of code, which it turns on and off


def build_site(runs: list[Path], out: Path) -> dict[str, int]:
    """Write the site to `out`, which is replaced; returns how many pages, files and bytes it has.

    `runs`: run folders; notebooks are taken from the first that has executed ones, reports from each that has one.
    Raises UserError where there are none, where `out` holds something else, or where MkDocs is not installed.
    """
    if missing := [name for name in ("mkdocs", "latex2mathml") if find_spec(name) is None]:
        raise UserError(f"the site needs {missing[0]}; run `make site`, or install requirements/site.txt.")
    if out.exists() and any(out.iterdir()) and not (out / "sitemap.xml").exists():
        raise UserError(f"{out} holds files that are no site; name another folder with --out.")
    executed = next((found for run in runs if (found := sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb")))), [])
    if not executed:
        raise UserError(f"no run of {', '.join(map(str, runs))} has executed notebooks; run `medvlt course` first.")
    with tempfile.TemporaryDirectory() as temporary:
        docs = Path(temporary) / "docs"
        docs.mkdir()
        pages = _pages(docs, executed)
        # Step 1: the pages as Markdown.
        root = NOTEBOOKS.resolve().parent
        for name, target in TEXTS.items():
            if (root / name).exists():
                text = (root / name).read_text(encoding="utf-8")
                (docs / target).write_text(pages.markdown(text, root / name, target), encoding="utf-8")
        menu = [{"The course": "index.md"}, {"Notebooks": [_notebook(pages, path, root) for path in executed]}]
        menu += [{"Findings": "findings.md"}] if (docs / "findings.md").exists() else []
        menu += [{"Reports": reports}] if (reports := _reports(runs, docs)) else []
        others = [t for t in TEXTS.values() if t not in ("index.md", "findings.md") and (docs / t).exists()]
        menu += [{"More": [{t.removesuffix(".md").capitalize(): t} for t in others]}]
        # Step 2: MkDocs makes the site of them, and the pieces that it must not read are put in.
        made = Path(temporary) / "made"
        _mkdocs(docs, made, menu)
        for page in [*made.rglob("*.html"), made / "search" / "search_index.json"]:
            if page.parent.name != "reports" or page.name == "index.html":
                page.write_text(_finished(page, pages), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    files = [path for path in out.rglob("*") if path.is_file()]
    count = sum(path.suffix == ".html" for path in files)
    return {"pages": count, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def _pages(docs: Path, executed: list[Path]) -> Pages:
    root = NOTEBOOKS.resolve().parent
    known = {(root / name).resolve(): target for name, target in TEXTS.items() if (root / name).exists()}
    known |= {(NOTEBOOKS / path.name).resolve(): f"notebooks/{path.stem}.md" for path in executed}
    return Pages(docs, root, known)


def _notebook(pages: Pages, path: Path, root: Path) -> dict[str, str]:
    """Write the page of an executed notebook; returns its entry of the menu."""
    target, cells = f"notebooks/{path.stem}.md", read_json(path)["cells"]
    text = pages.notebook(cells, root / "notebooks" / path.name, target)
    file = pages.docs / target
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    title = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), path.stem)
    return {title: target}


def _reports(runs: list[Path], docs: Path) -> list[dict[str, str]]:
    """A page for the report of each run that has one: its model card, which can be searched, and the report itself."""
    found = []
    for run in runs:
        folder = run / STAGES["06"]
        if not (folder / "report.html").exists():
            continue
        (docs / "reports").mkdir(exist_ok=True)
        shutil.copy(folder / "report.html", docs / "reports" / f"{run.name}-report.html")
        card = (folder / "model_card.md").read_text(encoding="utf-8").partition("\n---\n")[2]
        link = f'<p><a href="../{run.name}-report.html">The whole report, with figures</a></p>'
        (docs / "reports" / f"{run.name}.md").write_text(f"{link}\n\n{card}", encoding="utf-8")
        found.append({run.name: f"reports/{run.name}.md"})
    return found


def _mkdocs(docs: Path, made: Path, menu: list) -> None:
    import logging

    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from pygments.formatters import HtmlFormatter

    logging.getLogger("mkdocs").setLevel(logging.ERROR)
    theme = {"name": "mkdocs", "color_mode": "auto", "user_color_mode_toggle": True, "highlightjs": False}
    theme["custom_dir"] = str(docs.with_name("theme"))
    extensions = ["tables", "fenced_code", "md_in_html", "codehilite", "sane_lists", {"toc": {"permalink": False}}]
    settings = {
        "site_name": "MedVLThinker course", "site_url": "", "docs_dir": str(docs), "site_dir": str(made), "nav": menu,
        "theme": theme, "plugins": ["search"], "extra_css": ["site.css"], "markdown_extensions": extensions,
    }  # fmt: skip
    write_text(docs.with_name("mkdocs.yml"), yaml.safe_dump(settings))
    for name, style in (("light", "default"), ("dark", "github-dark")):
        colours = HtmlFormatter(style=style).get_style_defs(".codehilite")
        write_text(docs / f"code-{name}.css", colours)
    write_text(docs / "site.css", STYLE)
    write_text(docs.with_name("theme") / "main.html", HEAD)
    build(load_config(str(docs.with_name("mkdocs.yml"))))


def _finished(page: Path, pages: Pages) -> str:
    """A page with its pieces; in the search index, without them. A heading that begins with a digit gets an address
    that does not, which the theme's script needs."""
    text = re.sub(r'(\bid="|(?:href=|"location":)"[^"#]*#)(?=\d)', r"\1s-", page.read_text(encoding="utf-8"))
    if page.suffix == ".json":
        return re.sub(r"XPIECE\d+X", "", text)
    return pages.put_in(text)
