"""Take the report's pictures for docs/: ``python -m tests.screenshots``, after a run."""

import sys
import tempfile
from pathlib import Path

from pipeline import paths
from tests.browser import browse, find_browser

WIDTHS = (1280, 400)
HEIGHT = 1900
"""Pixels from the top: the score and the data."""


def main() -> None:
    """Write docs/report-WIDTH.png."""
    program = find_browser()
    if program is None:
        sys.exit("error: no Chromium or Chrome here: install one, or name it in CHROME")
    if not paths.REPORT.exists():
        sys.exit(f"error: {paths.REPORT} is missing: run dvc repro first")
    with tempfile.TemporaryDirectory() as profile, browse(program, Path(profile)) as page:
        for width in WIDTHS:
            page.open(paths.REPORT, width=width)
            Path(f"docs/report-{width}.png").write_bytes(page.screenshot(0, HEIGHT))


if __name__ == "__main__":
    main()
