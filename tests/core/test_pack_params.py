"""The section ``pack``: how sources store their images is stated in full, and every wrong key is named."""

from pathlib import Path

import pytest

from pipeline.core import params
from pipeline.core.errors import InputError

COMMITTED = Path("params.yaml").read_text()
SCALING = "{green: full, blue: 4095, red: {percentile: 99.9}, yellow: 65535}"


def load(tmp_path: Path, key: str, value: str) -> params.Pack:
    old = f"  {key}: {{}} "
    assert old in COMMITTED
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace(old, f"  {key}: {{{value}}} ", 1))
    return params.load(path).pack


def test_the_scaling_of_a_16_bit_source_is_stated_for_each_channel(tmp_path: Path) -> None:
    scaling = load(tmp_path, "scaling", f"sample: {SCALING}").scaling["sample"]
    assert (scaling.green, scaling.blue, scaling.yellow) == ("full", 4095, 65535)
    assert scaling.red == params.Percentile(percentile=99.9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sample", "kaggle", r"pack\.scaling: kaggle: not among data\.sources$"),
        (SCALING, "4095", r"pack\.scaling\.sample: .*\(it is 4095\)$"),
        (", yellow: 65535", "", r"pack\.scaling\.sample\.yellow: this key is missing$"),
        ("full", "auto", r"pack\.scaling\.sample\.green: .*'full' \(it is 'auto'\)$"),
        ("4095", "0", r"pack\.scaling\.sample\.blue: .* 1 \(it is 0\)$"),
        ("4095", "4095.5", r"pack\.scaling\.sample\.blue: .*integer.*\(it is 4095\.5\)$"),
        ("65535", "65536", r"pack\.scaling\.sample\.yellow: .* 65535 \(it is 65536\)$"),
        ("99.9", "101", r"pack\.scaling\.sample\.red\.percentile: .* 100 \(it is 101\)$"),
        (
            "percentile",
            "share",
            r"red\.percentile: this key is missing; pack\.scaling\.sample\.red\.share: unknown key",
        ),
    ],
)
def test_a_wrong_scaling_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, "scaling", f"sample: {SCALING}".replace(old, new))


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ("sample: [green, blue, red]", r"pack\.planes: sample: name each of green, blue, red, yellow once"),
        ("sample: [green, blue, red, red]", r"pack\.planes: sample: name each of green"),
        ("sample: [green, blue, red, pink]", r"pack\.planes\.sample\.3: .*\(it is 'pink'\)$"),
        ("kaggle: [green, blue, red, yellow]", r"pack\.planes: kaggle: not among data\.sources$"),
    ],
)
def test_a_wrong_order_of_planes_is_named(tmp_path: Path, planes: str, message: str) -> None:
    assert load(tmp_path, "planes", "sample: [red, blue, green, yellow]").planes["sample"][0] == "red"
    with pytest.raises(InputError, match=message):
        load(tmp_path, "planes", planes)
