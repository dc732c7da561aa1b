"""Make the report, a single HTML page: scores with confidence intervals, errors, attention maps and the data.

Reads metrics.json, tables/, blend/, maps/, data/folds.csv, data/folds-audit.json and the packed images; writes
report.html.
"""

from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.params import load
from pipeline.core.paths import replacing
from pipeline.reporting.finished_run import read_finished_run
from pipeline.reporting.page import render


def main() -> None:
    """Run the stage."""
    page = render(read_finished_run(load()))
    with replacing(paths.REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
