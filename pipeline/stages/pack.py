"""Check the images of one source, and resize and pack them: ``python -m pipeline.stages.pack --source NAME``.

Reads ``data/NAME/`` and ``pack`` of params.yaml; writes ``data/packed/images/NAME.npy`` and
``data/packed/index/NAME.csv``. An interrupted run keeps what it packed in ``data/packed/.partial/NAME/``, and the next
run resumes there.
"""

import shutil
import sys

from pipeline.core import params, paths
from pipeline.core.entry import run_main, source_name
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.sources.archive import open_archive
from pipeline.sources.packing import IMAGES, INDEX, pack
from pipeline.sources.samples import list_samples, unlisted
from pipeline.sources.stored_images import SourceFormat


def main() -> None:
    """Check and pack one source."""
    settings = params.load()
    source = source_name(settings)
    partial = paths.partly_packed(source)
    planes = settings.pack.planes.get(source)
    form, one_file = SourceFormat(planes, settings.pack.scaling.get(source)), planes is not None
    with open_archive(paths.source(source)) as archive:
        samples, problems = list_samples(archive, one_file=one_file)
        ignored = unlisted(archive, samples, one_file=one_file)
        partial.mkdir(parents=True, exist_ok=True)
        try:
            pack(archive, samples, settings.pack.size, partial, problems, form)
        except KeyboardInterrupt:
            say(f"what was packed is kept in {partial}: the next run resumes from there")
            raise
    # The index is moved last: if it exists, the array is complete.
    for made, place in ((IMAGES, paths.packed_images(source)), (INDEX, paths.packed_index(source))):
        with replacing(place) as temporary:
            (partial / made).replace(temporary)
    shutil.rmtree(partial)
    if ignored:
        named = ", ".join(map(repr, ignored[:3]))
        print(f"note: {len(ignored):,} files are in no table and were ignored, such as {named}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
