"""Read tables that people wrote: CSV files of spreadsheets and programs, with targets as label ids or names."""

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS, parse_target
from pipeline.core.progress import say

SEPARATORS = (",", ";", "\t", "|")
"""Between the columns of a table."""
RIGHT_TARGET = "'a1,16 0' below 'Id,Target'"
"""A right row of a table of targets, and its header."""
_IDS = {name.lower(): number for number, name in enumerate(LABELS)}
_QUOTED = r"""^(['"])(.*)\1$"""
"""A value in quotes of a kind that is not the table's own."""
_SAVE = "save it as CSV in UTF-8"


def read_table(data: bytes, where: Path, columns: list[str], right: str) -> pd.DataFrame:
    """Read the named columns of a table as text, without the rows that are empty.

    Args:
        data: contents of the file, in UTF-8 or UTF-16.
        where: the file, for messages.
        columns: names of columns, which the file may write in other capitals.
        right: a right row and its header, for messages.

    Raises:
        InputError: it is no table, or has other columns, too long rows, or no rows.
    """
    text = _decoded(data, where)
    separator = _separator(text, columns)
    try:
        own = _checked_columns(text, separator, columns, where, right)
        # No index: rows that end in separators would shift the columns.
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, usecols=own, index_col=False
        ).fillna("")
    except InputError:
        raise
    except (csv.Error, ValueError) as error:
        raise InputError(f"{where} is not a table ({str(error).strip()}): {_SAVE}") from None
    written = table.columns
    lower = [column.strip().lower() for column in written]
    if not set(columns) <= set(written) and len(set(lower)) == len(lower):
        table.columns = pd.Index([{name.lower(): name for name in columns}.get(column, column) for column in lower])
    if not set(columns) <= set(table.columns):
        row = f" (its first row: {separator.join(table.iloc[0])})" if len(table) else ""
        raise InputError(
            f"{where} has the columns {', '.join(written)}{row}, but needs {' and '.join(columns)}: "
            f"write rows such as {right}"
        )
    if repeated := [column for column in columns if f"{column}.1" in table.columns]:  # pandas numbers them
        raise InputError(f"{where} has more than one column {' and '.join(repeated)}: keep one")
    stripped = table.apply(lambda column: column.str.strip().str.replace(_QUOTED, r"\2", regex=True))
    rows: pd.DataFrame = stripped.loc[(stripped != "").any(axis=1), columns]  # spreadsheets write empty rows
    if rows.empty:
        raise InputError(f"{where} has no rows: download it again")
    if separator != SEPARATORS[0]:
        say(f"{where}: read with {separator!r} between the columns")
    return rows


def _checked_columns(text: str, separator: str, columns: list[str], where: Path, right: str) -> list[int] | None:
    """The numbers of the columns, if no row has more values than the header, as with labels separated like columns.

    Returns:
        They; None if the header does not have the named columns.

    Raises:
        InputError: a row has more values; the message names the first.
        csv.Error: the text is no table.
    """
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    header = next(rows, [])
    if not {name.strip().lower() for name in header} >= {column.lower() for column in columns}:
        return None
    for row in rows:
        if any(value.strip() for value in row[len(header) :]):
            raise InputError(
                f"{where} has more values than its header in line {rows.line_num} ({separator.join(row)}): write rows "
                f"such as {right}; several labels are separated by blanks or |, or are in quotes"
            )
    return list(range(len(header)))


def _decoded(data: bytes, where: Path) -> str:
    """The text of a table, from its header on."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not a table ({error}): {_SAVE}") from None
    first, end, rest = text.partition("\n")
    # A line for Excel, which says what is between the columns.
    return rest if end and re.fullmatch("sep=.", first, re.IGNORECASE) else text


def _separator(text: str, columns: list[str]) -> str:
    """The first of `SEPARATORS` that divides the header into the named columns, or that it contains."""
    header = text.partition("\n")[0]
    for mark in SEPARATORS:
        names = {name.strip().lower() for row in csv.reader([header], delimiter=mark) for name in row}
        if names >= {column.lower() for column in columns}:
            return mark
    return next((mark for mark in SEPARATORS if mark in header), SEPARATORS[0])


def parse_labels(text: str) -> tuple[int, ...]:
    """Parse label ids separated by blanks, | or ; or names separated by | or ; in capitals or not.

    Brackets and quotes around them are those of a list, as pandas writes it: "[16, 0]".

    Raises:
        InputError: there is anything else, or nothing, or a label is repeated.
    """
    words = [word.strip(" '\"") for word in re.split(r"[|;,]", text.strip("[](){} "))]
    if all(word.lower() in _IDS for word in words):
        return parse_target(" ".join(str(_IDS[word.lower()]) for word in words))
    return parse_target(" ".join(words))
