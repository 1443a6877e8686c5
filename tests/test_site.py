"""The reports as a site, in a real Chromium: what a reader with a phone, a keyboard or a screen reader meets."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from aunce.study.grid import PROJECT

REPORTS = PROJECT / "reports"
PAGES = sorted(path for path in REPORTS.rglob("index.html") if "runs" not in path.parts)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, SCREEN = {"width": 375, "height": 667}, {"width": 1280, "height": 800}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.relative_to(REPORTS).as_posix()),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[site]'")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a page; what it asked for and complained of is in `.requests` and `.complaints`."""
    contexts = []

    def visit(path, **options):
        contexts.append(browser.new_context(offline=True, **options))
        page = contexts[-1].new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(path.as_uri(), wait_until="load")
        return page

    yield visit
    for context in contexts:
        context.close()


def test_a_page_complains_of_nothing_and_asks_for_files_only(visit, path):
    page = visit(path)
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("file:")] == []
    broken = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(broken) == []


def test_links_are_alive(visit, path):
    page = visit(path)
    for url in page.evaluate("() => [...document.links].map(link => link.href)"):
        parts = urlsplit(url)
        if parts.scheme == "file":
            target = Path(unquote(parts.path))
            assert target.is_file(), url
            if parts.fragment:
                assert re.search(rf'id="{re.escape(parts.fragment)}"', target.read_text()), url


def test_nothing_is_cut_off_on_a_phone(visit, path):
    page = visit(path, viewport=PHONE, is_mobile=True)
    wide = "() => [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > 376"
    wide += " && !e.closest('.box')).map(e => e.outerHTML.slice(0, 120))"
    assert page.evaluate(wide) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("viewport", [PHONE, SCREEN], ids=["phone", "screen"])
def test_axe_finds_no_fault(visit, path, viewport):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install -e '.[site]'")
    page = visit(path, viewport=viewport)
    found = axe.Axe().run(page).response["violations"]
    assert {fault["id"]: [node["html"][:200] for node in fault["nodes"][:3]] for fault in found} == {}


def test_a_keyboard_reaches_everything_in_order_and_leads_past_the_contents(visit, path):
    page = visit(path)
    names = "a[href], summary, [tabindex='0']"
    expected = page.evaluate(f'() => [...document.querySelectorAll("{names}")].filter(e => e.checkVisibility()).length')
    reached = []
    for _ in range(expected):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(f'() => [...document.querySelectorAll("{names}")].indexOf(document.activeElement)')
        )
    assert -1 not in reached
    assert reached == sorted(set(reached))
    page = visit(path)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"


def test_a_page_prints_whole(visit, path):
    page = visit(path, viewport={"width": 794, "height": 1123})  # A4 at 96 dots an inch
    page.emulate_media(media="print")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 794
    assert not page.is_visible("nav")
