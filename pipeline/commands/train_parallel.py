"""Train the stale jobs of the matrix in parallel on Ray: ``python -m pipeline train-parallel [--cpus N]``.

Does what ``dvc repro tta`` does and leaves the same dvc.lock, but runs the jobs (a model and a fold each) in parallel,
each with its own GPU and its share of the cores or, without GPUs, with N cores. Where there are several GPUs, ``make
repro`` runs it first. On a CPU the number of threads changes the last digits, so the outputs are byte-identical to
those of ``OMP_NUM_THREADS=N dvc repro tta``. Ray runs on this machine or on the cluster named by RAY_ADDRESS; all
machines of a cluster must see the project at the same path. A job's output is in logs/.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from pipeline.core import code_digest, params, paths, stage_inputs
from pipeline.core.errors import InputError
from pipeline.core.progress import count, say

RETRIES = 3
"""Restarts of a job whose worker process was lost. A job that ends by itself, successfully or not, is not restarted."""

BEFORE = ("folds", "complete-models")
"""Stages whose outputs the jobs read; where there is one, ``pretrain`` too."""

END_OF_LOG = 5
"""Lines of a failed job's log that are printed."""


@dataclass(frozen=True)
class Job:
    """One job of ``train`` or ``tta``."""

    stage: str
    model: str
    fold: int

    @property
    def name(self) -> str:
        """DVC's name of the job."""
        return f"{self.stage}@{self.model}-{self.fold}"

    @property
    def log(self) -> Path:
        """The file that its output goes to."""
        return Path("logs") / f"{self.stage}-{self.model}-{self.fold}.log"

    @property
    def arguments(self) -> list[str]:
        """The arguments of Python, as in dvc.yaml."""
        return ["-m", f"pipeline.stages.{self.stage}", "--model", self.model, "--fold", str(self.fold)]


def stale(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that DVC would run."""
    if not jobs:
        return []
    with Repo(_wait_for_lock=True) as repo:
        found = repo.status(targets=[job.name for job in jobs])
    return [job for job in jobs if job.name in found]


def note(job: Job) -> None:
    """Record the job's dependencies and outputs in dvc.lock, and its outputs in DVC's cache, as `dvc repro` does."""
    with Repo(_wait_for_lock=True) as repo:
        repo.commit(job.name, force=True)


def inputs() -> str:
    """A digest of everything that the jobs read except the images: parameters, stages, folds, weights and code."""
    code = "".join(code_digest.of_module(f"pipeline.stages.{stage}") for stage in ("train", "tta"))
    weights = [file for folder in ("weights", "autoencoders") for file in stage_inputs.read_files(Path(folder))]
    paths_read = (Path("params.yaml"), Path("dvc.yaml"), paths.FOLDS, *sorted(weights))
    digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths_read)
    return hashlib.sha256(code.encode() + digests).hexdigest()


def run_jobs(jobs: Sequence[Job], cpus: int, gpus: int = 0) -> list[Job]:
    """Run the stale ``train`` jobs, and ``tta`` after each; record every successful job in dvc.lock.

    Args:
        jobs: all ``train`` jobs, stale or not; Ray must be initialised.
        cpus: cores, and threads, of a job.
        gpus: GPUs of a job.

    Returns:
        The jobs that failed; the ``tta`` job after a failed ``train`` job is not run.

    Raises:
        InputError: a dependency of the jobs changed meanwhile, so that dvc.lock would record the wrong version.
    """
    import ray  # optional: requirements-cluster.txt

    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_run)
    running: dict[object, Job] = {}
    failed: list[Job] = []
    before = inputs()

    def submit(job: Job) -> None:
        job.log.parent.mkdir(exist_ok=True)
        job.log.unlink(missing_ok=True)
        running[task.remote(job.arguments, str(Path.cwd()), str(job.log), cpus)] = job

    to_train = stale(jobs)
    for job in to_train:
        submit(job)
    for job in stale([_after(job) for job in jobs if job not in to_train]):
        submit(job)
    with count("jobs", total=len(running) + len(to_train), unit="jobs") as bar:
        while running:
            [done], _ = ray.wait(list(running))
            job = running.pop(done)
            bar.update()
            if inputs() != before:
                raise InputError(
                    "params.yaml, dvc.yaml, folds, weights or code changed meanwhile: run the same command again"
                )
            if not _succeeded(done):
                failed.append(job)
                bar.update(job.stage == "train")  # its tta will not run
            else:
                note(job)
                if job.stage == "train":
                    follow = stale([_after(job)])
                    for after in follow:
                        submit(after)
                    bar.update(not follow)
            say(f"{job.name} {'failed' if job in failed else 'done'}, {len(running)} running or waiting")
    return failed


def _after(job: Job) -> Job:
    return Job("tta", job.model, job.fold)


def _succeeded(task: object) -> bool:
    import ray

    try:
        return bool(ray.get(task) == 0)
    except ray.exceptions.RayError as error:  # the worker was lost more than RETRIES times
        say(str(error))
        return False


def _run(arguments: list[str], folder: str, log: str, threads: int) -> int:
    """Run Python in ``folder``, in a Ray worker, and return its exit code."""
    # Ray may have been started by srun, whose variables would make a job one rank of several.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    # Loaded before the fork: in a multi-threaded process, few calls are safe between fork and exec.
    kernel = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        """Have the kernel kill the job with its worker; otherwise it would keep running beside its restarted copy."""
        if kernel is not None:
            kernel.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    with (Path(folder) / log).open("ab") as output:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            # The second one is how many cores joblib, and so machine.workers: auto, counts.
            env=environment | {"OMP_NUM_THREADS": str(threads), "LOKY_MAX_CPU_COUNT": str(threads)},
            stdout=output,
            stderr=output,
            preexec_fn=end_with_parent,
            check=False,
        ).returncode


def gpus_per_job(machines: Sequence[Mapping[str, float]], devices: int) -> int:
    """GPUs of a job: ``machine.devices`` of params.yaml, or 0 where there is none.

    Args:
        machines: Ray's resources of each, with the keys CPU and GPU.
        devices: GPUs that train one network together.

    Raises:
        InputError: no machine has as many.
    """
    most = int(max(machine.get("GPU", 0) for machine in machines))
    if most and devices > most:
        raise InputError(f"machine.devices in params.yaml is {devices}, but no machine has more than {most} GPUs")
    return devices if most else 0


def cores_per_job(machines: Sequence[Mapping[str, float]], gpus: int) -> int:
    """Cores per job, the same on every machine, so that all GPUs can be used at once; 1 without GPUs."""
    shares = [machine.get("CPU", 0) / machine["GPU"] for machine in machines if machine.get("GPU")]
    return max(int(min(shares) * gpus), 1) if shares else 1


def messages(failed: Sequence[Job]) -> Iterator[str]:
    """A message per failed job: its name, its log file and the last lines of it."""
    for job in failed:
        lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.exists() else []
        yield "\n    ".join([f"{job.name} failed, see {job.log}:", *lines[-END_OF_LOG:]])


def main(arguments: Sequence[str]) -> None:
    """Run all stale jobs."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline train-parallel",
        description="Run the stale train and tta jobs (a model and a fold each) in parallel on Ray: one per GPU or, "
        "without GPUs, one per N cores. dvc.lock is updated as by `dvc repro tta`.",
        epilog="Set RAY_ADDRESS to use a running Ray cluster. A job's output is in logs/.",
    )
    parser.add_argument(
        "--cpus", type=int, metavar="N", help="cores per job (default: with GPUs, a GPU's share; without, 1)"
    )
    cpus: int | None = parser.parse_args(arguments).cpus
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed: run make train-parallel, or pip install -r requirements-cluster.txt")
    settings = params.load()
    stages = [*BEFORE, *(["pretrain"] if settings.pretrain.models else [])]
    if subprocess.run([sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *stages], check=False).returncode:
        raise InputError(f"dvc repro {' '.join(stages)} failed (see above), and the jobs need its outputs")
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # "local" starts a new instance: without an address, Ray would join one that already runs on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address, include_dashboard=False if address == "local" else None, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"RAY_ADDRESS={address}: no cluster found ({error}): start Ray there or unset it") from None
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = int(max(machine.get("CPU", 0) for machine in machines))
    gpus = gpus_per_job(machines, settings.machine.devices)
    cpus = cores_per_job(machines, gpus) if cpus is None else cpus
    if not 1 <= cpus <= most:
        raise InputError(f"--cpus {cpus}: Ray's largest machine has {most} cores, so give 1 to {most}")
    jobs = [Job("train", name, fold) for name in settings.models for fold in settings.folds.ids]
    if failed := run_jobs(jobs, cpus, gpus):
        raise InputError(f"{len(failed)} jobs failed, the others succeeded\n" + "\n".join(messages(failed)))
    say("all jobs are up to date: run dvc repro for the remaining stages")
