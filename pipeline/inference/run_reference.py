"""The training samples of the run beside the models, to compare new images with."""

from pathlib import Path

from pipeline.core import paths
from pipeline.core.labels import CHANNELS
from pipeline.core.progress import say
from pipeline.evaluation.reference_file import stored_reference
from pipeline.inference.new_images import Layout
from pipeline.inference.novelty import TrainingSamples
from pipeline.inference.trained_models import WeightFiles, load_models


def read_training_samples(folder: Path, found: WeightFiles, layout: Layout, size: int) -> TrainingSamples | None:
    """What compares samples with the training samples of the run beside the models' folder; None if it cannot.

    Raises:
        InputError: the run's description of them is damaged.
    """
    reference = stored_reference(folder.absolute().parent)
    if reference is None:
        return None
    path = found.get(reference.model, {}).get(reference.fold)
    if path is None or not reference.is_of(path):
        say(f"no novelty: {paths.REFERENCE} was made with other weights than those in {folder}: run dvc repro")
        return None
    if len(layout.stains) < len(CHANNELS):
        say("no novelty: it compares all four stains with those of the training samples")
        return None
    model = load_models({reference.model: {reference.fold: path}}, size)[reference.model][0]
    return TrainingSamples(reference, model)
