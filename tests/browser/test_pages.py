"""The report, the comparison and the site, opened at 1280 and 390 pixels, in light and in dark, and printed."""

import threading
from urllib.parse import urljoin, urlsplit

import nbformat
import pytest

from medvlt_lib.course.site import build_site
from medvlt_lib.stages import compare_app
from medvlt_lib.stages.comparing import open_comparison
from tests.browser.conftest import served

SIZES = [(1280, False), (1280, True), (390, False), (390, True)]
SCRIPT = "<script>window.attacked = true</script><img src=x onerror='window.attacked = true'>"
# Tables and code that are wider than the window, and do not scroll by themselves.
WIDE = """[...document.querySelectorAll('table, pre, svg, img')].filter(e => {
  const box = e.getBoundingClientRect();
  let p = e;
  while (p && !['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) p = p.parentElement;
  return box.right > innerWidth + 1 && !p;
}).length"""


def elsewhere(tab, *own: str) -> list[str]:
    return [url for url in tab.requests if not url.startswith((*own, "data:", "about:", "blob:"))]


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_the_report_fits_its_window_and_asks_nobody(tab, run, pictures, width, dark):
    file = (run.folder / "06_analysis" / "report.html").resolve().as_uri()
    tab.open(file, width, 900, dark)
    assert tab.sideways() == 0 and tab.run(WIDE) == 0
    shown = tab.run(
        "[...document.querySelectorAll('.wide, .narrow')].filter(e => e.offsetHeight).map(e => e.className)"
    )
    assert set(shown) == {"narrow" if width == 390 else "wide"}
    ink, paper = tab.run("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    light = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, paper)]
    assert (light[0] > light[1]) == dark
    tab.picture(pictures / f"report-{width}-{'dark' if dark else 'light'}.png")
    assert tab.errors == [] and elsewhere(tab, "file://") == []


def test_the_printed_report_has_what_is_folded_on_the_screen(tab, run, pictures):
    tab.open((run.folder / "06_analysis" / "report.html").resolve().as_uri(), 1280, 900, True)
    hidden = (
        "[...document.querySelectorAll('table')].filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert tab.run(hidden) > 0
    tab.call("Emulation.setEmulatedMedia", media="print")
    heights = tab.run("[...document.querySelectorAll('details table')].map(e => e.getBoundingClientRect().height)")
    assert len(heights) > 4 and min(heights) > 10
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.pdf(pictures / "report.pdf")
    assert (pictures / "report.pdf").read_bytes().startswith(b"%PDF")


def test_moving_the_slider_draws_the_heart_anew_and_asks_again(tab, run, pictures):
    comparison = open_comparison(run)
    question = next(q for q in comparison.questions.values() if q.family == "cardiothoracic_ratio")
    comparison.view(question.id)  # loads the models, which takes its time
    server = compare_app.server(comparison, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        tab.open(f"{address}?question={question.id}", 1280, 900)
        before = tab.run("document.querySelector('.asked img').src")
        slider = "document.querySelector('input[type=range]')"
        tab.run(f"{slider}.value = {slider}.value == 5 ? 0 : 5")
        tab.run(f"['input', 'change'].forEach(name => {slider}.dispatchEvent(new Event(name)))")
        tab.wait("location.search.includes('drawn') && document.querySelector('.asked img')", 60)
        wanted = tab.run("document.querySelector('output').textContent")
        assert tab.run("document.querySelector('.asked img').src") != before
        assert tab.run("document.querySelector('li.gold').textContent").split()[1] == wanted
        assert tab.run("[...document.querySelectorAll('.column')].map(e => e.dataset.arm)") == [
            "base",
            "sft_text",
            "rl_text",
        ]
        assert tab.run("document.querySelectorAll('.step').length") > 0
        tab.picture(pictures / "compare-1280.png")
        tab.open(tab.run("location.href"), 390, 900, True)
        assert tab.sideways() == 0
        tab.picture(pictures / "compare-390-dark.png")
        assert tab.errors == [] and elsewhere(tab, address) == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    """The site of a run with two notebooks that print formulas, marks and pictures."""
    out = tmp_path_factory.mktemp("site") / "site"
    (run.folder / "notebooks").mkdir(exist_ok=True)
    for name in ("00_start_here", "01_data"):
        notebook = nbformat.v4.new_notebook()
        code = nbformat.v4.new_code_cell("print('advantages')")
        code.outputs = [
            nbformat.v4.new_output("display_data", {"text/html": SCRIPT + "<table><tr><td>kept</td></tr></table>"}),
            nbformat.v4.new_output("stream", text=SCRIPT),
        ]
        words = (
            f"# {name}\n\n$$A_i = \\frac{{r_i - \\bar r}}{{s}}$$ and $a_i$\n\n[on](01_data.ipynb)\n\n## 1. Digits first"
        )
        notebook.cells = [nbformat.v4.new_markdown_cell(words), code]
        nbformat.write(notebook, run.folder / "notebooks" / f"{name}.ipynb")
    made = build_site([run.folder], out)
    assert made["bytes"] < 25e6
    return out


def test_every_page_of_the_site_can_be_reached_and_none_asks_elsewhere(tab, site, pictures):
    with served(site) as address:
        seen, waiting = set(), [address]
        while waiting:
            page = waiting.pop()
            seen.add(page)
            tab.open(page, 1280, 900)
            for link in tab.run("[...document.querySelectorAll('a[href]')].map(a => a.href)"):
                url = urljoin(page, urlsplit(link)._replace(fragment="").geturl())
                if url.startswith(address) and url not in seen and url not in waiting and "/files/" not in url:
                    waiting.append(url)
            assert not tab.run("window.attacked"), page
        made = {f"{address}{p.relative_to(site).as_posix().removesuffix('index.html')}" for p in site.rglob("*.html")}
        assert {page for page in made if "/files/" not in page and not page.endswith("404.html")} <= seen
        assert tab.errors == [] and elsewhere(tab, address) == []


def test_the_site_is_searched_and_has_formulas(tab, site, pictures):
    with served(site) as address:
        tab.open(f"{address}notebooks/00_start_here/?q=advantages", 1280, 900)
        tab.wait("document.querySelectorAll('#mkdocs-search-results article').length > 0")
        assert tab.run("document.querySelectorAll('math mfrac').length") == 1
        assert "XPIECE" not in tab.run("document.body.textContent") and "kept" in tab.run("document.body.textContent")
        for width, dark in SIZES:
            tab.open(f"{address}", width, 900, dark)
            assert tab.sideways() == 0 and tab.run(WIDE) == 0
            tab.picture(pictures / f"site-{width}-{'dark' if dark else 'light'}.png")
        assert tab.errors == []
