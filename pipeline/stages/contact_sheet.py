"""Draw example images of one source: ``python -m pipeline.stages.contact_sheet --source NAME``.

Reads the packed images and their index; writes ``data/contact-sheets/NAME.png``.
"""

from pipeline.core import params, paths
from pipeline.core.entry import run_main, source_name
from pipeline.core.paths import replacing
from pipeline.reporting.pictures import draw_contact_sheet
from pipeline.sources.packed_array import open_images, read_index


def main() -> None:
    """Draw the contact sheet of the source given on the command line."""
    source = source_name(params.load())
    with replacing(paths.contact_sheet(source)) as temporary:
        draw_contact_sheet(open_images(source), read_index(source), temporary)


if __name__ == "__main__":
    run_main(main)
