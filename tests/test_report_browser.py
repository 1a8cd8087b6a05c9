"""The page in a real browser: drawn, switched, printed, without scripts, and silent."""

import itertools
from pathlib import Path

import pytest

from report_pages import (
    LIMIT,
    as_read,
    large_page,
)
from softhot import report
from softhot.report import words
from softhot.report.linked import ARMS
from softhot.report.tables import ROWS

BROWSER = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# --- In a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    if not Path(BROWSER).exists():
        pytest.fail(f"{BROWSER} is missing: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser
        browser.close()


class Visit:
    """A page in a browser, with all that it asked for and all that it complained of."""

    def __init__(self, browser, path, **settings):
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        if settings.get("java_script_enabled", True):
            self.page.wait_for_function(
                "document.querySelectorAll('[data-chart]:not([data-ready])').length === 0"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory, page, hostile, hostile_methods):
    folder = tmp_path_factory.mktemp("pages")
    report.write(folder / "study.html", page)
    report.write(folder / "hostile.html", hostile)
    report.write(folder / "methods.html", hostile_methods)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.html"
    report.write(path, large_page())
    return path


@pytest.mark.parametrize("name", ["study.html", "hostile.html", "methods.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_draws_everything_and_asks_for_nothing(chromium, files, name, scheme, width):
    size = {"width": width, "height": 900}
    with Visit(chromium, files / name, viewport=size, color_scheme=scheme) as visit:
        assert visit.requests == [(files / name).as_uri()]
        assert visit.complaints == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate("typeof window.pwned") == "undefined"
        empty = "[...document.querySelectorAll('[data-chart] svg')].filter(s => !s.getBBox().width)"
        assert visit.page.evaluate(f"{empty}.length") == 0
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_switch_changes_both_panels_and_the_words(chromium, files, comparison):
    with Visit(chromium, files / "study.html") as visit:
        panels = [visit.page.locator(f"[data-chart=curve-{f}]") for f in ("value", "change")]
        assert "NLL, nats" in panels[0].inner_text()
        visit.page.locator("input[value=accuracy]").check(force=True)
        visit.page.wait_for_function(
            "document.querySelector('[data-chart=curve-change]').textContent.includes('points')"
        )
        assert "Accuracy, %" in panels[0].inner_text()
        heading = visit.page.locator("#curves").inner_text()
        assert "accuracy" in heading
        assert "NLL" not in heading
        assert visit.complaints == []


def test_choosing_an_arm_updates_every_panel(chromium, files):
    def drawn(visit):
        names = [
            f"linked-{part}-{i}{end}"
            for part in ("top", "each")
            for i in range(4)
            for end in ("", "-bars")
        ]
        return [visit.page.locator(f"[data-chart={name}] svg").inner_html() for name in names]

    with Visit(chromium, files / "study.html") as visit:
        before = drawn(visit)
        numbers = visit.page.locator(".linked figcaption").first.inner_text()
        visit.page.locator("input[name=arm][value='0']").check(force=True)
        visit.page.wait_for_timeout(300)
        after = drawn(visit)
        assert all(a != b for a, b in zip(before, after, strict=True))
        assert visit.page.locator(".linked figcaption").first.inner_text() != numbers
        visit.page.locator("input[name=klass][value='2']").focus()
        visit.page.keyboard.press("Space")  # by keyboard as by mouse
        visit.page.wait_for_timeout(300)
        third = drawn(visit)
        assert third[:8] == after[:8]
        assert all(a != b for a, b in zip(after[8:], third[8:], strict=True))
        assert visit.complaints == []


def test_the_arm_followed_is_followed_everywhere(chromium, files, comparison):
    charts = ("curve-value", "curve-change", "risk", "classes", "plane-1")
    with Visit(chromium, files / "study.html") as visit:

        def drawn():
            return [visit.page.locator(f"[data-chart={n}] svg").inner_html() for n in charts]

        def followed(place):
            return visit.page.locator(f"{place}.followed").evaluate_all(
                "all => [...new Set(all.map(one => one.dataset.arm))]"
            )

        def spoken():
            return [one for one in visit.page.locator("[role=status] p").all() if one.is_visible()]

        first = next(i for i, a in enumerate(comparison.arms) if a.name == comparison.rival)
        other = next(i for i in range(1, len(comparison.arms)) if i != first)
        places = (".example tr", ".tile", "table tr")
        assert [followed(place) for place in places] == [[str(first)]] * 3
        before = drawn()
        still = visit.page.locator("[data-chart=plane-0] svg").inner_html()
        visit.page.locator(f"input[name=arm][value='{first}']").focus()
        visit.page.keyboard.press("ArrowLeft" if other < first else "ArrowRight")
        visit.page.wait_for_timeout(300)
        assert [followed(place) for place in places] == [[str(other)]] * 3
        assert all(a != b for a, b in zip(before, drawn(), strict=True))
        assert visit.page.locator("[data-chart=plane-0] svg").inner_html() == still
        (said,) = spoken()
        name = comparison.arms[other].name
        assert said.inner_text().startswith(f"{name}: NLL ")
        assert visit.page.locator("#plane-followed").inner_text() == name
        assert (
            f" {words.alpha(comparison.arms[other])}" in visit.page.locator("#classes").inner_text()
        )
        assert f"with {name}, class by class" in visit.page.locator("#classes-text").inner_text()
        label = visit.page.locator("[data-chart=risk] text", has_text=name)
        assert label.get_attribute("font-weight") == "bold"
        visit.page.mouse.wheel(0, 4000)  # the choice stays in sight
        visit.page.wait_for_timeout(100)
        assert visit.page.locator(".follow").bounding_box()["y"] == 0
        assert visit.complaints == []


@pytest.mark.parametrize("width", [360, 1200])
def test_a_page_of_many_arms_is_bounded_and_readable(chromium, large, width):
    size = {"width": width, "height": 900}
    assert large.stat().st_size < LIMIT
    with Visit(chromium, large, viewport=size) as visit:
        assert visit.complaints == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.locator("input[name=arm]").count() == ARMS
        assert visit.page.locator(".tile").count() == ARMS
        labels = visit.page.locator("[data-chart=risk] text[text-anchor=start][fill]").all()
        heights = sorted(one.bounding_box()["y"] for one in labels)[-ARMS:]
        assert min(b - a for a, b in itertools.pairwise(heights)) > 5  # none lies on another
        extra = visit.page.locator(".example").first.locator("tr.extra")
        assert extra.count() > 0
        assert not any(row.is_visible() for row in extra.all())
        number = extra.first.get_attribute("data-arm")
        visit.page.locator(f"input[name=arm][value='{number}']").check(force=True)
        assert extra.first.is_visible()
        rows = visit.page.locator("section[aria-labelledby=tables] table").first.locator("tbody tr")
        assert rows.count() == ROWS


def test_a_point_tells_its_numbers(chromium, files, comparison):
    with Visit(chromium, files / "study.html") as visit:
        visit.page.locator("[data-chart=curve-value] .mark-symbol path").first.hover()
        tip = visit.page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        mean = comparison.arms[0].test_raw["nll"].mean
        assert f"none, as trained: {as_read('nll', mean)}" in tip.inner_text()


def test_without_scripts_the_pictures_are_there(chromium, files):
    with Visit(chromium, files / "study.html", java_script_enabled=False) as visit:
        assert visit.requests == [(files / "study.html").as_uri()]
        pictures = visit.page.locator("[data-chart] svg")
        # Tiles, curves, four remedies by top class and by class, risk, classes, two planes.
        assert pictures.count() == 3 * 4 + 2 + 4 * 4 + 1 + 1 + 2
        assert all(pictures.nth(i).bounding_box()["width"] > 100 for i in range(pictures.count()))
        assert not any(one.is_visible() for one in visit.page.locator(".switch").all())
        assert visit.page.locator(".printed").first.is_visible()  # and it says what is shown


def test_on_paper_it_is_light_and_the_tables_are_whole(chromium, files):
    with Visit(chromium, files / "study.html", color_scheme="dark") as visit:
        visit.page.set_viewport_size({"width": 690, "height": 980})  # A4 less its margins
        visit.page.emulate_media(media="print")
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert not any(one.is_visible() for one in visit.page.locator(".switch").all())
        wide = "[...document.querySelectorAll('table')].filter(t => t.scrollWidth > 690)"
        assert visit.page.evaluate(f"{wide}.length") == 0
        assert len(visit.page.pdf(format="A4")) > 10_000
