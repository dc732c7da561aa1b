"""The atlas's table of locations becomes a list of samples: by gene, by reliability, and without what is no label."""

import gzip
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from pipeline.fetching.atlas_labels import NO_COUNTERPART, OTHER_NAMES, describe, make_list, read_locations, write_list
from pipeline.fetching.atlas_list import read_list

COLUMNS = (
    "Gene", "Gene name", "Reliability", "Main location", "Additional location", "Extracellular location", "Enhanced",
    "Supported", "Approved", "Uncertain", "GO id",
)  # fmt: skip
ROWS = {
    "ENSG01": {"Enhanced": "Nucleoplasm", "Supported": "Cytosol;Vesicles", "Uncertain": "Golgi apparatus"},
    "ENSG02": {"Approved": "Rods & Rings;Cell Junctions"},
    "ENSG03": {"Approved": "Vesicles"},
    "ENSG04": {"Uncertain": "Nucleoli;Nucleoli rim"},
    "ENSG05": {"Enhanced": "Endosomes;Twilight zone"},
}

XML = """<?xml version="1.0" encoding="UTF-8"?>
<proteinAtlas>
  <entry version="18"><name>A</name><identifier id="ENSG01" db="Ensembl" version="88.38"/>
    <antibody id="HPA004109">
      <tissueExpression><data><assayImage><image><imageUrl>http://v18/images/4109/9_A_1_3.jpg</imageUrl></image></assayImage></data></tissueExpression>
      <cellExpression source="HPA" technology="ICC/IF"><subAssay><data><cellLine>U-2 OS</cellLine><assayImage>
        <image><channel color="blue">nucleus</channel><imageUrl>http://v18.proteinatlas.org/images/4109/24_H11_1_blue_red_green.jpg</imageUrl></image>
        <image><imageUrl>http://v18.proteinatlas.org/images/4109/si24_H11_2_blue_red_green_yellow.jpg</imageUrl></image>
      </assayImage></data></subAssay></cellExpression>
    </antibody>
  </entry>
  <entry version="18"><name>B</name><identifier id="ENSG02" db="Ensembl"/>
    <antibody id="HPA67042"><cellExpression technology="ICC/IF"><data><assayImage><image>
      <imageUrl>https://images.proteinatlas.org/67042/1754_F6_13_cr57f3ed192abcf_red_green.jpg</imageUrl>
    </image></assayImage></data></cellExpression></antibody>
  </entry>
</proteinAtlas>
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "subcellular_location.tsv"
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join([gene, *(cells.get(name, "") for name in COLUMNS[1:])]) for gene, cells in ROWS.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.csv"
    rows = [f"{gene}_7_B1_{gene},ENSG0{gene}" for gene in range(1, 7)]
    path.write_text("Id,Gene\n" + "".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("reliability", "expected"),
    [
        ("enhanced", {"ENSG01": "0", "ENSG02": "", "ENSG03": "", "ENSG04": "", "ENSG05": "9"}),
        ("supported", {"ENSG01": "0 25", "ENSG02": "", "ENSG03": "", "ENSG04": "", "ENSG05": "9"}),
        ("approved", {"ENSG01": "0 25", "ENSG02": "22 27", "ENSG03": "", "ENSG04": "", "ENSG05": "9"}),
        ("uncertain", {"ENSG01": "0 7 25", "ENSG02": "22 27", "ENSG03": "", "ENSG04": "2", "ENSG05": "9"}),
    ],
)
def test_locations_of_a_reliability_and_above_become_labels(
    table: Path, reliability: str, expected: dict[str, str]
) -> None:
    assert read_locations(table, reliability)[0] == expected


def test_what_is_no_label_is_counted_and_left_out(table: Path) -> None:
    assert read_locations(table, "approved")[1] == Counter({"Vesicles": 2, "Twilight zone": 1})
    assert read_locations(table, "uncertain")[1]["Nucleoli rim"] == 1


def test_each_of_our_labels_is_a_location_and_no_location_is_both() -> None:
    names = {name.lower() for name in LABELS}
    assert not names & {*NO_COUNTERPART, *OTHER_NAMES}
    assert set(OTHER_NAMES.values()) <= set(LABELS)


def test_every_image_of_a_gene_gets_its_labels(table: Path, images: Path, tmp_path: Path) -> None:
    found = make_list(table, images, "approved")
    assert found.targets == {"1_7_B1_1": "0 25", "2_7_B1_2": "22 27", "5_7_B1_5": "9"}
    assert (found.unlabelled, found.unknown) == (2, 1)
    write_list(found, tmp_path / "list.csv")
    assert {sample.id: sample.target for sample in read_list(tmp_path / "list.csv")} == found.targets
    text = describe(found, tmp_path / "list.csv")
    assert "3 images with labels" in text
    assert "labels without an image: Nuclear membrane, Nucleoli, " in text
    assert "left out: 2 images whose gene has no label of this reliability, 1 whose gene is not in the table" in text
    assert "  Vesicles (2): the competition has endosomes" in text
    assert "  Twilight zone (1): not known to this version" in text
    with pytest.raises(InputError, match=r"list\.csv exists: name another file"):
        write_list(found, tmp_path / "list.csv")


@pytest.mark.parametrize("packed", [False, True])
def test_images_are_found_in_the_atlas_itself(table: Path, tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("proteinatlas.xml.gz" if packed else "proteinatlas.xml")
    path.write_bytes(gzip.compress(XML.encode()) if packed else XML.encode())
    found = make_list(table, path, "approved")
    assert found.targets == {
        "4109_24_H11_1": "0 25",
        "4109_si24_H11_2": "0 25",
        "67042_1754_F6_13_cr57f3ed192abcf": "22 27",
    }
    write_list(found, tmp_path / "list.csv")
    assert len(read_list(tmp_path / "list.csv")) == 3


def test_a_table_is_read_from_its_zip(table: Path, images: Path) -> None:
    with zipfile.ZipFile(table.with_suffix(".tsv.zip"), "w") as archive:
        archive.write(table, table.name)
    assert make_list(table.with_suffix(".tsv.zip"), images, "approved") == make_list(table, images, "approved")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("images.csv", b"Id,Ensembl\n1_7_B1_1,ENSG01\n", r"needs Id and Gene"),
        ("images.csv", b"Id,Gene\n1_7_B1_1,TP53\n", r"none of the images in .* has a gene with a label"),
        ("proteinatlas.xml", XML[: len(XML) // 2].encode(), r"no whole XML file .*: download it again"),
        ("proteinatlas.xml.gz", gzip.compress(XML.encode())[:-40], r"no whole XML file .*: download it again"),
        (
            "proteinatlas.xml.gz",
            gzip.compress(XML.encode())[:20] + bytes(60),
            r"no whole XML file .*: download it again",
        ),
        ("proteinatlas.xml", b"<?xml version='1.0' encoding='none'?><a/>", r"no whole XML file .*: download it again"),
        ("proteinatlas.xml", b"", r"no whole XML file .*: download it again"),
        ("subcellular_location.tsv", b"Gene\tMain location\nENSG01\tCytosol\n", r"needs Gene and Enhanced and"),
    ],
)
def test_files_of_another_kind_are_refused(
    table: Path, images: Path, tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=expected):
        make_list(table, tmp_path / name if name != table.name else images, "approved")


def test_a_zip_of_several_files_or_of_a_damaged_one_is_refused(table: Path, images: Path) -> None:
    path = table.with_suffix(".tsv.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(table, table.name)
        archive.write(images, images.name)
    with pytest.raises(InputError, match=r"zip is a zip of 2 files instead of one table: unpack it"):
        make_list(path, images, "approved")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(table, table.name)
    data = bytearray(path.read_bytes())
    data[40 + len(table.name)] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"zip is a damaged or encrypted zip \(.*\): download it again"):
        make_list(path, images, "approved")


@pytest.mark.parametrize("name", ["none.tsv", "none.xml"])
def test_missing_files_are_named(table: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"none\.\w+ is"):
        make_list(table, tmp_path / name, "approved")
