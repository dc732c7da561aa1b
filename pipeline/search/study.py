"""The trials of a search in Optuna's database: what was drawn, what was reported, how each ended.

The only module that imports Optuna, which is optional (requirements-search.txt). The database is SQLite, whose
transactions survive a kill. Each trial is drawn with a seed of its own number, so a search that was interrupted goes on
as it would have; with several trials at a time, it depends on the order in which they end.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.core import optional_packages
from pipeline.core.params import Search
from pipeline.core.paths import replacing
from pipeline.search.space import Choice, Parameter, Scalar, Space

if TYPE_CHECKING:
    import optuna

NAME = "search"
FILE = "trials.db"
MESSAGE = "message"
WAIT_S = 120
"""Longest time that one process waits for another one's transaction."""

DEFAULT = 0
"""Number of the trial with the default section. It is never pruned."""

State = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """A trial as the database has it.

    Attributes:
        number: from 0, in the order in which they were drawn.
        state: how it ended, if it has.
        values: what was drawn, by parameter.
        score: of a complete trial; higher is better.
        losses: what was reported to the pruner, by percentage of the first fold's epochs.
        message: why it failed.
    """

    number: int
    state: State
    values: dict[str, Scalar]
    score: float | None
    losses: dict[int, float]
    message: str


class Study:
    """The database of a search.

    Args:
        folder: where it is, or is made.
        space: the space to draw from.

    Raises:
        InputError: Optuna is not installed.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        check_installed()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, path = space, folder / FILE
        if not path.exists():
            with replacing(path) as temporary:  # never half a database
                made = optuna.create_study(storage=_storage(temporary), study_name=NAME, direction="maximize")
                made.enqueue_trial(space.default_values())
                _close(made)
        self._study = optuna.load_study(storage=_storage(path), study_name=NAME, pruner=_pruner(space.search))

    def close(self) -> None:
        """Close the database."""
        _close(self._study)

    def trials(self) -> list[Trial]:
        """All trials that were drawn, in order."""
        return [_described(found) for found in self._study.get_trials(deepcopy=False) if found.state.name != "WAITING"]

    def draw(self) -> int:
        """Draw a trial, and return its number. The first one is the default."""
        self._study.sampler = self._sampler(len(self.trials()))
        trial = self._study.ask()
        self.space.draw(lambda parameter: _suggest(trial, parameter))
        return trial.number

    def open(self, number: int) -> "OpenTrial":
        """A drawn trial that has not ended; what a kill has left undrawn is drawn now."""
        import optuna

        self._study.sampler = self._sampler(number)
        [found] = [one for one in self._study.get_trials(deepcopy=False) if one.number == number]
        return OpenTrial(self._study, optuna.Trial(self._study, found._trial_id), self.space)

    def twin(self, number: int) -> int | None:
        """A complete trial with the same section, if there is one: small spaces repeat themselves."""
        trials = self.trials()
        section = self.space.searched(trials[number].values)
        complete = (trial for trial in trials if trial.score is not None)
        return next((trial.number for trial in complete if self.space.searched(trial.values) == section), None)

    def importances(self) -> dict[str, float]:
        """The importance of each parameter for a high score, largest first; empty if all scores are equal.

        PED-ANOVA, which also ranks parameters that not all trials have (Watanabe et al., IJCAI 2023).
        """
        import optuna

        complete = [trial for trial in self.trials() if trial.state == "complete"]
        if len({trial.score for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Some regimes for parameter", UserWarning
            )  # too few trials to be accurate
            return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def _sampler(self, number: int) -> "optuna.samplers.BaseSampler":
        import optuna

        search = self.space.search
        seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=search.startup, seed=seed)


class OpenTrial:
    """A trial that is to be trained, or is being trained.

    Args:
        study: Optuna's.
        trial: Optuna's.
        space: the space that it is from.
    """

    def __init__(self, study: "optuna.Study", trial: "optuna.Trial", space: Space) -> None:
        self._study, self._trial = study, trial
        self.number: int = trial.number
        space.draw(lambda parameter: _suggest(trial, parameter))
        self.values: dict[str, Scalar] = dict(trial.params)

    def is_hopeless(self, percent: int, loss: float) -> bool:
        """Report the held-out loss after so many per cent of the first fold's epochs; whether to end the trial now.

        A resumed training reports its earlier epochs again.
        """
        if percent not in self._study.get_trials(deepcopy=False)[self.number].intermediate_values:
            self._trial.report(-loss, percent)  # negative, because the score is maximised
        return self.number != DEFAULT and self._trial.should_prune()

    def complete(self, score: float) -> None:
        """Record the score; higher is better."""
        self._study.tell(self.number, score)

    def prune(self) -> None:
        """Record that the trial was pruned."""
        import optuna

        self._study.tell(self.number, state=optuna.trial.TrialState.PRUNED)

    def fail(self, message: str) -> None:
        """Record why the trial could not be trained."""
        import optuna

        self._trial.set_user_attr(MESSAGE, message)
        self._study.tell(self.number, state=optuna.trial.TrialState.FAIL)


def check_installed() -> None:
    """Check that Optuna is installed.

    Raises:
        InputError: it is not.
    """
    optional_packages.check_installed("the search", ("optuna",), "requirements-search.txt")


def _suggest(trial: "optuna.Trial", parameter: Parameter) -> Scalar:
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(parameter.name, parameter.texts)
    if parameter.whole:
        return trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)


def _storage(path: Path) -> Any:
    from optuna.storages import RDBStorage

    return RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": WAIT_S}})


def _close(study: "optuna.Study") -> None:
    study._storage.remove_session()
    backend: Any = study._storage
    getattr(backend, "_backend", backend).engine.dispose()


def _pruner(search: Search) -> "optuna.pruners.BasePruner":
    import optuna

    match search.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=search.startup)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=100)


def _described(found: "optuna.trial.FrozenTrial") -> Trial:
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return Trial(
        number=found.number,
        state=states.get(found.state.name, "running"),
        values=dict(found.params),
        score=found.value if found.state.name == "COMPLETE" else None,
        losses={percent: -value for percent, value in found.intermediate_values.items()},
        message=str(found.user_attrs.get(MESSAGE, "")),
    )
