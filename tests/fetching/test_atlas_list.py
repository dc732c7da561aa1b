"""The list of samples is checked before anything is fetched, and each id leads to four addresses."""

from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.fetching.atlas_list import RELEASES, checked_template, read_list

REAL = Path("../shared/hpa/labels/HPAv18RBGY_wodpl.csv")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(text)
    return path


def test_ids_lead_to_the_addresses_of_a_release(tmp_path: Path) -> None:
    one, two, three = read_list(
        written(
            tmp_path,
            "Id,Target\n10580_1610_C1_1,13 25 0\n11651_1732_F3_13_cr580610dc203b9,Nucleoli|Cytosol\n"
            "63683_si35_H1_2,7\n",
        )
    )
    assert one.addresses(RELEASES["v18"])["yellow"] == "https://v18.proteinatlas.org/images/10580/1610_C1_1_yellow.jpg"
    assert two.addresses(RELEASES["current"]) == {
        stain: f"https://images.proteinatlas.org/11651/1732_F3_13_cr580610dc203b9_{stain}.jpg"
        for stain in ("green", "blue", "red", "yellow")
    }
    assert [(sample.antibody, sample.target) for sample in (one, two, three)] == [
        ("10580", "0 13 25"),
        ("11651", "2 25"),
        ("63683", "7"),
    ]


def test_all_wrong_rows_are_reported_at_once(tmp_path: Path) -> None:
    text = "Id,Target\n1_2_A1_1,0\n1_2_A1_1,0\n1_2_A1_2,28\nHPA1_2_A1_3,0\n../1_2_A1_3,0\n1_2_A1_4,\n"
    with pytest.raises(InputError, match=r"5 problems; nothing was fetched") as error:
        read_list(written(tmp_path, text))
    for expected in ("more than once", "1_2_A1_2 ('28')", "'HPA1_2_A1_3', '../1_2_A1_3'", "1_2_A1_4 ('')"):
        assert expected in str(error.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv is not a file: name the list of samples"):
        read_list(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "text",
    [
        "v19",
        "https://a.b/{antibody}/{image}.jpg",
        "ftp://a.b/{antibody}{image}{stain}",
        "http://{}{0}{x}",
        "http://{",
        "http://a/{antibody}/{image}_{stain}{stain.x}",
        "http://a/{antibody}/{image}_{stain}{stain[x]}",
        "http://a/{{antibody}}/{image}_{stain}",
    ],
)
def test_an_address_without_all_parts_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--url .* is neither one of v18, current nor an address with \{antibody\}"):
        checked_template(text)
    assert checked_template("v18") == RELEASES["v18"]
    assert checked_template("http://a/{antibody}/{image}_{stain}.jpg") == "http://a/{antibody}/{image}_{stain}.jpg"


@pytest.mark.skipif(not REAL.exists(), reason="the real list is not here")
def test_every_row_of_the_real_list_is_read() -> None:
    samples = read_list(REAL)
    assert len(samples) == 74_606
    assert len({sample.antibody for sample in samples}) == 12_815
