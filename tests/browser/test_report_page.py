"""The report in a real browser: it fits desktop and phone, is legible in light and dark, and neither runs nor loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Page, chromium, installed
from tests.browser.example_build import HOSTILE, hostile, manifest, quarantined, samples
from workflows.report import render

pytestmark = pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver (Debian: chromium-driver)")

SCREENS = [(1280, 900), (390, 844)]

# Every piece of text whose contrast with what lies behind it is under 4.5, as WCAG 2.1 section 1.4.3 computes it.
FAINT_TEXT = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = color => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = ([r, g, b]) => [r, g, b]
  .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
const behind = element => {
  for (; element; element = element.parentElement) {
    const color = rgba(getComputedStyle(element).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const seen = new Map();
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest('title') || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const text = rgba(element.closest('svg') ? style.fill : style.color), back = behind(element);
  const [low, high] = [luminance(text), luminance(back)].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5 || text[3] < 255) seen.set(element.tagName + '.' + element.getAttribute('class'), ratio);
}
return [...seen];
"""
OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    build = manifest()
    attacked = hostile(build)
    pages = {
        "usual": render(build, samples(build), quarantined(build)),
        "hostile": render(attacked, samples(attacked, "</blockquote>" + " ".join(HOSTILE)), quarantined(attacked)),
        "empty": render({}, {}),
    }
    folder = tmp_path_factory.mktemp("reports")
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SCREENS)
@pytest.mark.parametrize("name", ["usual", "hostile", "empty"])
def test_fits_and_is_legible(
    page: Page, reports: dict[str, Path], name: str, width: int, height: int, dark: bool
) -> None:
    page.open(reports[name], width, height, dark)
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.run(OPEN_ALL)
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run(FAINT_TEXT) == []
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(19, 21, 24)") == dark
    if name == "usual":
        figures = page.run("return [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width)")
        assert len(figures) > 60
        assert max(figures) > width / 3
    assert page.messages() == []
    assert page.requests() == [reports[name].as_uri()]


@pytest.mark.parametrize("width", [360, 390, 420, 480])
def test_phones_need_not_scroll_navigation_or_drops(page: Page, reports: dict[str, Path], width: int) -> None:
    page.open(reports["usual"], width, 844, dark=False)
    for box in ("nav ul", "#drops .scroll"):
        room, needed = page.run(f"const e = document.querySelector('{box}'); return [e.clientWidth, e.scrollWidth]")
        assert needed <= room, box
    lines = page.run("return new Set([...document.querySelectorAll('nav a')].map(a => a.offsetTop)).size")
    assert lines > 1
    hidden = page.run("return [...document.querySelectorAll('#drops thead th')].map(e => !e.checkVisibility())")
    assert hidden == [False, False, width == 360, True, False, False, True]


@pytest.mark.parametrize(("width", "height"), SCREENS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_runs_can_be_told_apart(page: Page, reports: dict[str, Path], width: int, height: int, dark: bool) -> None:
    page.open(reports["usual"], width, height, dark)
    colours = page.run("return [...document.querySelectorAll('.dots')].map(e => getComputedStyle(e).stroke)")
    assert len(set(colours)) == 8
    keys = page.run("return [...document.querySelectorAll('.run-key')].map(e => getComputedStyle(e).fill)")
    assert keys == colours
    land = page.run("return getComputedStyle(document.querySelector('.land')).stroke")
    assert land not in colours
    drawn, room = page.run(
        "return ['.land', '.landscape'].map(s => document.querySelector(s).getBoundingClientRect().width)"
    )
    assert room * 0.8 < drawn <= room
    numbers = page.run("return [...document.querySelectorAll('.run-number')].map(e => e.textContent)")
    assert numbers == [str(k) for k in range(1, 9)]
    outside = page.run(
        "const box = document.querySelector('.landscape').getBoundingClientRect();"
        "return [...document.querySelectorAll('.run-number')].map(e => e.getBoundingClientRect())"
        ".filter(r => r.left < box.left || r.right > box.right || r.top < box.top || r.bottom > box.bottom).length"
    )
    assert outside == 0


def test_wide_screens_show_every_column_of_the_drops(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["usual"], 700, 900, dark=False)
    assert page.run("return [...document.querySelectorAll('#drops thead th')].every(e => e.checkVisibility())")


def test_hostile_strings_appear_and_do_nothing(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["hostile"], *SCREENS[0], dark=False)
    page.run(OPEN_ALL)
    text = page.run("return document.body.innerText")  # raises while an alert is open
    for attack in HOSTILE:
        assert attack in text
    assert page.run("return document.scripts.length") == 0
    handlers = (
        "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    )
    assert page.run(handlers) == []


def test_policy_refuses_what_escaping_might_miss(page: Page, reports: dict[str, Path], tmp_path: Path) -> None:
    injected = tmp_path / "injected.html"
    attack = (
        "<script>document.title='ran'</script><img src='https://example.org/x.png' onerror=\"document.title='ran'\">"
    )
    injected.write_text(reports["usual"].read_text().replace("<main>", "<main>" + attack))
    page.open(injected, *SCREENS[0], dark=False)
    assert page.run("return document.title") != "ran"
    assert any("Content Security Policy" in message for message in page.messages())


def test_a_reason_leads_to_its_samples(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["usual"], *SCREENS[0], dark=False)
    page.run("document.querySelector('#drops tbody a').click()")
    target = page.run(
        "const d = document.querySelector(':target'); return [d.tagName, d.querySelector('.name').textContent]"
    )
    assert target == ["DETAILS", "language/other_language"]
