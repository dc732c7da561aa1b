"""The page in a real browser: an upload, an example, errors; no request leaves the machine."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.app.served_run import ServedRun
from pipeline.app.server import PageServer
from pipeline.core.labels import CHANNELS, LABELS
from tests.fixtures.archives import write_files
from tests.fixtures.browser import Page, browse, find_browser
from tests.fixtures.prediction import files
from tests.fixtures.served import running

LIMIT = 1 << 20
SHOWN = "document.querySelector('#found-title') && !document.querySelector('#result').hasAttribute('aria-busy')"
TITLE = "document.querySelector('#found-title').innerText"
PROBLEM = "document.querySelector('.problem')"


@pytest.fixture(scope="module")
def address(served: ServedRun) -> Iterator[str]:
    with running(PageServer(served, limit=LIMIT, names=frozenset())) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome here: install one, or name it in CHROME")
    with browse(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, address: str) -> Iterator[Page]:
    """The page just opened; at the end, nothing was asked of anybody else and nothing was complained about."""
    browser.messages.clear()
    browser.requests.clear()
    browser.visit(address, width=1280)
    yield browser
    assert browser.requests
    assert [asked for asked in browser.requests if not asked.startswith((address, "data:"))] == []
    assert browser.messages == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path, files(["a", "b_1"]))
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name, data in files(["a", "b_1"]).items():
            archive.writestr(name, data)
    return tmp_path


def test_four_images_give_their_channels_probabilities_maps_and_similar_images(page: Page, folder: Path) -> None:
    page.choose_files("#files", [folder / f"a_{channel}.png" for channel in CHANNELS])
    page.wait_for(SHOWN)
    assert page.evaluate(TITLE) == "a"
    loaded = (
        "Promise.all([...document.querySelectorAll('#result img')].map(image => image.decode().then(() => image.alt)))"
    )
    alts = page.evaluate(loaded)
    assert alts[0].startswith("Colour composite")
    assert [alt for alt in alts if alt.startswith("The ")] == [
        f"The {channel} channel: {what}"
        for channel, what in zip(
            CHANNELS, ("protein of interest", "nucleus", "microtubules", "endoplasmic reticulum"), strict=True
        )
    ]
    assert sum(alt.startswith("Training image ") for alt in alts) == 5
    assert sum(alt.startswith("Attention map for ") for alt in alts) >= 5
    rows = page.evaluate("[...document.querySelectorAll('#result tbody th')].map(cell => cell.firstChild.data.trim())")
    assert sorted(rows) == sorted(LABELS)
    assert page.evaluate("document.activeElement.id") == "result"


def test_a_picture_is_enlarged_by_a_click_and_by_the_keyboard(page: Page, folder: Path) -> None:
    page.choose_files("#files", [folder / f"a_{channel}.png" for channel in CHANNELS])
    page.wait_for(SHOWN)
    width = "document.querySelector('.zoom').offsetWidth"
    small = page.evaluate(width)
    page.evaluate("document.querySelector('.zoom').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert page.evaluate(width) > 2 * small
    page.evaluate("document.querySelector('.zoom').click()")
    assert page.evaluate(width) == small


def test_files_of_any_name_are_chosen_stain_by_stain(page: Page, folder: Path) -> None:
    page.evaluate("document.querySelector('details').open = true")
    for channel in ("green", "blue"):
        (folder / f"a_{channel}.png").rename(folder / f"{channel} picture.png")
        page.choose_files(f"#stain-{channel}", [folder / f"{channel} picture.png"])
    page.evaluate("document.querySelector('form button').click()")
    page.wait_for(SHOWN)
    assert "There is no image of the microtubules (red)" in page.evaluate(
        "document.querySelector('.cautions').innerText"
    )
    assert page.evaluate("document.querySelectorAll('.absent').length") == 2


def test_a_field_of_a_zip_is_chosen(page: Page, folder: Path) -> None:
    page.choose_files("#files", [folder / "both.zip"])
    page.wait_for(SHOWN)
    assert page.evaluate(TITLE) == "a"
    page.evaluate(
        "(select => { select.value = 'b_1'; select.dispatchEvent(new Event('change', { bubbles: true })); })"
        "(document.querySelector('#sample'))"
    )
    page.wait_for(f"{TITLE} === 'b_1'")


def test_dropped_files_are_sent(page: Page, folder: Path) -> None:
    page.evaluate(
        "window.input = document.body.appendChild(Object.assign(document.createElement('input'), "
        "{ type: 'file', multiple: true, id: 'outside' })) && true"
    )
    page.choose_files("#outside", [folder / f"a_{channel}.png" for channel in CHANNELS])
    page.evaluate(
        "(() => { const data = new DataTransfer(); for (const file of document.querySelector('#outside').files) "
        "data.items.add(file); document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, "
        "cancelable: true })); })()"
    )
    page.wait_for(SHOWN)
    assert page.evaluate(TITLE) == "a"


def test_an_example_is_shown_by_a_click(page: Page, served: ServedRun) -> None:
    assert served.packed is not None
    page.evaluate("document.querySelectorAll('[data-example]')[1].click()")
    page.wait_for(SHOWN)
    assert page.evaluate(TITLE) == served.packed.examples[1]
    assert page.evaluate("location.pathname") == "/"


def test_a_file_that_is_no_image_ends_with_a_message(page: Page, folder: Path) -> None:
    (folder / "a_red.png").write_text("Dear reader,")
    page.choose_files("#files", [folder / f"a_{channel}.png" for channel in CHANNELS])
    page.wait_for(PROBLEM)
    assert "a_red.png: neither a PNG, a TIFF nor a JPEG" in page.evaluate(f"{PROBLEM}.innerText")
    assert page.evaluate(f"{PROBLEM}.getAttribute('role')") == "alert"
    page.messages.clear()  # the status of the answer, which the browser lists


def test_files_above_the_limit_are_not_sent(page: Page, folder: Path) -> None:
    (folder / "large_green.png").write_bytes(bytes(LIMIT + 1))
    before = len(page.requests)
    page.choose_files("#files", [folder / "large_green.png"])
    page.wait_for(PROBLEM)
    assert "more than the limit of 1 MB" in page.evaluate(f"{PROBLEM}.innerText")
    assert page.requests[before:] == []


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_and_a_result_are_as_wide_as_the_window(browser: Page, address: str, width: int) -> None:
    browser.visit(address, width=width)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert browser.evaluate(fits)
    browser.evaluate("document.querySelector('[data-example]').click()")
    browser.wait_for(SHOWN)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.evaluate(fits)


def test_every_field_has_a_label_and_every_text_contrast(page: Page) -> None:
    assert page.evaluate("[...document.querySelectorAll('input, select')].every(field => field.labels.length === 1)")
    page.evaluate("document.querySelector('[data-example]').click()")
    page.wait_for(SHOWN)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    lowest = page.evaluate(
        """(() => {
        const parts = colour => colour.match(/[\\d.]+/g).map(Number);
        const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
        const paper = node => {
            for (; node; node = node.parentElement) {
                const colour = getComputedStyle(node).backgroundColor;
                if ((parts(colour)[3] ?? 1) === 1) return colour;
            }
            return "rgb(255, 255, 255)";
        };
        const texts = [...document.querySelectorAll("body *")].filter(node =>
            [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()) && node.offsetWidth);
        return Math.min(...texts.map(node => {
            const both = [light(getComputedStyle(node).color), light(paper(node))].sort((a, b) => b - a);
            return (both[0] + 0.05) / (both[1] + 0.05);
        }));
        })()"""
    )
    assert lowest >= 4.5  # WCAG 2.2, level AA
