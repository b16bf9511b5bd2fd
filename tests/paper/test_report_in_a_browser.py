"""The report as people see it: in a real browser, light and dark, on a desk and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.paper.test_results import result
from wavemix_pl.cli import main
from wavemix_pl.paper.catalog import experiments_folder, find_table
from wavemix_pl.paper.results import append_results, results_file

WIDTHS = (1280, 390)  # of a screen and of a phone, in pixels
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# How many texts are shown, and those with a contrast below 4.5 (WCAG 2.2, AA), as [text, color, background, contrast].
PALE = """
const parts = (color) => { const p = color.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
const over = (top, below) => below.map((c, i) => top[i] * top[3] + c * (1 - top[3]));
const linear = (c) => c <= 0.04045 * 255 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (element) => element
  ? over(parts(getComputedStyle(element).backgroundColor), behind(element.parentElement)) : [255, 255, 255];
const pale = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let shown = 0;
while (texts.nextNode()) {
  const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
  if (!text || !element.getClientRects().length) continue;
  shown++;
  const style = getComputedStyle(element), back = behind(element);
  const front = parts(element.closest("svg") ? style.fill : style.color);
  for (let e = element; e; e = e.parentElement) front[3] *= getComputedStyle(e).opacity;
  const [low, high] = [luminance(over(front, back)), luminance(back)].sort((a, b) => a - b);
  const contrast = (high + 0.05) / (low + 0.05);
  if (contrast < 4.5) pale.push([text, front, back, contrast]);
}
return [shown, pale];
"""
# What reaches beyond the window, or beyond what can be scrolled to in the box around it, as [element, right, limit].
WIDE = """
const wide = [], window_width = arguments[0];
for (const element of document.body.querySelectorAll(":not(svg *)")) {
  let box = element.parentElement;
  while (box && !/auto|scroll/.test(getComputedStyle(box).overflowX)) box = box.parentElement;
  const limit = box ? box.getBoundingClientRect().left - box.scrollLeft + box.scrollWidth : window_width;
  const { left, right, width } = element.getBoundingClientRect();
  if (width && (left < -1 || right > limit + 1)) wide.push([element.outerHTML.slice(0, 80), right, limit]);
}
const page = document.documentElement.scrollWidth;
return page > window_width ? [...wide, ["page", page, window_width]] : wide;
"""
PICTURES = """
return [...document.querySelectorAll("img, svg")].map((e) => [
  e.naturalWidth ?? e.getBBox().width, e.getBoundingClientRect().width, e.querySelectorAll("text").length]);
"""
REFERENCES = """
const found = [...document.querySelectorAll("a")].map((e) => e.getAttribute("href"));
found.push(...[...document.querySelectorAll("use")].map((e) => e.href.baseVal));
return [found, found.filter((reference) => !document.getElementById(reference.slice(1)))];
"""
TARGET = """
const target = document.querySelector(":target");
return [target.textContent, target.getBoundingClientRect().top];
"""
COLORS = """
return Object.fromEntries([...document.querySelectorAll("td")].map((e) => [e.textContent, getComputedStyle(e).color]));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="comes with the extra [test]")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))  # both are named: nothing is downloaded
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report in which there is some of everything: numbers of several seeds, all verdicts, variants, many runs."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(experiments_folder(), folder / "experiments", ignore=shutil.ignore_patterns("results"))
    lite = [result(value, seed=str(seed)) for seed, value in enumerate((89.2, 90.1, 89.7))]
    variant = result(91.0, flags="--trainer.max_epochs=30")
    append_results(results_file(folder / "experiments", 5), [*lite, variant])
    claims = find_table("fashion-claims")
    values = {claims.claims[0].higher: 90.0, claims.claims[0].lower: 88.0, claims.claims[1].lower: 92.0}
    values[claims.claims[2].lower] = 90.1
    for label, value in values.items():
        row = next(row for row in claims.rows if row.row == label)
        given = {"table": "fashion-claims", "group": row.group or "", "row": label, "recipe": "+".join(row.recipe)}
        found = [result(value + seed / 5, seed=str(seed), **given) for seed in range(3)]
        append_results(results_file(folder / "experiments", "fashion-claims"), found)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["report"]) == 0
    return (folder / "runs/report/tables.html").as_uri()


def show(browser: Any, page: str, scheme: str, width: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_is_there_and_readable(browser: Any, page: str, scheme: str, width: int) -> None:
    show(browser, page, scheme, width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.get_log("browser") == []
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(background) > 127) == (scheme == "light")
    shown, pale = browser.execute_script(PALE)
    assert shown > 2000
    assert pale == []
    assert browser.execute_script(WIDE, width) == []


def test_every_picture_is_drawn(browser: Any, page: str) -> None:
    show(browser, page, "light", WIDTHS[0])
    pictures = browser.execute_script(PICTURES)
    assert len(pictures) == 7
    assert all(own > 0 and drawn > 500 and texts > 10 for own, drawn, texts in pictures)
    found, broken = browser.execute_script(REFERENCES)
    assert len(found) > 100
    assert broken == []


def test_a_number_leads_to_its_run(browser: Any, page: str) -> None:
    show(browser, page, "dark", WIDTHS[1])
    browser.find_element("link text", "90.10 (89.67 ± 0.45, 3 seeds)").click()
    text, top = browser.execute_script(TARGET)
    assert "acc190.1classification" in text
    assert 0 <= top < 844
    assert browser.execute_script(PALE)[1] == []  # the row is marked


def test_verdicts_have_colors(browser: Any, page: str) -> None:
    show(browser, page, "light", WIDTHS[0])
    colors = browser.execute_script(COLORS)
    assert len({colors[verdict] for verdict in ("holds", "does not hold", "cannot be told", "not measured")}) == 4


def test_what_is_wrong_is_seen(browser: Any, page: str) -> None:
    """The checks above, on a page that was spoilt."""
    show(browser, page, "light", WIDTHS[1])
    browser.execute_script(
        "document.body.insertAdjacentHTML('beforeend', arguments[0])",
        '<p style="width: 500px; opacity: .5">a</p><img src=none.png>',
    )
    assert [(text, contrast < 4.5) for text, _, _, contrast in browser.execute_script(PALE)[1]] == [("a", True)]
    assert len(browser.execute_script(WIDE, WIDTHS[1])) == 2  # the paragraph, and with it the page
    assert (
        browser.execute_async_script(
            "const done = arguments[0], image = document.querySelector('img');"
            "image.complete ? done(image.naturalWidth) : image.onerror = () => done(image.naturalWidth);"
        )
        == 0
    )
    assert "none.png" in browser.get_log("browser")[0]["message"]
