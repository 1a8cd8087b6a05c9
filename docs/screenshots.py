"""Look at the built site: a picture of every page, as a browser shows it.

    make docs && python -m docs.screenshots [--dark] [--phone] [PAGE ...]

They go to docs/_build/screenshots and are in no commit; `python -m docs.readme RUN` makes the one
picture that is, docs/report.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from docs.readme import CHROMIUM, FLAGS
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parent / "_build" / "html"
TO = SITE.parent / "screenshots"
SIZE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 800}


def main() -> None:
    """Open each page, and save all of it."""
    words = argparse.ArgumentParser("python -m docs.screenshots", description=main.__doc__)
    words.add_argument("page", nargs="*", help="such as guide/index; by default all")
    words.add_argument("--dark", action="store_true")
    words.add_argument("--phone", action="store_true")
    given = words.parse_args()
    dark, phone = given.dark, given.phone
    pages = [SITE / f"{name}.html" for name in given.page] or sorted(SITE.rglob("*.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(
            viewport=PHONE if phone else SIZE, color_scheme="dark" if dark else "light"
        )
        for path in pages:
            tab.goto(path.as_uri())
            kind = ("-dark" if dark else "") + ("-phone" if phone else "")
            picture = TO / path.relative_to(SITE).with_name(f"{path.stem}{kind}.png")
            tab.screenshot(path=picture, full_page=True)
        browser.close()
    print(f"{len(pages)} pages in {TO}")


if __name__ == "__main__":
    main()
