"""The tasks of a search, each of which a process can do by itself: a trial, or a training for the outer fold."""

from contextlib import closing
from dataclasses import dataclass

import torch

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.search.objectives import comparable, score
from pipeline.search.space import Space
from pipeline.search.study import DEFAULT, Study
from pipeline.search.trials import Experiment, PrunedError


@dataclass(frozen=True)
class TrialTask:
    """Train a trial that was drawn, and record how it ended."""

    number: int

    def run(self, experiment: Experiment) -> str:
        """Train, or go on; returns the outcome in words.

        Raises:
            InputError: the default cannot be trained.
        """
        space = Space(experiment.settings)
        with closing(Study(experiment.study, space)) as database:
            trial = database.open(self.number)
            if (twin := database.twin(self.number)) is not None:
                experiment.copy(twin, self.number)
            try:
                experiment.run_trial(trial, space.section(trial.values))
            except PrunedError:
                trial.prune()
                experiment.remove(self.number)
                return f"trial {self.number}: pruned"
            except (InputError, torch.OutOfMemoryError) as error:
                if self.number == DEFAULT:
                    raise
                trial.fail(str(error))
                experiment.remove(self.number)
                return f"trial {self.number}: failed: {error}"
            found = inner_score(experiment, self.number)
            trial.complete(found)
            return f"trial {self.number}: {found:.4f}" + ("" if twin is None else f", the same section as trial {twin}")


@dataclass(frozen=True)
class OuterTask:
    """Train a section with a new seed on all inner folds, and predict the outer fold."""

    number: int
    section: params.Model
    seed: int

    def run(self, experiment: Experiment) -> str:
        """Train, or go on; returns the outcome in words."""
        experiment.run_outer(self.number, self.section, self.seed)
        return f"outer fold: trial {self.number}, seed {self.seed} is trained"


Task = TrialTask | OuterTask


def inner_score(experiment: Experiment, number: int) -> float:
    """The out-of-fold score of a trial on the inner folds."""
    objective = experiment.settings.search.objective
    return score(objective, comparable(objective, experiment.inner_predictions(number)))
