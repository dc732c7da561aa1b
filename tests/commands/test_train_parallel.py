"""Jobs side by side leave what `dvc repro` leaves; one that fails is named, one that is lost is started again.

The stages are stand-ins of a few lines, so that the tests take seconds: `python -m benchmarks.parallel_jobs` trains.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.commands.train_parallel import BEFORE, Job, cores_per_job, gpus_per_job, inputs, messages, run_jobs, stale
from pipeline.core.errors import InputError
from tests.benchmarks.test_interrupt_benchmark import alive

ray = pytest.importorskip("ray", reason="requirements-cluster.txt is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # pygtrie, used by DVC itself
]

STAGE = """
import os, pathlib, signal, sys
fold, root = sys.argv[-1], pathlib.Path.cwd()
print("working on", fold, *(name for name in os.environ if name.startswith("SLURM_")))
if (root / f"fail-{fold}").exists():
    sys.exit("error: no luck")
if (root / "edit").exists():
    (root / "params.yaml").write_text("seed: 2")
if (root / f"lose-{fold}").exists():
    (root / f"lose-{fold}").unlink()
    (root / "lost").write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()
read, written = pathlib.Path(IN), pathlib.Path(OUT)
written.parent.mkdir(exist_ok=True)
written.write_text(read.read_text() + fold)
"""
PIPELINE = """
stages:
  train:
    matrix: {model: [m], fold: [0, 1]}
    cmd: python -m pipeline.stages.train --model ${item.model} --fold ${item.fold}
    deps: [data.txt]
    outs: ["models/${item.fold}"]
  tta:
    matrix: {model: [m], fold: [0, 1]}
    cmd: python -m pipeline.stages.tta --model ${item.model} --fold ${item.fold}
    deps: ["models/${item.fold}"]
    outs: ["predictions/${item.fold}"]
"""
JOBS = [Job("train", "m", fold) for fold in (0, 1)]


@pytest.fixture(scope="module", autouse=True)
def _two_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("SLURM_STEP_NUM_TASKS", "2")
        ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project with a matrix of two stages, in which nothing has run."""
    stages = tmp_path / "pipeline" / "stages"
    stages.mkdir(parents=True)
    (stages / "train.py").write_text(STAGE.replace("IN", "'data.txt'").replace("OUT", "f'models/{fold}'"))
    (stages / "tta.py").write_text(STAGE.replace("IN", "f'models/{fold}'").replace("OUT", "f'predictions/{fold}'"))
    (tmp_path / "data.txt").write_text("data")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text("seed: 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/folds.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    Repo.init(no_scm=True).close()
    return tmp_path


def reproduced() -> list[object]:
    """The stages that `dvc repro` runs."""
    with Repo() as repo:
        return list(repo.reproduce(run_cache=False))


def outputs(folder: Path) -> dict[str, object]:
    """All that a run leaves; the order in dvc.lock is that in which the jobs ended."""
    files = [*folder.glob("models/[0-9]"), *folder.glob("predictions/[0-9]")]
    lock = YAML(typ="safe").load(folder / "dvc.lock")
    return {"dvc.lock": lock, **{str(path.relative_to(folder)): path.read_bytes() for path in files}}


def test_the_outputs_and_the_lock_are_those_of_dvc_repro(project: Path) -> None:
    (project / "lose-1").touch()
    assert run_jobs(JOBS, 1) == []
    assert not (project / "lose-1").exists(), "no worker was lost"
    assert not alive(int((project / "lost").read_text())), "two processes worked on one job"
    assert JOBS[0].log.read_text() == "working on 0\n"
    side_by_side = outputs(project)
    assert len(side_by_side) == 5
    assert reproduced() == []
    for name in side_by_side:
        (project / name).unlink()
    assert len(reproduced()) == 4
    assert outputs(project) == side_by_side


def test_a_failed_job_is_named_and_the_others_end(project: Path) -> None:
    (project / "fail-1").touch()
    failed = run_jobs(JOBS, 1)
    assert failed == [JOBS[1]]
    assert stale(JOBS) == failed
    assert set(outputs(project)) == {"dvc.lock", "models/0", "predictions/0"}
    [message] = messages(failed)
    assert message.splitlines() == [
        "train@m-1 failed, see logs/train-m-1.log:",
        "    working on 1",
        "    error: no luck",
    ]
    (project / "fail-1").unlink()
    assert run_jobs(JOBS, 1) == []
    assert reproduced() == []


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("weights/.DS_Store", False),
        ("weights/Thumbs.db", False),
        ("weights/README.md", False),
        ("weights/resnet34.pth.crdownload", False),
        ("weights/@eaDir/mine.pth", False),
        ("weights/mine.pth", True),
        ("weights/others/mine.safetensors", True),
        ("params.yaml", True),
        ("data/folds.csv", True),
    ],
)
def test_a_run_ends_for_a_change_of_what_the_jobs_read_and_for_no_other(project: Path, name: str, read: bool) -> None:
    before = inputs()
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("new")
    assert (inputs() != before) == read


def test_every_job_has_a_gpu_of_its_own_and_its_share_of_the_cores(tmp_path: Path) -> None:
    """In a process of its own, which tells Ray of GPUs that are not there."""
    code = f"""
import ray, sys
from pathlib import Path
from pipeline.commands.train_parallel import _run, cores_per_job
ray.init(address="local", num_cpus=4, num_gpus=3, include_dashboard=False, log_to_driver=False)
cpus = cores_per_job([node["Resources"] for node in ray.nodes()], 1)
task = ray.remote(num_cpus=cpus, num_gpus=1)(_run)
script = "import os, time; from pipeline.core.processors import workers; time.sleep(5)\\n" \
    "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'], workers('auto'))"
tasks = [task.remote(["-c", script], {str(Path.cwd())!r}, f"{tmp_path}/{{n}}.log", cpus) for n in range(3)]
assert ray.get(tasks) == [0, 0, 0]
print(cpus)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"
    seen = [(tmp_path / f"{number}.log").read_text().split() for number in range(3)]
    assert sorted(gpu for gpu, _, _ in seen) == ["0", "1", "2"]
    assert [numbers for _, *numbers in seen] == [["1", "1"]] * 3


def test_the_cores_of_the_smallest_share_are_given_to_each_job() -> None:
    assert cores_per_job([{"CPU": 64, "GPU": 8}], 1) == 8
    assert cores_per_job([{"CPU": 64, "GPU": 8}], 4) == 32
    assert cores_per_job([{"CPU": 64, "GPU": 8}, {"CPU": 10, "GPU": 4}, {"CPU": 96}], 1) == 2
    assert cores_per_job([{"CPU": 2, "GPU": 4}], 1) == 1
    assert cores_per_job([{"CPU": 8}, {}], 0) == 1


def test_a_job_gets_the_gpus_that_train_one_network_together() -> None:
    assert gpus_per_job([{"CPU": 8}], 2) == 0
    assert gpus_per_job([{"CPU": 8, "GPU": 4}, {"CPU": 8}], 1) == 1
    assert gpus_per_job([{"CPU": 8, "GPU": 4}], 4) == 4
    with pytest.raises(InputError, match=r"devices in params\.yaml is 5, but no machine has more than 4 GPUs"):
        gpus_per_job([{"CPU": 8, "GPU": 4}], 5)


def test_what_the_jobs_read_is_made_before_them() -> None:
    stages = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]
    read = {path.split("/")[0] for path in stages["train"]["deps"] if not path.startswith(("data", "weights"))}
    read.remove("autoencoders")  # main runs pretrain too, where a model asks for it
    assert read == {"code-digests", "model-params"}
    assert set(BEFORE) == {"folds", "complete-models"}  # folds needs pack, and all stages need code


def test_jobs_are_started_as_dvc_yaml_says() -> None:
    stages = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]
    for name in ("train", "tta"):
        command = stages[name]["cmd"].replace("${item.model}", "a-model").replace("${item.fold}", "3")
        assert command == " ".join(["python", *Job(name, "a-model", 3).arguments])


def test_what_was_made_from_something_else_is_not_noted(project: Path) -> None:
    (project / "edit").touch()
    with pytest.raises(InputError, match="changed meanwhile"):
        run_jobs(JOBS[:1], 1)
    assert not (project / "dvc.lock").exists()
