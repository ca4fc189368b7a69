"""The page in a real browser: no error, no request, and its controls by keyboard and by mouse."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthgen.report.collect import collect
from synthgen.report.compare import compare
from synthgen.report.page import comparison_page, page, write_page
from tests.browser import Browser, browsing
from tests.report.runs import HOSTILE, curated

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the browser for tests is for Linux"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    run = curated(root).dir
    write_page(root / "report.html", page(collect(run)))
    write_page(root / "compare.html", comparison_page(compare(run, run, meaning=False)))
    return root / "report.html"


@pytest.fixture
def opened(browser: Browser, file: Path) -> Browser:
    browser.size(1280, 900)
    browser.open(file)
    return browser


def quiet(browser: Browser, file: Path) -> None:
    assert browser.errors == []
    assert browser.requests == [file.resolve().as_uri()]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 820, 1440])
def test_it_opens_at_every_size(browser: Browser, file: Path, width: int, dark: bool) -> None:
    for each in (file, file.with_name("compare.html")):
        browser.size(width, 900, dark=dark)
        browser.open(each)
        assert browser.get("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        bright = browser.get("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128")
        assert bright is not dark
        quiet(browser, each)


def test_nothing_that_a_model_wrote_is_run(opened: Browser, file: Path) -> None:
    opened.get("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    while not opened.get("document.getElementById('more').hidden"):
        opened.get("document.getElementById('more').click()")
    opened.get("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    opened.until("[...document.querySelectorAll('.row')].every(each => each.querySelector('.inside'))")
    assert "chats" in opened.get("document.title")
    assert opened.get("document.images.length + document.scripts.length") == 2
    # Text content is what was written, each unseen sign as its number.
    quotes = "[...document.querySelectorAll('.part blockquote')]"
    seen = opened.get(f"{quotes}.map(each => each.textContent).join('\\n')")
    for name in ("ends the script", "an image", "a comment", "template", "arabic", "family"):
        assert HOSTILE[name] in seen, name
    assert "read U+202Eterces on si sihtU+202C from" in seen
    assert "zeroU+200Bwidth and a markU+FEFF" in seen
    assert "a null U+0000 and a bell U+0007" in seen
    assert "one lineU+2028another" in seen
    quiet(opened, file)


def test_scripts_of_others_are_refused(opened: Browser) -> None:
    opened.get("""(() => {
        const made = document.createElement("script");
        made.textContent = "document.title = 'taken'";
        document.body.append(made);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
    })()""")
    opened.get("new Promise(done => setTimeout(done, 50))")
    assert "taken" not in opened.get("document.title")
    assert any("Content Security Policy" in error for error in opened.errors)


def test_rows_are_searched_and_opened_by_keyboard(opened: Browser, file: Path) -> None:
    everything = opened.get("document.getElementById('found').textContent")
    opened.get("document.getElementById('query').focus()")
    opened.type("poets")
    assert opened.get("document.getElementById('found').textContent").startswith("1 of the ")
    assert opened.get("document.querySelectorAll('.row').length") == 1
    for _ in range(2):  # past the choice of fates, to the row
        opened.press("Tab")
    assert opened.get("document.activeElement.tagName") == "SUMMARY"
    opened.press("Enter")
    assert opened.get("document.querySelector('.row').open")
    inside = opened.until("document.querySelector('.row .inside')?.textContent")
    assert "poets" in inside
    assert "data/docs.jsonl" in inside
    opened.get("document.getElementById('fate').focus()")
    opened.press("Tab")
    opened.get("document.getElementById('query').value = ''")
    opened.get("document.getElementById('query').dispatchEvent(new Event('input'))")
    assert opened.get("document.getElementById('found').textContent") == everything
    quiet(opened, file)


def test_rows_are_chosen_by_fate_with_the_mouse(opened: Browser, file: Path) -> None:
    opened.get("""(() => { const fate = document.getElementById("fate");
        fate.value = "words"; fate.dispatchEvent(new Event("change")); })()""")
    assert opened.get("document.querySelectorAll('.row').length") == 3
    opened.click(".row summary")
    opened.until("document.querySelector('.row .inside') !== null")
    assert "dropped: words" in opened.get("document.querySelector('.row').textContent")
    quiet(opened, file)


def test_the_map_by_keyboard_and_mouse(opened: Browser, file: Path) -> None:
    opened.get("document.getElementById('map').focus()")
    opened.press("ArrowRight")
    first = opened.get("document.getElementById('point').textContent")
    opened.press("ArrowRight")
    opened.press("ArrowUp")
    second = opened.get("document.getElementById('point').textContent")
    assert "No dot" not in first
    assert first != second
    assert opened.get("document.querySelectorAll('#map .chosen').length") == 1
    opened.press("Enter")
    assert opened.get("document.activeElement.id") == "query"
    assert opened.get("document.querySelectorAll('.row').length") == 1
    opened.click("#map circle[data-n='5']", press=False)
    assert opened.get("document.querySelector('#map .chosen').dataset.n") == "5"
    opened.click("#legend li:nth-child(2) button")
    lit = opened.get("document.querySelectorAll('#map .lit').length")
    assert str(lit) == opened.get("document.querySelector('#legend [aria-pressed=true] small').textContent")
    circles = "[...document.querySelectorAll('#map circle')]"
    colours = f"new Set({circles}.map(each => getComputedStyle(each).fill)).size"
    opened.get("""(() => { const by = document.getElementById("colour");
        by.value = "kind"; by.dispatchEvent(new Event("change")); })()""")
    assert opened.get(colours) == 3
    quiet(opened, file)


def test_edges_of_bounds_open_by_keyboard(opened: Browser, file: Path) -> None:
    opened.get("document.querySelector('.edges summary').focus()")
    opened.press("Enter")
    assert opened.get("document.querySelector('.edges').open")
    assert "just dropped" in opened.get("document.querySelector('.edges').textContent")
    quiet(opened, file)


def test_everything_that_can_be_used_has_a_name(opened: Browser) -> None:
    nameless = opened.get("""
        [...document.querySelectorAll("a, button, input, select, summary, [tabindex], svg[role]")]
        .filter(each => each.id !== "more")
        .filter(each => !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.length))
        .map(each => each.outerHTML.slice(0, 100))""")
    assert nameless == []
    assert opened.get(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5')].every(each => each.textContent.trim())"
    )
    ids = opened.get("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_movement_is_for_those_who_want_it(browser: Browser, file: Path) -> None:
    for still, wanted in ((True, "auto"), (False, "smooth")):
        browser.size(1280, 900, still=still)
        browser.open(file)
        assert browser.get("getComputedStyle(document.documentElement).scrollBehavior") == wanted


def test_text_can_be_read_by_contrast(browser: Browser, file: Path) -> None:
    """Letters on their ground have a contrast of 4.5 at least (WCAG 2.2, 1.4.3), in light and dark."""
    script = """(() => {
        const light = c => { const [r, g, b] = c.match(/\\d+(\\.\\d+)?/g).map(Number).slice(0, 3)
            .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = e => { for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor; if (c !== "rgba(0, 0, 0, 0)") return c; } };
        const texts = "p, small, h1, h2, h3, h5, td, th, a, code, mark, .unseen, label, li";
        return [...document.querySelectorAll(texts)]
            .filter(e => e.textContent.trim() && e.offsetParent)
            .map(e => { const both = [light(getComputedStyle(e).color), light(ground(e))];
                const [a, b] = both.sort((x, y) => y - x);
                return [(a + 0.05) / (b + 0.05), e.className || e.tagName]; })
            .filter(([ratio]) => ratio < 4.5); })()"""
    for dark in (False, True):
        browser.size(1280, 900, dark=dark)
        browser.open(file)
        assert browser.get(script) == []
