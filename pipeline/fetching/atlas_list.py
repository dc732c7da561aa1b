"""The samples to fetch from the Human Protein Atlas: a table of ids and targets, and the addresses of their images."""

import re
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from pipeline.core.errors import InputError, Problem, raise_problems
from pipeline.core.labels import CHANNELS, LABELS, format_target
from pipeline.sources.tables import RIGHT_TARGET, parse_labels, read_table

RELEASES = {
    "v18": "https://v18.proteinatlas.org/images/{antibody}/{image}_{stain}.jpg",
    "current": "https://images.proteinatlas.org/{antibody}/{image}_{stain}.jpg",
}
"""Address of one stain's JPEG in release 18, which the competition's external list is of, and in the current one."""

FIELDS = ("antibody", "image", "stain")
"""What an address is made of: of the id 10580_1756_B1_1, the antibody is 10580 and the image 1756_B1_1."""

_ID = re.compile(r"(\d+)_([A-Za-z0-9]+_[A-Z]+\d+_\d+(?:_[A-Za-z0-9]+)?)")
"""``antibody_plate_well_field``, sometimes with a suffix. Plates have numbers, or si35 and the like."""


class AtlasSample(NamedTuple):
    """A sample of the list."""

    id: str
    target: str
    """Ascending label ids, separated by blanks."""
    antibody: str
    image: str
    """``plate_well_field``."""

    def addresses(self, template: str) -> dict[str, str]:
        """The address of each stain's image, by channel."""
        return {
            channel: template.format(antibody=self.antibody, image=self.image, stain=channel) for channel in CHANNELS
        }


def read_list(path: Path) -> list[AtlasSample]:
    """Read a list with the columns ``Id`` and ``Target``.

    Raises:
        InputError: it is missing or no such table, or rows of it are wrong; all problems are in the message.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} is not a file: name the list of samples, a table with Id and Target") from None
    table = read_table(data, path, ["Id", "Target"], RIGHT_TARGET)
    samples: dict[str, AtlasSample] = {}
    problems = []
    for id_, text in zip(table["Id"], table["Target"], strict=True):
        found = _ID.fullmatch(id_)
        if found is None:
            problems.append(Problem(repr(id_), "ids unlike 10580_1756_B1_1 (antibody_plate_well_field): correct them"))
            continue
        if id_ in samples:
            problems.append(Problem(id_, "ids that occur more than once: keep one row of each"))
            continue
        try:
            samples[id_] = AtlasSample(id_, format_target(parse_labels(text)), *found.groups())
        except InputError:
            problems.append(
                Problem(
                    f"{id_} ({text!r})",
                    f"targets that are not label ids 0..{len(LABELS) - 1}, such as '16 0', nor names, such as "
                    "'Cytosol|Nucleoli', without repeats: correct them",
                )
            )
    raise_problems(path, problems, "nothing was fetched")
    return list(samples.values())


def checked_template(text: str) -> str:
    """The address of one stain's image, from the name of a release or as it is.

    Raises:
        InputError: a part of the address is missing, or it is not an address.
    """
    template = RELEASES.get(text, text)
    try:
        # Each part must be there, or all stains of a sample would be one image.
        parts = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        right = parts == set(FIELDS) and bool(template.format(**dict.fromkeys(FIELDS, "")))
    except ValueError:
        right = False
    if not right or not template.startswith(("http://", "https://")):
        raise InputError(
            f"--url {text} is neither one of {', '.join(RELEASES)} nor an address with "
            f"{', '.join(f'{{{name}}}' for name in FIELDS)}: write it as {RELEASES['current']}"
        )
    return template
