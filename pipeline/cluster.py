"""The stale cells of the matrix side by side, on Ray: ``python -m pipeline.cluster [--cpus N]``.

Does what ``dvc repro tta`` does, and leaves dvc.lock as that would, but trains and applies the cells (a model and a
fold) beside one another: each with a GPU of its own or, where there is none, with N cores. On a CPU the number of
threads changes the last digits, so the bytes are those of ``OMP_NUM_THREADS=N dvc repro tta``. Ray runs on this machine
or on the cluster that RAY_ADDRESS names; there the project is a checkout that all machines share, under one path. A
cell's output goes to logs/.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from pipeline import params, paths
from pipeline.errors import InputError, run_stage
from pipeline.progress import count, say

RETRIES = 3
"""How often a cell is started again whose worker was lost. One that ends by itself, well or not, is not."""
END_OF_LOG = 5


@dataclass(frozen=True)
class Cell:
    """One cell of ``train`` or ``tta``."""

    stage: str
    model: str
    fold: int

    @property
    def name(self) -> str:
        """As DVC calls it."""
        return f"{self.stage}@{self.model}-{self.fold}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return Path("logs") / f"{self.stage}-{self.model}-{self.fold}.log"

    @property
    def arguments(self) -> list[str]:
        """What Python is started with, as dvc.yaml has it."""
        return ["-m", f"pipeline.stages.{self.stage}", "--model", self.model, "--fold", str(self.fold)]


def stale(cells: Sequence[Cell]) -> list[Cell]:
    """Those of the cells that DVC would run."""
    if not cells:
        return []
    with Repo(_wait_for_lock=True) as repo:
        found = repo.status(targets=[cell.name for cell in cells])
    return [cell for cell in cells if cell.name in found]


def note(cell: Cell) -> None:
    """Write what the cell read and made to dvc.lock, and its outputs to DVC's cache, as `dvc repro` does."""
    with Repo(_wait_for_lock=True) as repo:
        repo.commit(cell.name, force=True)


def inputs() -> str:
    """A digest of what makes the cells but for the images: parameters, stages, folds, weights and code."""
    code = sorted(Path(__file__).parent.rglob("*.py"))
    weights = sorted(path for path in Path("weights").rglob("*") if path.is_file())
    paths_read = (Path("params.yaml"), Path("dvc.yaml"), paths.FOLDS, *weights, *code)
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths_read)).hexdigest()


def run_cells(cells: Sequence[Cell], cpus: int) -> list[Cell]:
    """Run ``train`` cells that are stale, then ``tta`` of each, noting every one that succeeds in dvc.lock.

    Args:
        cells: those of ``train`` to bring up to date; Ray must be initialised.
        cpus: cores of a cell, which are its threads as well.

    Returns:
        The cells that failed; their ``tta`` is left out.

    Raises:
        InputError: what makes the cells has changed under way, so that dvc.lock would note the wrong thing.
    """
    import ray  # optional: requirements-cluster.txt

    gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_run)
    running: dict[object, Cell] = {}
    failed: list[Cell] = []
    before = inputs()

    def submit(cell: Cell) -> None:
        cell.log.parent.mkdir(exist_ok=True)
        cell.log.unlink(missing_ok=True)
        running[task.remote(cell.arguments, str(Path.cwd()), str(cell.log), cpus)] = cell

    to_train = stale(cells)
    for cell in to_train:
        submit(cell)
    for cell in stale([_after(cell) for cell in cells if cell not in to_train]):
        submit(cell)
    with count("cells", total=len(running) + len(to_train), unit="cells") as bar:
        while running:
            [done], _ = ray.wait(list(running))
            cell = running.pop(done)
            bar.update()
            if inputs() != before:
                raise InputError(
                    "params.yaml, dvc.yaml, folds, weights or code changed under way: run the same command again"
                )
            if not _succeeded(done):
                failed.append(cell)
                bar.update(cell.stage == "train")  # its tta will not run
            else:
                note(cell)
                if cell.stage == "train":
                    follow = stale([_after(cell)])
                    for after in follow:
                        submit(after)
                    bar.update(not follow)
            say(f"{cell.name} {'failed' if cell in failed else 'done'}, {len(running)} running or waiting")
    return failed


def _after(cell: Cell) -> Cell:
    return Cell("tta", cell.model, cell.fold)


def _succeeded(task: object) -> bool:
    import ray

    try:
        return bool(ray.get(task) == 0)
    except ray.exceptions.RayError as error:  # its worker was lost too often
        say(str(error))
        return False


def _run(arguments: list[str], folder: str, log: str, threads: int) -> int:
    """Run Python in ``folder`` and return its exit code; on a worker of Ray."""
    # Ray may have been started by srun, whose variables would make a cell one rank of many.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    # Loaded before the fork, after which only little is safe in a process of many threads.
    kernel = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        """Without it, a lost worker's cell would run on beside the one that is started in its place."""
        if kernel is not None:
            kernel.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    with (Path(folder) / log).open("ab") as output:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment | {"OMP_NUM_THREADS": str(threads)},
            stdout=output,
            stderr=output,
            preexec_fn=end_with_parent,
            check=False,
        ).returncode


def messages(failed: Sequence[Cell]) -> Iterator[str]:
    """What to tell about each cell that failed: its name, its log and the end of that."""
    for cell in failed:
        lines = cell.log.read_text(encoding="utf-8", errors="replace").splitlines() if cell.log.exists() else []
        yield "\n    ".join([f"{cell.name} failed, see {cell.log}:", *lines[-END_OF_LOG:]])


def main() -> None:
    """Bring every cell up to date."""
    parser = argparse.ArgumentParser(description="Run the stale cells of train and tta side by side, on Ray.")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of a cell (default: 1)")
    cpus: int = parser.parse_args().cpus
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed: run make train-parallel, or install requirements-cluster.txt")
    settings = params.load()
    if subprocess.run([sys.executable, "-m", "dvc", "repro", "folds"], check=False).returncode:
        raise InputError("dvc repro folds failed, as said above: the cells need the folds first")
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # "local" starts Ray anew: without an address it would join whatever runs on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address, include_dashboard=False if address == "local" else None, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"RAY_ADDRESS={address}: no cluster there ({error}): start Ray there or unset it") from None
    most = int(max(node["Resources"].get("CPU", 0) for node in ray.nodes()))
    if not 1 <= cpus <= most:
        raise InputError(f"--cpus {cpus}: the largest machine has {most} cores for Ray, so give 1 to {most}")
    cells = [Cell("train", name, fold) for name in settings.models for fold in settings.folds.ids]
    if failed := run_cells(cells, cpus):
        raise InputError(f"{len(failed)} cells failed, the others are done\n" + "\n".join(messages(failed)))
    say("every cell is up to date: dvc repro does the rest")


if __name__ == "__main__":
    run_stage(main)
