"""`medvlt compare-app`: the comparison of a run's arms as one page, served to this machine alone.

Python's own server; the page asks nobody else for anything. What is compared stands in comparing.py.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.results import NOTICE
from medvlt_lib.phantom.redraw import drawable_values
from medvlt_lib.stages.comparing import DRAWN, MOST, ON, PICTURES, Comparison, View
from medvlt_lib.stages.report import TEMPLATES, templates

POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; form-action 'self'"
HERE = ("localhost", "127.0.0.1")


def columns(view: View) -> Markup:
    """A view as a piece of HTML that needs nothing else; text of data and models is escaped."""
    return Markup(templates().get_template("columns.html.jinja").render(view=view, notice=NOTICE))


def page(comparison: Comparison, query: dict[str, str]) -> str:
    """The page for one question. `query`: question, picture, place (of the value on the slider) and samples; what is
    missing is the first question as it is. What cannot be done is said on the page."""
    first = next(iter(comparison.questions), "")
    chosen: dict[str, Any] = {"question": query.get("question", first), "picture": query.get("picture", ON)}
    question = comparison.questions.get(chosen["question"])
    values = drawable_values(question) if question and comparison.live else []
    own = values.index(question.answer) if question and question.answer in values else 0
    chosen["place"] = min(max(_number(query.get("place"), own), 0), max(0, len(values) - 1))
    chosen["samples"] = min(max(_number(query.get("samples"), 1), 1), MOST)
    value = values[chosen["place"]] if values else None
    shown, error = Markup(""), None
    try:
        shown = columns(comparison.view(chosen["question"], chosen["picture"], value, chosen["samples"]))
    except UserError as mistake:
        error = str(mistake)
    labels = [(name, f"{q.group.replace('_', ' ')}: {q.question[:70]}") for name, q in comparison.questions.items()]
    pictures = {key: label for key, label in PICTURES.items() if key != DRAWN or values}
    return templates().get_template("compare.html.jinja").render(
        name=comparison.run.folder.name, notice=NOTICE, questions=labels, pictures=pictures, chosen=chosen,
        values=values, most=MOST, error=error, columns=shown,
    )  # fmt: skip


def server(comparison: Comparison, port: int) -> ThreadingHTTPServer:
    """The server, not yet running; port 0 takes a free one. Raises UserError for a port that is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
            if self.headers.get("Host", "").rpartition(":")[0] not in HERE:  # another page's name for this machine
                return self._send(403, "text/plain", "this page is served to this machine alone")
            if path == "/":
                own = {key: found[-1] for key, found in parse_qs(query).items()}
                return self._send(200, "text/html", page(comparison, own))
            if path == "/compare.js":
                return self._send(200, "text/javascript", (TEMPLATES / "compare.js").read_text(encoding="utf-8"))
            return self._send(404, "text/plain", "there is no such page")

        def _send(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing of what went well."""

    try:
        return ThreadingHTTPServer((HERE[1], port), Handler)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port.") from error


def serve(comparison: Comparison, port: int) -> None:
    """Serve the page until Ctrl-C."""
    with server(comparison, port) as running:
        print(f"open http://127.0.0.1:{running.server_address[1]} (Ctrl-C ends it)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print("ended.", file=sys.stderr)


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 4 else otherwise
