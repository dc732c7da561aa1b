"""Simulate a competition: draw its images and labels.

Reads the section ``sample`` of params.yaml; writes ``data/sample/``: competition.zip in Kaggle's layout,
groups.csv (the antibody of every sample) and test_truth.csv (the true labels of the test set).
"""

from pipeline.core import params, paths, processors
from pipeline.core.entry import run_main
from pipeline.core.paths import replacing
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import groups, targets, write_archive


def main() -> None:
    """Run the stage."""
    settings = params.load()
    folder = paths.source("sample")
    entries = plan(settings.sample)
    with replacing(folder / "groups.csv") as path:
        groups(entries).to_csv(path, index=False, lineterminator="\n")
    with replacing(folder / "test_truth.csv") as path:
        targets(entry for entry in entries if entry.split == "test").to_csv(path, index=False, lineterminator="\n")
    workers = settings.machine.workers
    with replacing(folder / "competition.zip") as path:
        write_archive(path, entries, settings.sample, processors.workers(workers))


if __name__ == "__main__":
    run_main(main)
