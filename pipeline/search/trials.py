"""The trainings of a search: of a trial on the inner folds, and of the winner and the default for the outer fold.

Each training is a file of predictions beside the database, and resumes from its saved states until that is written. So
whatever is killed goes on where it was, and nothing is trained twice.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core import code_digest, params, paths
from pipeline.core.errors import InputError
from pipeline.core.labels import target_matrix
from pipeline.evaluation.prediction_files import read_arrays, write_arrays
from pipeline.models.network import compute_type
from pipeline.search.objectives import Predicted, calibrated_loss
from pipeline.search.study import OpenTrial
from pipeline.sources.packed_array import open_images
from pipeline.training.history import EpochScores
from pipeline.training.job import OnScores, from_encoder, train_model
from pipeline.training.saved_states import SavedStates, fingerprint

LEAST_FOLDS = 3
KINDS = {"ids": "U", "probabilities": "f"}
REMEDY = "remove it, and run the command again"
STUDIES = paths.RESUME / "search"

Probabilities = npt.NDArray[np.float32]


class PrunedError(Exception):
    """The held-out loss of a trial is hopeless."""


@dataclass(frozen=True)
class Experiment:
    """What the trainings of a search read, and where they write.

    Args:
        settings: params.yaml as it was when the search began.
        folds: of folds.csv.
        study: the folder of the database, which this search alone uses.
    """

    settings: params.Params
    folds: pd.DataFrame
    study: Path

    @cached_property
    def inner(self) -> pd.DataFrame:
        """The samples that trials are trained and scored on."""
        return self.folds[self.folds["fold"] != self.settings.search.outer_fold]

    @cached_property
    def outer(self) -> pd.DataFrame:
        """The samples that no trial sees."""
        return self.folds[self.folds["fold"] == self.settings.search.outer_fold]

    @property
    def inner_folds(self) -> list[int]:
        """The folds that trials are scored on."""
        return [int(fold) for fold in np.unique(self.inner["fold"])]

    def place(self, number: int) -> Path:
        """The folder of a trial."""
        return self.study / f"trial-{number}"

    def inner_predictions(self, number: int) -> Predicted:
        """The out-of-fold predictions of a trial that is trained on all inner folds."""
        files = [_read(self._inner_file(number, fold)) for fold in self.inner_folds]
        order = pd.Index(np.concatenate([ids for ids, _ in files])).get_indexer(pd.Index(self.inner["id"]))
        return _predicted(self.inner, np.concatenate([found for _, found in files])[order])

    def outer_predictions(self, number: int) -> list[Predicted]:
        """The predictions of each seed for the outer fold, by a trial's section trained on all inner folds."""
        files = [self._outer_file(number, seed) for seed in range(self.settings.search.seeds)]
        return [_predicted(self.outer, _read(file)[1]) for file in files]

    def run_trial(self, trial: OpenTrial, section: params.Model) -> None:
        """Train a trial on all but one of the inner folds, for each of them.

        Args:
            trial: its reports.
            section: its section.

        Raises:
            PrunedError: the pruner has ended it.
            InputError: it cannot be trained.
        """
        recipe = _evaluated_every(section, 1)
        for fold in self.inner_folds:
            rest, held_out = self.inner[self.inner["fold"] != fold], self.inner[self.inner["fold"] == fold]
            report = self._pruning(trial, recipe, held_out) if fold == self.inner_folds[0] else _ignored
            self._predict(recipe, rest, held_out, self._inner_file(trial.number, fold), report)

    def run_outer(self, number: int, section: params.Model, seed: int) -> None:
        """Train a section with a new seed on all inner folds, and predict the outer fold."""
        recipe = section.model_copy(update={"seed": section.seed + 1 + seed})
        epochs = recipe.epochs if isinstance(recipe, params.NetworkModel) else 1
        self._predict(
            _evaluated_every(recipe, epochs), self.inner, self.outer, self._outer_file(number, seed), _ignored
        )

    def copy(self, complete: int, number: int) -> None:
        """Give a trial the predictions of a complete one with the same section."""
        for fold in self.inner_folds:
            ids, probabilities = _read(self._inner_file(complete, fold))
            write_arrays(self._inner_file(number, fold), {"ids": ids, "probabilities": probabilities})

    def remove(self, number: int) -> None:
        """Remove the files of a trial that was not completed."""
        shutil.rmtree(self.place(number), ignore_errors=True)

    def _inner_file(self, number: int, fold: int) -> Path:
        return self.place(number) / f"fold-{fold}.npz"

    def _outer_file(self, number: int, seed: int) -> Path:
        return self.place(number) / f"outer-seed-{seed}.npz"

    def _pruning(self, trial: OpenTrial, recipe: params.Model, held_out: pd.DataFrame) -> OnScores:
        """Report each epoch of a trial's first fold to the pruner."""
        truth = target_matrix(held_out["target"])
        epochs = recipe.epochs if isinstance(recipe, params.NetworkModel) else 1

        def report(row: EpochScores, probabilities: Probabilities) -> None:
            # In per cent, because trials of other epochs are at the same point of their schedule then.
            if trial.is_hopeless(round(100 * (row.epoch + 1) / epochs), calibrated_loss(probabilities, truth)):
                raise PrunedError

        return report

    def _predict(
        self, recipe: params.Model, rest: pd.DataFrame, held_out: pd.DataFrame, file: Path, report: OnScores
    ) -> None:
        """Train on ``rest`` and write the predictions for ``held_out``, unless that is done."""
        states = SavedStates(file.with_suffix(""), "states")
        if not file.exists():
            last: list[Probabilities] = []

            def on_scores(row: EpochScores, probabilities: Probabilities) -> None:
                last[:] = [probabilities]
                report(row, probabilities)

            images = {source: open_images(source) for source in self.folds["source"].unique()}
            job = f"{file.parent.name}, {file.stem}"
            recipe = from_encoder(recipe, self.settings.search.model)
            train_model(
                recipe,
                rest,
                held_out,
                images,
                self.settings.machine,
                on_scores,
                states,
                self.settings.data.draws,
                job=job,
            )
            write_arrays(file, {"ids": held_out["id"].to_numpy(dtype=np.str_), "probabilities": last[0]})
        states.remove_job()


def begin(settings: params.Params, folds: pd.DataFrame) -> Experiment:
    """The experiment of a search, with the folder of its study.

    Args:
        settings: all of params.yaml.
        folds: of folds.csv.

    Raises:
        InputError: there are too few folds, or no such outer fold.
    """
    found = sorted(int(fold) for fold in folds["fold"].unique())
    outer = settings.search.outer_fold
    if outer not in found:
        raise InputError(f"params.yaml: search.outer_fold is {outer}: {paths.FOLDS} has {', '.join(map(str, found))}")
    if len(found) < LEAST_FOLDS:
        raise InputError(
            f"{paths.FOLDS} has {len(found)} folds, and a search needs {LEAST_FOLDS}: one judges the winner, and "
            "trials are trained on all but one of the others. Name more in folds.ids, and run dvc repro folds"
        )
    return Experiment(settings, folds, STUDIES / f"{settings.search.model}-{_identity(settings, folds)}")


def _identity(settings: params.Params, folds: pd.DataFrame) -> str:
    """The fingerprint of all that the trials depend on; the number of trials is not part of it."""
    search = settings.search.model_dump(mode="json")
    del search["seeds"]  # of the comparison alone, whose trainings are files by seed
    bases = {
        kind: (settings.models[search["model"]] if settings.models[search["model"]].kind == kind else template)
        for kind, template in settings.templates
        if kind in search["space"]
    }
    named = [base.pretrained for base in bases.values() if isinstance(base, params.BackboneModel)]
    for dimensions in settings.search.space.values():
        named += [value for value in dimensions.get("pretrained", ()) if isinstance(value, str)]
    own = {params.BY_STAGE: str(paths.autoencoder(search["model"]))}
    weights = sorted({Path(own.get(name, name)).expanduser() for name in named if isinstance(name, str)})
    sources = sorted(folds["source"].unique())
    shapes = {source: open_images(source).shape for source in sources}
    computed = {kind: str(compute_type(base.precision)) for kind, base in bases.items()}
    described = [
        search,
        {kind: base.model_dump(mode="json") for kind, base in bases.items()},
        computed,
        shapes,
        sorted(settings.data.draws.items()),
        code_digest.of_module("pipeline.search.trials"),
    ]
    files = [paths.FOLDS, *(paths.packed_index(source) for source in sources)]
    return fingerprint(str(described), [*files, *(path for path in weights if path.exists())])


def _evaluated_every(recipe: params.Model, epochs: int) -> params.Model:
    """The section with evaluations of the held-out samples every so many epochs, which change nothing else."""
    network = isinstance(recipe, params.NetworkModel)
    return recipe.model_copy(update={"evaluate_every": epochs}) if network else recipe


def _ignored(_row: EpochScores, _probabilities: Probabilities) -> None:
    pass


def _read(file: Path) -> tuple[npt.NDArray[np.str_], Probabilities]:
    arrays = read_arrays(file, KINDS, REMEDY)
    return arrays["ids"], arrays["probabilities"]


def _predicted(samples: pd.DataFrame, probabilities: Probabilities) -> Predicted:
    return Predicted(
        probabilities,
        target_matrix(samples["target"]),
        samples["group"].to_numpy(dtype=np.str_),
        samples["fold"].to_numpy(),
    )
