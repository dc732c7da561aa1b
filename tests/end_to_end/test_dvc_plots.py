"""`dvc plots diff` lays the pictures of two revisions side by side, without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.fixtures.browser import browse, find_browser

ROOT = Path(__file__).parents[2]
PICTURES = ("learning-curves", "labels", "precision-recall", "folds")


def run(*command: str) -> None:
    parts = [f"{role}_{what}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    identity = {f"GIT_{part}": "test@example.org" for part in parts}
    done = subprocess.run(command, env=os.environ | identity, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def write_pictures(colour: str) -> None:
    Path("plots").mkdir(exist_ok=True)
    for name in PICTURES:
        Image.new("RGB", (60, 40), colour).save(f"plots/{name}.png")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page that compares a commit with the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / ".dvc", ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    YAML(typ="safe").dump({"plots": plots}, Path("dvc.yaml"))
    Path("tables").mkdir()
    Path("tables/labels.csv").write_text("name,f1\nCytosol,0.4\nNucleoli,0.5\n")
    Path("tables/history.csv").write_text("model,fold,epoch,held_out_loss,held_out_macro_f1\na,0,0,0.5,0.1\n")
    Path("tables/pr_curves.csv").write_text("label,name,threshold,recall,precision\n0,Nucleoplasm,0.5,0.4,0.3\n")
    write_pictures("red")
    run("git", "init", "--quiet")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "before")
    write_pictures("blue")
    Path("tables/labels.csv").write_text("name,f1\nCytosol,0.6\nNucleoli,0.5\n")
    run(str(Path(sys.executable).with_name("dvc")), "plots", "diff", "HEAD")
    return tmp_path / "dvc_plots" / "index.html"


def test_each_picture_stands_beside_that_of_the_other_revision(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    for name in PICTURES:
        assert text.count(f"plots_{name}.png") == 2, "the commit's and the working folder's"
    for plot in ("F1 by label", "Held-out loss by epoch", "Held-out macro-F1 by epoch", "Precision against recall"):
        assert plot in text
    if program := find_browser():
        with browse(program, tmp_path / "profile") as shown:
            shown.open(page, width=1280)
            widths = shown.evaluate("[...document.images].map(image => image.naturalWidth)")
            assert widths == [60] * 2 * len(PICTURES)
            assert shown.evaluate("document.body.innerText.split('No network, no interactive chart').length - 1") == 4
            assert not [message for message in shown.messages if "exception" in message]
