"""The report: one file that a browser without a network shows whole, whose captions follow from the run."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import paths
from pipeline.errors import InputError
from pipeline.labels import CHANNELS, LABELS, parse_target
from pipeline.params import load
from pipeline.report import pictures
from pipeline.report.blocks import Cards
from pipeline.report.render import SECTIONS
from pipeline.report.run import Run, read_run
from pipeline.report.sections.decisions import blend_caption, calibration_caption, choice_caption, confusions_caption
from pipeline.report.sections.folds import duplicates_caption, folds_section
from pipeline.report.sections.score import verdict
from pipeline.report.sections.training import training_caption
from pipeline.stages import report
from tests.browser import Page, browse, find_browser
from tests.runs import write_run

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
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return read_run(load())


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


def test_a_browser_shows_every_section_without_complaint(page: Page, run: Run) -> None:
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


def test_a_click_on_a_head_sorts_numbers_as_numbers_and_words_as_words(page: Page, run: Run) -> None:
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


def test_a_click_on_a_sample_opens_its_four_channels_at_packed_size(page: Page, run: Run) -> None:
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


SCORES = {
    "macro_f1": 0.4,
    "macro_f1_low": 0.35,
    "macro_f1_high": 0.45,
    "macro_f1_present": 0.5,
    "expected_test_low": 0.33,
    "expected_test_high": 0.48,
    "labels_present": 20,
    "samples": 100,
    "groups": 30,
    "confidence": 0.95,
    "baselines": {"majority": 0.1, "prior": 0.2},
}


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (0.42, "The test set's 0.420 lies in 0.330 to 0.480, the range expected of a test set of this size"),
        (0.3, "0.300 lies below 0.330 to 0.480, the range expected of a test set of this size: it is harder"),
        (0.6, "0.600 lies above 0.330 to 0.480, the range expected of a test set of this size: it is easier"),
    ],
)
def test_the_verdict_says_whether_the_test_score_was_foretold(test: float, expected: str) -> None:
    scores = SCORES | {"test": {"macro_f1": test}}
    text = verdict(scores, ("kaggle",))
    assert expected in text
    assert "over the 20 that occur it is 0.500" in text
    assert "simulated" not in text


def test_the_verdict_admits_a_score_that_shows_nothing_and_that_samples_are_simulated() -> None:
    text = verdict(SCORES | {"baselines": {"prior": 0.36}}, ("sample",))
    assert "does not lie above 0.360, which no image is needed for: nothing is shown to be learned" in text
    assert "The source “sample” is simulated" in text
    assert "The interval lies above 0.200" in verdict(SCORES, ("sample",))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.5, 0.4, 0.3], "still fell at the end"),
        ([0.5, 0.3, 0.303], "levelled off after epoch 2"),
        ([0.5, 0.3, 0.45], "was lowest after epoch 2 and then rose by 50%: it overfits"),
    ],
)
def test_the_course_of_training_is_read_off_the_curve(run: Run, losses: list[float], expected: str) -> None:
    history = run.tables["history"].copy()
    history["held_out_loss"] = history["epoch"].map(dict(enumerate(losses)))
    assert expected in training_caption(history)


def test_captions_follow_from_the_tables(run: Run) -> None:
    bins = {str(name): table for name, table in run.tables["calibration"].groupby("probabilities", sort=False)}
    # .1 too high for 90 and .3 too high for 10 of 100 pairs.
    assert "Before: 0.120 off on average (expected calibration error), mostly too high" in calibration_caption(bins)
    pairs = run.tables["confusions"].sort_values("count", ascending=False)
    assert "Nucleoli is missed where Nucleoplasm is wrongly given, on 7 samples" in confusions_caption(pairs)
    assert confusions_caption(pairs[:0]) == "No label is missed where another is wrongly given."
    blended = run.tables["blend"].assign(weight=[1.0] + [0.0] * (len(run.params.models) - 1))
    score = run.metrics["macro_f1"]
    first, last = blended["model"]
    assert blend_caption(run, blended) == (
        f"The blend reads {score:.3f}, {abs(score - 0.2):.3f} {'above' if score >= 0.2 else 'below'} {first} alone. "
        f"{last} added nothing and got no weight."
    )
    assert "nothing is blended" in blend_caption(run, blended[:1])


def test_a_setting_that_reads_higher_than_the_one_used_is_named(run: Run) -> None:
    used, best = (run.tables["policies"][run.tables["policies"]["chosen"] == chosen] for chosen in (True, False))
    assert choice_caption(run, used, "policy").startswith("The one used reads highest. Judged on folds")
    caption = choice_caption(run, pd.concat([best, used]), "policy")
    assert caption.startswith("“counts” reads 0.003 above the one used, less than half the interval of the score")
    best = best.assign(macro_f1=0.9)
    assert ", more than half" in choice_caption(run, pd.concat([best, used]), "policy")


def test_duplicates_are_shown_side_by_side_with_what_they_say(run: Run) -> None:
    shown = folds_section(run).blocks[1]
    assert isinstance(shown, Cards)
    assert [(card.sample.id, card.title) for card in shown.cards] == [
        ("sample-000", "exact"),
        ("sample-001", "exact"),
        ("sample-003", "21 bits apart"),
        ("sample-090", "21 bits apart"),
    ]
    assert shown.cards[0].lines == [", ".join(LABELS[label] for label in parse_target(run.folds["target"].iloc[0]))]
    assert shown.cards[3].lines == ["test sample"]
    assert shown.cards[3].sample.row == 90
    assert "2 pairs of samples of the same field of view" in shown.caption
    assert "in 1 of them one is a test sample. In 1 the labels contradict each other" in shown.caption
    assert "No two samples" in duplicates_caption(run.duplicates[:0])


def test_a_leak_is_told(run: Run) -> None:
    def caption(run: Run) -> str:
        return folds_section(run).blocks[0].caption

    assert "No group is in two folds" in caption(run)
    leaking = dataclasses.replace(
        run, audit=json.loads(json.dumps(run.audit)) | {"held_out_share_with_group_in_training": 0.25}
    )
    assert "25.0% of the held-out samples have their group in training" in caption(leaking)
