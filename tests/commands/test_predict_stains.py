"""New images without some stains: the missing channels are 0 as in training, and only if asked for."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.models import checkpoint
from pipeline.models.provenance import Provenance
from tests.fixtures.archives import field, png, write_files
from tests.fixtures.models import TINY
from tests.fixtures.prediction import IDS, SIDE, bold, files

Predict = Callable[..., pd.DataFrame]


def composite(id_: str) -> npt.NDArray[np.uint8]:
    """A sample as RGB: microtubules, protein and nucleus."""
    return field(id_, SIDE)[..., [CHANNELS.index(colour) for colour in ("red", "green", "blue")]]


@pytest.mark.usefixtures("folder")
def test_missing_stains_are_zero_and_only_if_asked_for(run: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    blank = png(np.zeros((SIDE, SIDE), np.uint8))
    write_files(Path("blank"), {**files(IDS), **{f"{id_}_{stain}.png": blank for id_ in IDS for stain in CHANNELS[2:]}})
    expected = run("blank")
    assert "warning" not in capsys.readouterr().err
    write_files(Path("two"), {name: data for name, data in files(IDS).items() if "green" in name or "blue" in name})
    with pytest.raises(InputError, match=r"files are missing: add them, or .* --stains green,blue\n *a_red\.png, "):
        run("two")
    for place in ("two", "new"):
        pd.testing.assert_frame_equal(run(place, "--stains", "blue,green"), expected)
        message = "warning: large, small never saw images without red or yellow in training"
        assert capsys.readouterr().err.count(message) == 1
    assert not run("new").equals(expected)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("stains", [(), ("--stains", "green,blue")])
def test_an_rgb_composite_is_its_three_stains(run: Predict, kind: str, stains: tuple[str, ...]) -> None:
    for id_ in IDS:
        buffer = io.BytesIO()
        Image.fromarray(composite(id_)).save(buffer, kind)
        data, end = buffer.getvalue(), {"PNG": "png", "JPEG": "jpg"}[kind]
        write_files(Path("rgb"), {f"{id_}.{end}": data})
        for position, colour in enumerate(("red", "green", "blue")):
            # A JPEG of a single stain shows it in its own colour, so the composite is also each of its stains.
            stain = png(composite(id_)[..., position]) if kind == "PNG" else data
            write_files(Path("single"), {f"{id_}_{colour}.{end}": stain})
    single = run("single", *(stains or ("--stains", "green,blue,red")))
    found = run("rgb", "--rgb", *stains)
    pd.testing.assert_frame_equal(found, single)
    assert found["id"].tolist() == IDS


@pytest.mark.usefixtures("folder")
def test_models_trained_without_some_stains_are_not_warned_of(run: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    dropping = TINY.model_copy(update={"augment": TINY.augment.model_copy(update={"drop_stains": 0.5})})
    checkpoint.save(Path("other/dropping/fold-0.safetensors"), bold(0, dropping), dropping, Provenance())
    run("new", "--models", "other", "--stains", "green")
    assert "warning" not in capsys.readouterr().err
    shutil.copytree("models/small", "other/small")
    run("new", "--models", "other", "--stains", "green")
    assert "warning: small never saw images without blue or red or yellow in training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["new", "--stains", "blue,red"],
            "--stains blue,red: name green, which is the protein, and any of blue, red, y",
        ),
        (["new", "--stains", "green,pink"], "--stains green,pink: name green"),
        (["new", "--stains", "green, blue"], "--stains green, blue: name green.* separate them by commas only"),
        (["new", "--stains", ""], "--stains : name green"),
        (["new", "--rgb", "--stains", "green,yellow"], r"an RGB composite \(--rgb\) has no yellow stain"),
        (["new", "--rgb", "--stains", "red"], "name green, which is the protein, and any of blue, red; separate"),
        (["new", "--rgb"], "a grayscale image instead of an RGB composite"),
        (["models", "--rgb"], r"models: no images found: an RGB composite is a file ID\.png or ID\.jpg"),
        (["models", "--stains", "green,red"], r"name the files of a sample ID_green\.png, ID_red\.png, or give --rgb"),
    ],
)
def test_bad_input_is_named(run: Predict, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(*arguments)
