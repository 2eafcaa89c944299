"""Notebooks and Markdown files as pages for MkDocs; HTML and formulas are set aside, and put in after it has run.

A piece stands in the Markdown as one word, so that nothing in it is read as Markdown; `put_in` replaces the words in a
finished page. What a notebook printed keeps its look but no script, no frame and nothing that would be fetched.
"""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlt_lib.core.tables import visible

WORD = re.compile(r"(?:<p>)?(XPIECE\d+X)(?:</p>)?")
MATH = re.compile(
    r"(`+)(?:(?!\1).)*\1|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^\s$](?:[^$\n]*[^\s$\\])?)\$(?!\d)", re.DOTALL
)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
FORBIDDEN = ("script", "iframe", "object", "embed", "base", "form", "link", "meta")
LARGEST = 300_000  # bytes of a linked file that goes along


@dataclass
class Pages:
    """The pages under way: where they are written, which file of the project is which page, and the pieces."""

    docs: Path
    root: Path
    known: dict[Path, str]
    pieces: dict[str, str] = field(default_factory=dict)

    def piece(self, text: str) -> str:
        """The word that stands for a piece of HTML."""
        word = f"XPIECE{len(self.pieces)}X"
        self.pieces[word] = text
        return word

    def put_in(self, page: str) -> str:
        """A finished page with its pieces; a paragraph that holds nothing else makes way."""
        return WORD.sub(lambda found: self.pieces[found[1]], page)

    def markdown(self, text: str, source: Path, target: str) -> str:
        """Markdown of the project file `source` as that of the page `target`: formulas become MathML, folded parts are
        read as Markdown, links lead to pages or files of the site, and pictures of other machines become words."""
        text = MATH.sub(self._formula, text)
        text = text.replace("<details>", '<details markdown="1">')
        return LINK.sub(lambda found: self._link(found, source, target), text)

    def notebook(self, cells: list[dict[str, Any]], source: Path, target: str) -> str:
        """An executed notebook as Markdown; its pictures are written beside the page."""
        parts, folder = [], self.docs / Path(target).with_suffix("")
        for cell in cells:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(self.markdown(text, source, target))
            elif cell["cell_type"] == "code" and text.strip():
                parts.append(f"~~~~~~python\n{text}\n~~~~~~")
                parts += [self._output(output, folder) for output in cell.get("outputs", [])]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _output(self, output: dict[str, Any], folder: Path) -> str:
        data = output.get("data", {})
        if "text/html" in data:
            return self.piece(f'<div class="output">{harmless("".join(data["text/html"]))}</div>')
        if "image/png" in data:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{len(list(folder.iterdir())):02d}.png"
            path.write_bytes(base64.b64decode("".join(data["image/png"])))
            return f'<p class="output"><img src="{path.name}" alt="Figure"></p>'
        lines = output.get("text") or data.get("text/plain") or output.get("traceback") or []
        text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(lines))
        return self.piece(f'<pre class="output">{html.escape(visible(text))}</pre>') if text.strip() else ""

    def _formula(self, found: re.Match) -> str:
        tex = found["block"] or found["inline"]
        if tex is None:
            return found[0]  # it is code
        from latex2mathml.converter import convert

        return self.piece(convert(tex, display="block" if found["block"] else "inline"))

    def _link(self, found: re.Match, source: Path, target: str) -> str:
        where, text = found["target"], found["text"]
        if where.startswith(("http://", "https://")):
            return text if found["image"] else found[0]
        path, hash_, part = where.partition("#")
        if not path:
            return found[0]
        file = (source.parent / path).resolve()
        up = "../" * target.count("/")
        if page := self.known.get(file):
            return f"{found['image']}[{text}]({up}{page}{hash_}{part})"
        if file.is_file() and file.is_relative_to(self.root) and file.stat().st_size <= LARGEST:
            copy = self.docs / "files" / file.relative_to(self.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
            return f"{found['image']}[{text}]({up}files/{file.relative_to(self.root).as_posix()})"
        return text


def harmless(text: str) -> str:
    """HTML without scripts, frames, forms, event handlers, and addresses other than pictures that it holds itself."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(text, "html.parser")
    for tag in soup.find_all(FORBIDDEN):
        tag.decompose()
    for tag in soup.find_all(True):
        for name, value in list(tag.attrs.items()):
            outside = name in ("src", "href", "srcset", "xlink:href", "action", "data") and not str(
                value
            ).strip().startswith(("data:image/", "#"))
            if name.startswith("on") or outside or "url(" in str(value):
                del tag[name]
    return visible(str(soup))
