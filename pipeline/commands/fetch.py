"""Fetch data: ``python -m pipeline fetch kaggle | atlas LIST | atlas-labels TABLE IMAGES``.

``kaggle`` fetches the competition's archive with Kaggle's official client, checks it, and puts it into a source.
``atlas`` fetches the images of a list of samples from the Human Protein Atlas, shrinks them and packs them into zips.
``atlas-labels`` makes such a list from the atlas's own table of locations. Killed at any moment, the same command goes
on where it stopped.
"""

import argparse
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.core import params, paths
from pipeline.core.errors import InputError
from pipeline.core.locks import locked
from pipeline.core.optional_packages import check_installed
from pipeline.core.progress import say
from pipeline.fetching import atlas_fetch, atlas_labels, atlas_list, competition, kaggle_client
from pipeline.fetching.atlas_fetch import AtlasRun, Politeness
from pipeline.fetching.atlas_store import LOCK, AtlasStore
from pipeline.reporting.blocks import SIMULATED
from pipeline.sources.samples import TRAIN

KAGGLE, ATLAS = "kaggle", "hpa_v18"
"""Sources that are fetched into unless told otherwise."""


def main(arguments: Sequence[str]) -> None:
    """Fetch what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline fetch",
        description="Fetch the competition from Kaggle, or images and labels of the Human Protein Atlas.",
        epilog="Killed at any moment, the same command goes on where it stopped.",
    )
    kinds = parser.add_subparsers(required=True, metavar="kaggle | atlas | atlas-labels", dest="kind")
    kaggle = kinds.add_parser("kaggle", help="the competition's archive; needs an account that has accepted its rules")
    kaggle.add_argument("--source", default=KAGGLE, metavar="NAME", help="folder of data/ (%(default)s)")
    kaggle.add_argument("--competition", default=kaggle_client.COMPETITION, metavar="SLUG", help="(%(default)s)")
    kaggle.set_defaults(run=fetch_kaggle)

    atlas = kinds.add_parser("atlas", help="images of the Human Protein Atlas, for a list of samples")
    atlas.add_argument("list", type=Path, metavar="LIST", help="table with Id (antibody_plate_well_field) and Target")
    atlas.add_argument("--size", type=int, required=True, metavar="PIXELS", help="side of the stored images")
    atlas.add_argument("--source", default=ATLAS, metavar="NAME", help="folder of data/ (%(default)s)")
    atlas.add_argument(
        "--url",
        default="v18",
        help=f"{' or '.join(atlas_list.RELEASES)}, or an address with {{antibody}}, {{image}} "
        "and {stain} (%(default)s)",
    )
    atlas.add_argument("--connections", type=int, default=8, metavar="N", help="at a time (%(default)s)")
    atlas.add_argument("--rate", type=float, default=20, metavar="N", help="requests per second (%(default)s)")
    atlas.add_argument(
        "--pause", type=float, default=1, metavar="SECONDS", help="before a second try; doubles with each (%(default)s)"
    )
    atlas.set_defaults(run=fetch_atlas)

    labels = kinds.add_parser("atlas-labels", help="make such a list from the atlas's table of locations")
    labels.add_argument("table", type=Path, metavar="TABLE", help="subcellular_location.tsv, or its zip")
    labels.add_argument(
        "images", type=Path, metavar="IMAGES", help="the atlas's proteinatlas.xml.gz, or a table with Id and Gene"
    )
    labels.add_argument("--out", type=Path, required=True, metavar="LIST", help="list to write; it must not exist")
    labels.add_argument(
        "--reliability",
        choices=atlas_labels.RELIABILITY,
        default="approved",
        help="lowest reliability of a location (%(default)s)",
    )
    labels.set_defaults(run=fetch_labels)
    parsed = parser.parse_args(arguments)
    parsed.run(parsed)


def fetch_kaggle(parsed: argparse.Namespace) -> None:
    """Fetch the competition's archive into a source."""
    folder = paths.source(checked_source(parsed.source))
    found = competition.check_placed(folder)
    if not found:
        account = kaggle_client.KaggleAccount(parsed.competition)
        with unfinished(folder):
            found = competition.fetch(folder, account)
    print(found)
    print(f"next: data.sources: [{parsed.source}] in params.yaml, then dvc repro contact-sheet folds")


def fetch_atlas(parsed: argparse.Namespace) -> None:
    """Fetch the images of a list into a source."""
    check_installed("fetch atlas", ("aiohttp",), "requirements-fetch.txt")
    for flag, value, least in (("--size", parsed.size, 16), ("--connections", parsed.connections, 1)):
        if value < least:
            raise InputError(f"{flag} {value}: give {least} or more")
    for flag, number, most in (("--rate", parsed.rate, 1000), ("--pause", parsed.pause, 60)):
        if not 0 < number <= most:
            raise InputError(f"{flag} {number:g}: give more than 0 and at most {most}")
    template = atlas_list.checked_template(parsed.url)
    samples = atlas_list.read_list(parsed.list)
    folder = paths.source(checked_source(parsed.source))
    report = Path("logs") / f"fetch-{parsed.source}-missing.csv"
    atlas_fetch.check_tables(folder, samples)
    with unfinished(folder):
        store = AtlasStore(folder, parsed.size)
        run = AtlasRun(samples, store, template)
        politeness = Politeness(parsed.connections, parsed.rate, parsed.pause)
        try:
            stored = atlas_fetch.fetch_atlas(run, politeness, report)
        except KeyboardInterrupt:
            say(f"what was fetched is kept in {folder}: the same command goes on from there")
            raise
    print(f"{folder}: {stored:,} of {len(samples):,} samples at {parsed.size} px, and {TRAIN}")
    if run.lacking:
        print(f"{len(run.lacking):,} samples could not be had: {report} says why; the same command tries them again")
    print(f"next: name {parsed.source} in data.sources of params.yaml, after the source with the test set")


def fetch_labels(parsed: argparse.Namespace) -> None:
    """Make a list of samples from the atlas's table of locations."""
    atlas_labels.check_new(parsed.out)
    found = atlas_labels.make_list(parsed.table, parsed.images, parsed.reliability)
    atlas_labels.write_list(found, parsed.out)
    print(atlas_labels.describe(found, parsed.out))


@contextmanager
def unfinished(folder: Path) -> Iterator[None]:
    """Hold the lock of a source's folder of what is not finished; folders made here that stay empty are removed.

    Raises:
        InputError: another run holds it.
    """
    waiting, existed = folder / paths.RESUME.name, folder.exists()
    with locked(waiting / LOCK):
        try:
            yield
        finally:
            if waiting.is_dir() and {path.name for path in waiting.iterdir()} <= {LOCK}:
                shutil.rmtree(waiting)
            if not existed and not any(folder.iterdir()):
                folder.rmdir()


def checked_source(name: str) -> str:
    """A name that can be a source's.

    Raises:
        InputError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"--source {name}: name a folder of data/, by letters, digits and _ . - alone")
    if name.lower().partition(".")[0] in params.RESERVED or name.endswith("."):
        raise InputError(f"--source {name}: no name of a folder on all systems: choose another name")
    if name.lower() in (*params.OUTPUTS, SIMULATED):
        raise InputError(f"--source {name}: data/{name} is the pipeline's own: choose another name")
    return name
