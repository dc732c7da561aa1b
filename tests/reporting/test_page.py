"""The report: one file that a browser without a network shows whole."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import paths
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS, LABELS
from pipeline.core.params import load
from pipeline.reporting import pictures
from pipeline.reporting.finished_run import FinishedRun, read_finished_run
from pipeline.reporting.page import SECTIONS
from pipeline.stages import report
from tests.fixtures.browser import Page, browse, find_browser
from tests.fixtures.runs import write_run

COMMITTED = Path("params.yaml").resolve()
LIMIT = 15_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report."""
    root = tmp_path_factory.mktemp("run")
    shutil.copy(COMMITTED, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_run()
        report.main()
    return root


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedRun:
    monkeypatch.chdir(folder)
    return read_finished_run(load())


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome here: install one, or name it in CHROME")
    with browse(program, tmp_path_factory.mktemp("profile")) as page:
        page.open(folder / paths.REPORT, width=1280)
        yield page


def test_the_same_run_gives_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = paths.REPORT.read_bytes()
    report.main()
    assert paths.REPORT.read_bytes() == before
    assert len(before) < LIMIT


def test_nothing_is_loaded_from_elsewhere(folder: Path) -> None:
    text = (folder / paths.REPORT).read_text()
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"'`]?([^\"'\s)>]+)", text)
    assert addresses
    assert {address[:1] for address in addresses if not address.startswith("data:")} == {"#"}
    assert "http" not in re.sub(r"data:[^\"]*", "", re.sub(r"(?s)<pre>.*?</pre>", "", text))


def test_no_two_elements_share_an_id(folder: Path) -> None:
    found: list[str] = []

    class Ids(HTMLParser):
        def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.extend(value for name, value in attributes if name == "id" and value)

    Ids().feed((folder / paths.REPORT).read_text())
    assert len(found) == len(set(found)) > len(SECTIONS)


def test_a_browser_shows_every_section_without_complaint(page: Page, run: FinishedRun) -> None:
    sections = page.evaluate("[...document.querySelectorAll('section')].map(part => part.id)")
    assert sections == [section(run).id for section in SECTIONS]
    assert page.evaluate("[...document.querySelectorAll('nav a')].every(link => document.querySelector(link.hash))")
    assert page.evaluate("[...document.querySelectorAll('main figcaption')].every(it => it.innerText.length > 20)")
    assert page.evaluate(
        "Promise.all([...document.querySelectorAll('main img')].map(image => (image.loading = 'eager', "
        "image.decode())))"
        ".then(images => images.length)"
    ) > len(LABELS)
    assert page.messages == []


def test_a_click_on_a_head_sorts_numbers_as_numbers_and_words_as_words(page: Page, run: FinishedRun) -> None:
    def column(number: int) -> list[str]:
        cells: list[str] = page.evaluate(
            f"[...document.querySelectorAll('#labels tbody tr')].map(row => row.cells[{number}].innerText.trim())"
        )
        return cells

    def click(number: int) -> None:
        page.evaluate(f"document.querySelectorAll('#labels th button')[{number}].click()")

    assert column(0) == list(LABELS)
    click(1)
    positives = [int(count) for count in column(1)]
    assert positives == sorted(run.truth.sum(axis=0).tolist(), reverse=True)
    click(1)
    assert [int(count) for count in column(1)] == positives[::-1]
    click(8)
    ranked = run.tables["labels"]["average_precision"].dropna()
    shown = column(8)
    assert shown == [f"{value:.3f}" for value in sorted(ranked, reverse=True)] + ["n/a"] * (len(LABELS) - len(ranked))
    click(8)
    assert column(8) == shown[: len(ranked)][::-1] + shown[len(ranked) :], "what has no value stays last"
    click(0)
    assert column(0) == sorted(LABELS, key=str.lower)
    assert page.messages == []


def test_a_click_on_a_sample_opens_its_four_channels_at_packed_size(page: Page, run: FinishedRun) -> None:
    page.evaluate("document.querySelector('#errors [data-sample]').click()")
    sizes = page.evaluate(
        "Promise.all([...document.querySelectorAll('dialog[open] img')].map(image => image.decode().then("
        "() => [image.alt, image.naturalWidth, image.naturalHeight])))"
    )
    side = run.images["sample"].shape[1]
    assert sizes == [[f"The {channel} channel", side, side] for channel in CHANNELS]
    first = run.tables["examples"].query("kind == 'error'")["id"].iloc[0]
    assert page.evaluate("document.getElementById('viewer-title').innerText") == first
    page.evaluate("document.querySelector('dialog button').click()")
    assert page.evaluate("document.querySelector('dialog[open]')") is None
    assert page.messages == []


def test_the_map_shows_the_samples_of_a_label_and_the_one_pointed_at(page: Page, run: FinishedRun) -> None:
    dots = "[...document.querySelectorAll('#map circle')]"
    assert page.evaluate(f"{dots}.length") == len(run.folds)
    assert (
        page.evaluate(f"{dots}.filter(dot => dot.classList.contains('solid')).length") == run.reference.held_out.sum()
    )
    counts = run.truth.sum(axis=0)
    chosen = f"{dots}.filter(dot => dot.classList.contains('chosen')).map(dot => dot.dataset.labels)"
    first = page.evaluate("document.querySelector('#map select').value")
    assert int(first) == counts.argmax()
    assert len(page.evaluate(chosen)) == counts.max()
    page.evaluate(
        "(select => { select.value = '3'; select.dispatchEvent(new Event('change')); })"
        "(document.querySelector('#map select'))"
    )
    assert [labels.split().count("3") for labels in page.evaluate(chosen)] == [1] * counts[3]
    page.evaluate(f"{dots}[7].dispatchEvent(new Event('pointerover'))")
    assert page.evaluate("document.querySelector('.seen img').decode().then(() => true)")
    assert page.evaluate("document.querySelector('.seen p').innerText").startswith(f"{run.folds['id'][7]}: ")
    assert page.messages == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_as_wide_as_a_telephone_and_as_dark_as_asked(page: Page, folder: Path, dark: bool) -> None:
    page.open(folder / paths.REPORT, width=400, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.querySelector('{what}')).{which}")
        for what, which in (("body", "backgroundColor"), ("svg text", "fill"))
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (brightness[0] < brightness[1]) == dark
    assert page.messages == []


def test_channels_shrink_to_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [np.random.default_rng(row).integers(0, 256, (64, 64, 4), dtype=np.uint8) for row in range(30)]
    assert pictures.choose_quality(images) == pictures.QUALITIES[0]
    monkeypatch.setattr(pictures, "BUDGET", 30 * 4 * 2000)
    quality = pictures.choose_quality(images)
    assert pictures.QUALITIES[-1] < quality < pictures.QUALITIES[0]
    assert (
        sum(len(data) for image in images for data in pictures.encode_channels(image, quality)) < 1.05 * pictures.BUDGET
    )


def test_what_is_missing_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(copy)
    (paths.TABLES / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"tables/labels\.csv is missing or damaged .*run the score stage again"):
        report.main()
    examples = pd.read_csv(paths.TABLES / "examples.csv")
    examples.assign(label=(examples["label"] + 1) % 6).to_csv(paths.TABLES / "examples.csv", index=False)
    shutil.copy(folder / paths.TABLES / "labels.csv", paths.TABLES)
    with pytest.raises(InputError, match=r"maps/.*\.npz has no map of sample-\d+ for .*run the explain stage"):
        report.main()
    paths.METRICS.write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json is missing or damaged .*run dvc repro"):
        report.main()
