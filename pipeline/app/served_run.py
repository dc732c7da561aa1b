"""A finished run, loaded for the page: models, decision rule, training samples, packed images."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.app.likeness import TrainingLikeness
from pipeline.app.measured_shares import MeasuredShares, read_measured_shares
from pipeline.app.packed_samples import PackedSamples, open_packed
from pipeline.core import params
from pipeline.evaluation.decision_rule import DecisionRule
from pipeline.evaluation.reference_file import Reference, stored_reference
from pipeline.inference.new_images import FOUR_FILES
from pipeline.inference.novelty import TrainingSamples
from pipeline.inference.run_reference import read_training_samples
from pipeline.inference.run_rule import choose_rule, unprepared_models
from pipeline.inference.trained_models import LoadedModels, find_models, load_models, stored_rule


@dataclass(frozen=True)
class ServedRun:
    """What the page needs of a run.

    Attributes:
        models: the fold models of each model that the rule takes.
        rule: from their probabilities to decisions.
        views: of test-time augmentation.
        size: side in pixels of packed images.
        calibrated: whether the rule was fitted by the run, and not made up for models without one.
        known: compares images with the training samples; None if the run does not describe them.
        reference: the training samples; None together with ``known``.
        measured: how often labels of a probability were right; None if unknown.
        packed: the packed images; None if they are not here.
        likeness: makes the warnings.
    """

    models: LoadedModels
    rule: DecisionRule
    views: tuple[params.View, ...]
    size: int
    calibrated: bool
    known: TrainingSamples | None
    reference: Reference | None
    measured: MeasuredShares | None
    packed: PackedSamples | None
    likeness: TrainingLikeness


def load_run(folder: Path, settings: params.Params) -> ServedRun:
    """Load the run beside a folder of models.

    Raises:
        InputError: as `predict` does, for missing or damaged files.
    """
    size = settings.pack.size
    found = find_models(folder)
    rule, used = choose_rule(folder, found, None)
    models = load_models(used, size)
    run = folder.absolute().parent
    known = read_training_samples(folder, found, FOUR_FILES, size)
    reference = stored_reference(run) if known is not None else None
    # Paths of packed images are relative to this folder: those of another run may have other samples.
    packed = open_packed(settings.data.sources) if run.samefile(Path.cwd()) else None
    training = None if packed is None else packed.training
    return ServedRun(
        models=models,
        rule=rule,
        views=tuple(settings.tta.views),
        size=size,
        calibrated=stored_rule(run) is not None,
        known=known,
        reference=reference,
        measured=read_measured_shares(run, reference),
        packed=packed,
        likeness=TrainingLikeness(reference, training, unprepared_models(models)),
    )
