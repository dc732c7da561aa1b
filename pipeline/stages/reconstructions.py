"""Draw what a pre-trained autoencoder reconstructs: ``python -m pipeline.stages.reconstructions --model NAME``.

Reads autoencoders/<model>.npz; writes reconstructions/<model>.png. Then removes the saved states of the pre-training,
whose encoder DVC has recorded when this stage begins.
"""

import shutil

from pipeline.core import entry, params, paths
from pipeline.core.entry import run_main
from pipeline.core.paths import replacing
from pipeline.evaluation.prediction_files import read_arrays
from pipeline.reporting.pictures import draw_reconstructions

KINDS = dict.fromkeys(("shown", "target", "output", "scored"), "f")


def main() -> None:
    """Draw the sheet of the model given on the command line."""
    name = entry.model_name(params.load())
    found = read_arrays(paths.reconstructions(name), KINDS, "run dvc repro pretrain")
    with replacing(paths.reconstruction_sheet(name)) as temporary:
        draw_reconstructions(found, temporary)
    shutil.rmtree(paths.pretraining_states(name), ignore_errors=True)


if __name__ == "__main__":
    run_main(main)
