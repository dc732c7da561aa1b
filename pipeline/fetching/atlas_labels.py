"""Make a list of samples from the Human Protein Atlas's own table of locations, ``subcellular_location.tsv``.

The table has a row per gene: its locations, and how reliable each is. Which images show the gene's protein is in the
atlas's ``proteinatlas.xml.gz``, or in a table of ids and genes. So every image of a gene gets the gene's locations,
whereas the competition's labels are of single images: these labels are weaker.
"""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, format_target
from pipeline.core.paths import replacing
from pipeline.core.progress import track
from pipeline.sources.tables import read_table

RELIABILITY = ("enhanced", "supported", "approved", "uncertain")
"""The atlas's grades of a location, the best first; the table has a column for each."""

GENE = "Gene"
RIGHT_ROW = "a gene and its locations, as in subcellular_location.tsv of the Human Protein Atlas"

OTHER_NAMES = {"rods and rings": "Rods & rings"}
"""Spellings of some releases. All else is compared by name alone, in capitals or not."""

NO_COUNTERPART = {
    "vesicles": "the competition has endosomes, lysosomes, peroxisomes and lipid droplets, and no label for the rest",
    "nucleus": "nucleoplasm, or any of its parts",
    "nucleoli rim": "of later releases; not the whole nucleolus",
    "mitotic chromosome": "of later releases",
    "kinetochore": "of later releases",
    "centriolar satellite": "of later releases; around the centrosome, and not the centrosome",
    "midbody": "between dividing cells; the competition has the cytokinetic bridge",
    "midbody ring": "between dividing cells; the competition has the cytokinetic bridge",
    "cleavage furrow": "cells in division",
    "basal body": "cilia",
    "primary cilium": "cilia",
    "primary cilium tip": "cilia",
    "primary cilium transition zone": "cilia",
    "acrosome": "sperm",
    "annulus": "sperm",
    "calyx": "sperm",
    "connecting piece": "sperm",
    "end piece": "sperm",
    "equatorial segment": "sperm",
    "flagellar centriole": "sperm",
    "mid piece": "sperm",
    "perinuclear theca": "sperm",
    "principal piece": "sperm",
}
"""Locations of the atlas without a label of the competition, and why; they are left out."""

_IMAGE = re.compile(r"/(\d+)/([A-Za-z0-9]+_[A-Z]+\d+_\d+(?:_[A-Za-z0-9]+)??)(?:_(?:blue|red|green|yellow))+\.jpg$")
_NUMBERS = {name.lower(): number for number, name in enumerate(LABELS)}


@dataclass(frozen=True)
class LabelledImages:
    """Images with labels, and what had to be left out.

    Attributes:
        targets: label ids by the image's id.
        left_out: how many genes have a location that is no label, by its name in the table.
        unlabelled: images whose gene has no label of the reliability that was asked for.
        unknown: images whose gene is not in the table.
    """

    targets: dict[str, str]
    left_out: Counter[str]
    unlabelled: int
    unknown: int


def make_list(table: Path, images: Path, reliability: str) -> LabelledImages:
    """Label images by their gene's locations.

    Args:
        table: subcellular_location.tsv, or a zip with it.
        images: proteinatlas.xml or its .gz, or a table with the columns Id and Gene.
        reliability: one of `RELIABILITY`; locations of lower grades are left out.

    Raises:
        InputError: one of the files is missing or something else.
    """
    genes, left_out = read_locations(table, reliability)
    targets: dict[str, str] = {}
    unlabelled = unknown = 0
    for id_, gene in read_images(images):
        if gene not in genes:
            unknown += 1
        elif not genes[gene]:
            unlabelled += 1
        else:
            targets[id_] = genes[gene]
    if not targets:
        raise InputError(
            f"none of the images in {images} has a gene with a label in {table}: check that both are of one release, "
            "and that genes are Ensembl ids (ENSG...)"
        )
    return LabelledImages(targets, left_out, unlabelled, unknown)


def read_locations(path: Path, reliability: str) -> tuple[dict[str, str], Counter[str]]:
    """Read the locations of each gene.

    Returns:
        The target of each gene, empty if it has no label; and how many genes have a location that is no label.

    Raises:
        InputError: the table is missing or something else, or has a location that is not known.
    """
    grades = RELIABILITY[: RELIABILITY.index(reliability) + 1]
    columns = [GENE, *(grade.capitalize() for grade in grades)]
    table = read_table(_table_bytes(path), path, columns, RIGHT_ROW)
    genes: dict[str, str] = {}
    left_out = Counter[str]()
    unknown = Counter[str]()
    for gene, *cells in table[columns].itertuples(index=False):
        names = {name.strip() for cell in cells for name in cell.split(";")} - {""}
        numbers = set()
        for name in names:
            number = _NUMBERS.get(OTHER_NAMES.get(name.lower(), name).lower())
            if number is not None:
                numbers.add(number)
            elif name.lower() in NO_COUNTERPART:
                left_out[name] += 1
            else:
                unknown[name] += 1
        genes[gene] = format_target(numbers)
    left_out += unknown
    return genes, left_out


def read_images(path: Path) -> Iterator[tuple[str, str]]:
    """List the images of the atlas: their ids, and the Ensembl ids of their genes.

    Raises:
        InputError: the file is missing or something else.
    """
    if path.name.lower().endswith((".xml", ".xml.gz")):
        yield from _images_of_xml(path)
        return
    table = read_table(_table_bytes(path), path, ["Id", GENE], "'10580_1756_B1_1,ENSG00000000001' below 'Id,Gene'")
    yield from zip(table["Id"], table[GENE], strict=True)


def check_new(path: Path) -> None:
    """Check that a list can be written without replacing anything.

    Raises:
        InputError: the path exists.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists: name another file (--out), or move it away")


def write_list(found: LabelledImages, path: Path) -> None:
    """Write the list, ordered by id.

    Raises:
        InputError: the file exists.
    """
    check_new(path)
    rows = sorted(found.targets.items(), key=lambda row: [part.zfill(8) for part in row[0].split("_")])
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("Id", "Target"), *rows])


def describe(found: LabelledImages, path: Path) -> str:
    """What is in the list, and what was left out."""
    counts = Counter(int(label) for target in found.targets.values() for label in target.split())
    lines = [f"{path}: {len(found.targets):,} images with labels"]
    if absent := [name for number, name in enumerate(LABELS) if not counts[number]]:
        lines.append(f"labels without an image: {', '.join(absent)}")
    lines.append(
        f"left out: {found.unlabelled:,} images whose gene has no label of this reliability, {found.unknown:,} whose "
        "gene is not in the table"
    )
    if found.left_out:
        lines.append("locations without a label, left out (genes that have them):")
        lines += [
            f"  {name} ({number:,}): {NO_COUNTERPART.get(name.lower(), 'not known to this version')}"
            for name, number in found.left_out.most_common()
        ]
    return "\n".join(lines)


def _images_of_xml(path: Path) -> Iterator[tuple[str, str]]:
    """Images of immunofluorescence, from an entry per gene; one entry at a time is in memory."""
    try:
        with _open(path) as file:
            events = ElementTree.iterparse(file, events=("start", "end"))
            _, root = next(iter(events))  # an empty file is an error of the parser
            entries = (element for event, element in events if event == "end" and element.tag == "entry")
            for entry in track(entries, "reading the atlas", unit="genes"):
                identifier = entry.find("identifier")
                gene = identifier.get("id", "") if identifier is not None else ""
                for address in entry.iterfind("antibody/cellExpression//imageUrl"):
                    if found := _IMAGE.search((address.text or "").strip()):
                        yield f"{found[1]}_{found[2]}", gene
                root.clear()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: download it from the atlas") from None
    except (ElementTree.ParseError, EOFError, gzip.BadGzipFile, zlib.error, LookupError) as error:
        raise InputError(f"{path} is no whole XML file ({error}): download it again") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _table_bytes(path: Path) -> bytes:
    """The content of a table, which may be the only file of a zip.

    Raises:
        InputError: the file is missing, or a zip that is damaged or has several files.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} is not a file: download it from the atlas, or correct its name") from None
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if len(names) == 1:
                return archive.read(names[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is a damaged or encrypted zip ({error}): download it again") from None
    raise InputError(f"{path} is a zip of {len(names)} files instead of one table: unpack it, and name the table")
