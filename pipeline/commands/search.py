"""Search for a model's parameters: ``python -m pipeline search --trials 40 [--jobs N]``.

Draws sections of the space in params.yaml (``search``), trains each on the inner folds of data/folds.csv, and compares
the best one with the default on the outer fold, which no trial saw. Writes ``search/<study>/``: search.md (the report),
trials.csv, winner.yaml and importance.png. The database, the predictions and the saved trainings are in
``.resume/search/<study>/``: the same command goes on after an interruption, and with more trials it adds to them.
Another space, model, data or code is another study. With several jobs, trials run side by side on Ray.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from pipeline.core import hardware, params, paths, processors
from pipeline.core.errors import InputError
from pipeline.core.locks import locked
from pipeline.core.progress import count, say
from pipeline.data.fold_table import read_folds
from pipeline.search import findings, study
from pipeline.search.findings import Result
from pipeline.search.objectives import comparable, comparable_outer
from pipeline.search.runners import InProcess, Runner, SideBySide, run_tasks
from pipeline.search.space import Space
from pipeline.search.study import DEFAULT, Study
from pipeline.search.tasks import OuterTask, Task, TrialTask
from pipeline.search.trials import STUDIES, Experiment, begin
from pipeline.search.verdict import compare_outer, luck


def run_trials(experiment: Experiment, database: Study, runner: Runner, total: int) -> None:
    """Go on with the trials that were interrupted, and draw others until there are ``total``."""
    before = database.trials()
    interrupted = [trial.number for trial in before if trial.state == "running"]
    if interrupted:
        say(f"going on with {', '.join(f'trial {number}' for number in interrupted)}, saved in {experiment.study}")

    def tasks() -> Iterator[Task]:
        yield from map(TrialTask, interrupted)
        while len(database.trials()) < total:
            number = database.draw()
            drawn = database.space.searched(database.trials()[number].values)
            values = ", ".join(f"{name} {value}" for name, value in drawn.items())
            say(f"trial {number}{' (the default)' if number == DEFAULT else ''}: {values}")
            yield TrialTask(number)

    ended = len(before) - len(interrupted)
    with count("trials", total=max(total, len(before)), unit="trials", done=ended) as bar:

        def done(outcome: str) -> None:
            bar.update()
            say(outcome)

        run_tasks(runner, tasks(), done)


def conclude(experiment: Experiment, database: Study, runner: Runner) -> Result:
    """Train the winner and the default for the outer fold, and compare them there."""
    settings, search, space = experiment.settings, experiment.settings.search, database.space
    trials = database.trials()
    complete = [trial for trial in trials if trial.score is not None]
    winner = max(complete, key=lambda trial: (trial.score, -trial.number)).number
    sections = {number: space.section(trials[number].values) for number in (DEFAULT, winner)}
    tasks = [OuterTask(number, section, seed) for seed in range(search.seeds) for number, section in sections.items()]
    with count("outer fold", total=len(tasks), unit="trainings") as bar:
        run_tasks(runner, iter(tasks), lambda _: bar.update())

    inner = {trial.number: experiment.inner_predictions(trial.number) for trial in complete}
    outer = {
        number: [comparable_outer(search.objective, one, inner[number]) for one in experiment.outer_predictions(number)]
        for number in sections
    }
    comparison = compare_outer(search.objective, outer[winner], outer[DEFAULT], settings.score)
    chance = luck(
        search.objective,
        [comparable(search.objective, one) for one in inner.values()],
        list(inner).index(DEFAULT),
        settings.score,
        pruned=len([trial for trial in trials if trial.state == "pruned"]),
        # Each inner score is of as many networks as there are inner folds, which averages the effects of their seeds.
        seed_variance=comparison.seed_variance / len(experiment.inner_folds),
    )
    return Result(
        space,
        trials,
        winner,
        sections[winner],
        chance,
        comparison,
        database.importances(),
        (len(experiment.inner), len(experiment.outer)),
    )


def main(arguments: Sequence[str]) -> None:
    """Run the trials, compare the winner with the default, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline search",
        description="Search for a model's parameters, over the space in params.yaml (search). A fold that no trial saw "
        "tells whether the winner is ahead of the default.",
        epilog="Interrupted at any time, the same command goes on. A larger number of trials adds to those there are.",
    )
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="all trials together (%(default)s)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="trials side by side, on Ray (default: one per GPU; without GPUs, 1)"
    )
    parsed = parser.parse_args(arguments)
    gpus = torch.cuda.device_count()
    jobs: int = max(gpus, 1) if parsed.jobs is None else parsed.jobs
    check(parsed.trials, jobs, gpus)
    study.check_installed()
    settings = params.load()
    space = Space(settings)
    space.default_values()
    if isinstance(space.default, params.NetworkModel) and space.default.compile:
        hardware.check_compiler()
    experiment = begin(settings, read_folds())
    experiment = replace(experiment, study=experiment.study.resolve())
    with (
        locked(STUDIES / "lock"),
        closing(Study(experiment.study, space)) as database,
        closing(InProcess(experiment) if jobs == 1 else SideBySide(experiment, jobs, gpus)) as runner,
    ):
        run_trials(experiment, database, runner, parsed.trials)
        result = conclude(experiment, database, runner)
    folder = paths.SEARCH / experiment.study.name
    confidence = settings.score.confidence
    findings.write(result, folder, confidence)
    print(findings.describe(result, confidence))
    print(f"report {folder}/search.md, section to paste {folder}/winner.yaml, all trials {folder}/trials.csv")


def check(trials: int, jobs: int, gpus: int) -> None:
    """Check the numbers of the command line.

    Raises:
        InputError: names the wrong one.
    """
    if trials < 2:
        raise InputError(f"--trials {trials}: give 2 or more, since the first trial is the default")
    most = gpus or processors.usable()
    if not 1 <= jobs <= most:
        raise InputError(f"--jobs {jobs}: there are {most} {'GPUs' if gpus else 'cores'}, so give 1 to {most}")
