"""`python -m docs.readme RUN`: puts a run's verdict and a picture of its report into the README."""

import argparse
import re
import subprocess
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = "/usr/bin/chromium"
SIZE = {"width": 1200, "height": 1650}  # the verdict and the curves under it
KEPT = ("The cost", "With alpha", "How sure")  # of the sentences; the README is one screen
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    """Rewrite the block between the verdict marks, and docs/report.png."""
    words = argparse.ArgumentParser("python -m docs.readme", description=main.__doc__)
    words.add_argument("run", help="folder of the run")
    folder = words.parse_args().run
    command = ["softhot", "report", folder]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = "\n".join(line.rstrip() for line in printed.splitlines()).split("\nWhat to do,")[0]
    head, *points = text.strip().split("\n• ")
    kept = [f"• {point}" for point in points if point.startswith(KEPT)]
    shown = "\n".join([head, "• ...", *kept, "• ..."])
    readme = ROOT / "README.md"
    block = f"<!-- verdict -->\n```text\n{shown}\n```\n<!-- /verdict -->"
    found = re.compile(r"<!-- verdict -->.*<!-- /verdict -->", re.S)
    readme.write_text(found.sub(lambda _: block, readme.read_text()))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(300_000)  # milliseconds; a busy machine takes its time
        page.goto((Path(folder).resolve() / "report.html").as_uri())
        page.wait_for_selector(".vega-embed, svg.marks")
        page.wait_for_timeout(1000)
        page.screenshot(path=ROOT / "docs" / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
