"""Run the tasks of a search one after another in this process, or side by side on Ray."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pipeline.core import processors
from pipeline.core.errors import InputError
from pipeline.search.tasks import Task
from pipeline.search.trials import Experiment

RETRIES = 3
"""Restarts of a task whose worker process was lost."""


class Runner(Protocol):
    """Runs tasks, one after another or side by side."""

    jobs: int

    def start(self, task: Task) -> None:
        """Start a task; at most ``jobs`` are running."""

    def finish(self) -> str:
        """Wait for a running task to end; returns its outcome."""

    def close(self) -> None:
        """Stop what is running."""


class InProcess:
    """Runs one task at a time in this process."""

    jobs = 1

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._task: Task | None = None

    def start(self, task: Task) -> None:
        """Keep the task until ``finish``."""
        self._task = task

    def finish(self) -> str:
        """Run it."""
        assert self._task is not None  # for the type checker
        return self._task.run(self._experiment)

    def close(self) -> None:
        """Nothing is left behind."""


class SideBySide:
    """Runs tasks on Ray on this machine, each with its share of the cores and, if there are GPUs, its own GPU.

    Raises:
        InputError: Ray is not installed, or there are fewer cores or GPUs than jobs.
    """

    def __init__(self, experiment: Experiment, jobs: int, gpus: int) -> None:
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                f"Ray is not installed, which runs {jobs} trials side by side: run make search, or pip install -r "
                "requirements-cluster.txt, or give --jobs 1"
            )
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.jobs = jobs
        cores = max(processors.usable() // jobs, 1)
        ray.init("local", num_cpus=cores * jobs, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
        variables = {"OMP_NUM_THREADS": str(cores), "LOKY_MAX_CPU_COUNT": str(cores)}
        self._remote = ray.remote(
            num_cpus=cores, num_gpus=1 if gpus else 0, max_retries=RETRIES, runtime_env={"env_vars": variables}
        )(_run_in_worker)
        self._ray, self._experiment = ray, ray.put(experiment)
        self._running: list[Any] = []

    def start(self, task: Task) -> None:
        """Give the task to a worker."""
        self._running.append(self._remote.remote(task, self._experiment, str(Path.cwd())))

    def finish(self) -> str:
        """Wait for the first task that ends.

        Raises:
            InputError: it cannot be run, or its worker was lost too often.
        """
        [done], self._running = self._ray.wait(self._running)
        try:
            outcome, failed = self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            raise InputError(f"a trial was lost: {error}") from None
        if failed:
            raise InputError(outcome)
        return str(outcome)

    def close(self) -> None:
        """Stop Ray and the tasks that are running; they go on when the search does."""
        self._ray.shutdown()


def _run_in_worker(task: Task, experiment: Experiment, folder: str) -> tuple[str, bool]:
    """Run a task in a Ray worker: its outcome or error, and whether it is an error."""
    os.chdir(folder)
    try:
        return task.run(experiment), False
    except InputError as error:
        return str(error), True


def run_tasks(runner: Runner, tasks: Iterator[Task], done: Callable[[str], object]) -> None:
    """Run all tasks; ``done`` is called with the outcome of each."""
    running = 0
    while True:
        while running < runner.jobs and (task := next(tasks, None)) is not None:
            runner.start(task)
            running += 1
        if not running:
            return
        done(runner.finish())
        running -= 1
