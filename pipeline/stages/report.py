"""Make the report: one page that shows what the run learned, where it errs and how far to trust it.

Reads metrics.json, tables/, blend/, maps/, data/folds.csv, data/folds-audit.json and the packed images; writes
report.html.
"""

from pipeline import paths
from pipeline.errors import run_stage
from pipeline.files import replacing
from pipeline.params import load
from pipeline.report.render import render
from pipeline.report.run import read_run


def main() -> None:
    """Run the stage."""
    page = render(read_run(load()))
    with replacing(paths.REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
