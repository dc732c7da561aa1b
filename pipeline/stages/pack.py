"""Pack one source: ``python -m pipeline.stages.pack --source NAME``.

Reads ``data/NAME/`` and ``pack`` of params.yaml; writes ``data/packed/NAME/`` (images.npy, index.csv,
contact-sheet.png), whole or not at all. What stands when it is interrupted waits in ``.resume/pack/NAME/`` for the
next run.
"""

import shutil
import sys

import numpy as np

from pipeline import cell, params, paths
from pipeline.atlas.archive import open_archive
from pipeline.atlas.pack import pack
from pipeline.atlas.packed import IMAGES
from pipeline.atlas.partial import JOURNAL
from pipeline.atlas.samples import list_samples, unlisted
from pipeline.errors import run_stage
from pipeline.files import replacing
from pipeline.progress import say
from pipeline.report.contact_sheet import contact_sheet


def main() -> None:
    """Check, pack and picture one source."""
    settings = params.load()
    source = cell.source(settings)
    partial = paths.RESUME / "pack" / source
    with open_archive(paths.source(source)) as archive:
        samples, problems = list_samples(archive)
        ignored = unlisted(archive, samples)
        partial.mkdir(parents=True, exist_ok=True)
        try:
            index = pack(archive, samples, settings.pack.size, partial, problems)
            contact_sheet(np.load(partial / IMAGES, mmap_mode="r"), index, partial / "contact-sheet.png")
        except KeyboardInterrupt:
            say(f"what was packed is kept in {partial}: the next run goes on from there")
            raise
    with replacing(paths.packed(source)) as folder:
        shutil.move(partial, folder)
        (folder / JOURNAL).unlink()
    if ignored:
        named = ", ".join(map(repr, ignored[:3]))
        print(f"note: left alone what no table lists: {named}, {len(ignored):,} files in all", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
