"""Simulate a competition: draw its images and labels.

Reads the section ``sample`` of params.yaml; writes ``data/sample/``: competition.zip in Kaggle's layout,
groups.csv (the antibody of every sample) and test_truth.csv (the true labels of the test set). DVC keeps them before it
runs the stage (persist), so that this stage, and not DVC, decides whether they may be replaced.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.core import params, paths, processors
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.paths import replacing
from pipeline.simulation.competition import plan
from pipeline.simulation.competition_archive import groups, is_simulated, targets, write_archive

ARCHIVE = "competition.zip"


def main() -> None:
    """Run the stage."""
    settings = params.load()
    folder = paths.source("sample")
    entries = plan(settings.sample)
    tables = {
        "groups.csv": groups(entries),
        "test_truth.csv": targets(entry for entry in entries if entry.split == "test"),
    }
    texts = {name: table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}
    check_place(folder, texts)
    # The archive comes first: with it, tables of other parameters are known to be of an earlier run.
    with replacing(folder / ARCHIVE) as path:
        write_archive(path, entries, settings.sample, processors.workers(settings.machine.workers))
    for name, text in texts.items():
        with replacing(folder / name) as path:
            path.write_text(text, encoding="utf-8", newline="")


def check_place(folder: Path, texts: Mapping[str, str]) -> None:
    """Check that nothing would be replaced but an earlier simulated competition.

    Args:
        folder: where the competition is to be written.
        texts: the contents of its tables, by name.

    Raises:
        InputError: the folder contains a competition of the user's.
    """
    archive = folder / ARCHIVE
    if archive.exists() and is_simulated(archive):
        return
    others = [folder / name for name, text in texts.items() if not _is_absent_or(folder / name, text)]
    if archive.exists() or archive.is_symlink() or others:
        raise InputError(
            f"{[*others, archive][0]} is not simulated, and a simulated competition would take its place: move it to a "
            "folder of its own, such as data/kaggle/, and name that folder in data.sources of params.yaml"
        )


def _is_absent_or(path: Path, text: str) -> bool:
    return not path.exists() or (path.is_file() and path.read_bytes() == text.encode())


if __name__ == "__main__":
    run_main(main)
