"""The database: the optimum of a planted space is found, a restart changes nothing, and the hopeless are pruned."""

import importlib.util
import math
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.search import study
from pipeline.search.space import Space
from pipeline.search.study import DEFAULT, Study, Trial
from tests.fixtures.searches import configure

pytest.importorskip("optuna", reason="requirements-search.txt is not installed")

PLANTED = {
    "network": {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "dropout": {"low": 0, "high": 0.9, "log": False},
        "augment.noise": {"low": 0, "high": 0.5, "log": False},
    }
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quality(model: params.Model) -> float:
    """Highest, 0, at a learning rate of .02 and a dropout of .6; the noise does not matter."""
    assert isinstance(model, params.NetworkModel)
    return -abs(math.log10(model.learning_rate / 0.02)) - abs(model.dropout - 0.6)


def run(folder: Path, space: Space, trials: int, *, restart: bool = False) -> list[Trial]:
    """A search without trainings, in a database that is opened again for each trial if ``restart``."""
    folder.mkdir(exist_ok=True)
    database = Study(folder, space)
    for _ in range(trials):
        number = database.draw()
        if restart:
            database.close()
            database = Study(folder, space)
        section = space.section(database.trials()[number].values)
        database.open(number).complete(quality(section))
    with closing(database):
        return database.trials()


def test_the_optimum_of_a_planted_space_is_found(folder: Path) -> None:
    space = Space(configure(space=PLANTED, conditions={}, startup=8))
    trials = run(folder / "one", space, 25)
    best = max(trials, key=lambda trial: trial.score or -math.inf)
    assert quality(space.section(trials[DEFAULT].values)) < -1
    assert (best.score or -math.inf) > -0.25
    with closing(Study(folder / "one", space)) as database:
        importances = database.importances()
    assert list(importances)[-1] == "augment.noise"
    assert sum(importances.values()) == pytest.approx(1)


def test_a_restart_after_each_trial_draws_the_same_trials(folder: Path) -> None:
    space = Space(configure(startup=2))
    expected = run(folder / "one", space, 6)
    assert run(folder / "two", space, 6, restart=True) == expected
    assert len({str(trial.values) for trial in expected}) == 6
    assert space.section(expected[DEFAULT].values) == space.default


def test_another_seed_draws_other_trials(folder: Path) -> None:
    found = [run(folder / str(seed), Space(configure(seed=seed)), 3) for seed in (0, 1)]
    assert found[0][DEFAULT] == found[1][DEFAULT]
    assert found[0][1].values != found[1][1].values


def test_a_trial_that_was_left_half_drawn_is_drawn_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(configure(space=PLANTED, conditions={}))
    database = Study(folder, space)
    database.open(database.draw()).complete(0)
    suggest, drawn = study._suggest, list[str]()

    def killed(*arguments: object) -> object:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append("")
        return suggest(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(study, "_suggest", killed)
        with pytest.raises(KeyboardInterrupt):
            database.draw()
    database.close()
    with closing(Study(folder, space)) as database:
        before = database.trials()[1]
        assert (before.state, len(before.values)) == ("running", 2)
        database.open(1).complete(1)
        after = database.trials()[1]
    assert after.state == "complete"
    assert len(after.values) == 3
    assert before.values.items() <= after.values.items()


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_hopeless_trials_are_pruned_and_never_the_default(folder: Path, pruner: str) -> None:
    with closing(Study(folder, Space(configure(pruner=pruner, startup=2)))) as database:
        for loss in (9.0, 1.0, 1.0, 1.0, 8.0, 0.5):
            trial = database.open(database.draw())
            if any(trial.is_hopeless(percent, loss) for percent in (50, 50, 100)):  # one is reported again
                trial.prune()
            else:
                trial.complete(-loss)
        found = database.trials()
    assert found[DEFAULT].state == "complete"
    assert found[4].state == ("complete" if pruner == "none" else "pruned")
    assert found[4].losses[50] == 8
    assert found[5].state == "complete"


def test_a_failed_trial_keeps_its_reason(folder: Path) -> None:
    with closing(Study(folder, Space(configure()))) as database:
        database.draw()
        database.open(database.draw()).fail("the loss is nan")
        assert [(trial.state, trial.message) for trial in database.trials()] == [
            ("running", ""),
            ("failed", "the loss is nan"),
        ]
        assert database.importances() == {}


def test_a_section_that_was_drawn_before_has_a_twin(folder: Path) -> None:
    space = Space(configure(space={"network": {"epochs": [1, 2]}}, conditions={}))
    with closing(Study(folder, space)) as database:
        numbers = [database.draw() for _ in range(6)]
        values = [trial.values for trial in database.trials()]
        again = next(number for number in numbers[1:] if values[number] == values[DEFAULT])
        assert database.twin(again) is None  # not complete yet
        database.open(DEFAULT).complete(1)
        assert database.twin(again) == DEFAULT


def test_optuna_is_imported_when_a_study_is_opened_and_not_before() -> None:
    """That this is the only module which can import it is checked by the import contracts."""
    code = "import sys, pipeline.search.study; print('optuna' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "False\n"


def test_a_missing_package_is_named_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^the search needs optuna: pip install -r requirements-s"):
        Study(folder, Space(configure()))
    assert not (folder / study.FILE).exists()
