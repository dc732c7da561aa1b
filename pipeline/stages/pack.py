"""Pack one source: ``python -m pipeline.stages.pack --source NAME``.

Reads ``data/NAME/`` and ``pack`` of params.yaml; writes ``data/packed/NAME/`` (images.npy, index.csv,
contact-sheet.png), whole or not at all.
"""

import sys

import numpy as np

from pipeline import cell, params, paths
from pipeline.atlas.archive import open_archive
from pipeline.atlas.pack import pack
from pipeline.atlas.packed import IMAGES
from pipeline.atlas.samples import list_samples, unlisted
from pipeline.errors import run_stage
from pipeline.files import replacing
from pipeline.report.contact_sheet import contact_sheet


def main() -> None:
    """Check, pack and picture one source."""
    settings = params.load()
    source = cell.source(settings)
    size = settings.pack.size
    with open_archive(paths.source(source)) as archive, replacing(paths.packed(source)) as folder:
        samples, problems = list_samples(archive)
        folder.mkdir()
        index = pack(archive, samples, size, folder, problems)
        contact_sheet(np.load(folder / IMAGES, mmap_mode="r"), index, folder / "contact-sheet.png")
        ignored = unlisted(archive, samples)
    if ignored:
        named = ", ".join(map(repr, ignored[:3]))
        print(f"note: left alone what no table lists: {named}, {len(ignored):,} files in all", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
