"""Pages of the site: links lead to pages and files that are there, and what notebooks printed does nothing."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.course import site
from medvlt_lib.course.site_pages import MATH, Pages, harmless

PNG = base64.b64encode(b"\x89PNG, made up").decode()
ATTACK = "<script>alert(1)</script><img src=x onerror='alert(2)'><a href='javascript:alert(3)'>b</a>\u202e"


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []
        self.feed(page.partition("~~~~~~\n\n")[2])

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, [name for name, _ in attrs]))


@pytest.fixture
def pages(tmp_path):
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    for name in ("README.md", "notebooks/01_data.ipynb", "LICENSE"):
        (root / name).write_text(f"text of {name}")
    (root / "huge.json").write_text("0" * 400_000)
    (tmp_path / "docs").mkdir()
    known = {root / "README.md": "index.md", root / "notebooks/01_data.ipynb": "notebooks/01_data.md"}
    return Pages(tmp_path / "docs", root, known)


def test_links_lead_to_pages_or_files_of_the_site(pages):
    told = "[a](../README.md#top) [b](01_data.ipynb) [c](../LICENSE) [d](../huge.json) [e](../missing.md) [f](#here)"
    text = pages.markdown(f"{told} [g](https://a.b/c)", pages.root / "notebooks" / "x.ipynb", "notebooks/x.md")
    assert text == (
        "[a](../index.md#top) [b](../notebooks/01_data.md) [c](../files/LICENSE) d e [f](#here) [g](https://a.b/c)"
    )
    assert (pages.docs / "files" / "LICENSE").read_text() == "text of LICENSE"


def test_pictures_of_other_machines_become_words(pages):
    text = pages.markdown("![badge](https://img.example/b.svg) ![own](LICENSE)", pages.root / "README.md", "index.md")
    assert text == "badge ![own](files/LICENSE)"


def test_what_a_notebook_printed_does_nothing(pages):
    outputs = [
        {
            "output_type": "display_data",
            "data": {"text/html": [ATTACK, "<b style='color: red'>kept</b>"], "image/png": PNG},
        },
        {"output_type": "stream", "text": [ATTACK, "\x1b[31mred\x1b[0m"]},
        {"output_type": "display_data", "data": {"image/png": PNG, "text/plain": ["<Figure>"]}},
    ]
    cells = [{"cell_type": "code", "source": ["print(1)"], "outputs": outputs}, {"cell_type": "raw", "source": "x"}]
    written = pages.notebook(cells, pages.root / "notebooks" / "x.ipynb", "notebooks/x.md")
    page = pages.put_in(written)
    tags = Tags(page)
    assert not any(tag == "script" or set(names) & {"onerror", "href"} for tag, names in tags.seen)
    assert "\u202e" not in page and "&lt;script&gt;alert(1)" in page and "\x1b" not in page
    assert '<b style="color: red">kept</b>' in page
    assert "~~~~~~python\nprint(1)\n~~~~~~" in page and '<img src="00.png"' in page
    assert (pages.docs / "notebooks" / "x" / "00.png").read_bytes() == base64.b64decode(PNG)


def test_harmless_keeps_pictures_that_a_page_holds_itself():
    told = (
        f'<img src="data:image/png;base64,{PNG}"><img src="http://a.b/c.png"><p style="background: url(http://a)">x</p>'
    )
    assert harmless(told) == f'<img src="data:image/png;base64,{PNG}"/><img/><p>x</p>'


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("so $a_i$ and $$b\n= c$$", ["a_i", "b\n= c"]),
        ("`$x$` and ``a `$y$` b``", []),
        ("it costs $5 or $6, or \\$a$", []),
        ("```\n$z$\n```", []),
    ],
)
def test_formulas_are_told_from_code_and_money(text, formulas):
    found = [match["block"] or match["inline"] for match in MATH.finditer(text)]
    assert [f for f in found if f] == formulas


def test_what_is_missing_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="make site"):
        site.build_site([tmp_path], tmp_path / "out")
    monkeypatch.setattr(site, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="has executed notebooks"):
        site.build_site([tmp_path], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds files that are no site"):
        site.build_site([tmp_path], tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_the_sites_packages_are_none_of_the_courses():
    root = Path(__file__).parents[2]
    lines = [(root / "requirements" / name).read_text().splitlines() for name in ("site.txt", "cpu.txt")]
    own, course = ({line.split("==")[0] for line in one if "==" in line} for one in lines)
    assert "mkdocs" in own and not own & course
    assert re.search(r"requirements/site\.txt", (root / "Makefile").read_text())
