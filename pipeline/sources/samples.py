"""List the samples of a source: read and check its train.csv, sample_submission.csv and groups.csv."""

import re

import pandas as pd

from pipeline.core.errors import InputError, Problem
from pipeline.core.labels import CHANNELS, LABELS, format_target
from pipeline.core.progress import say
from pipeline.sources.archive import UNREAD, Archive, plain
from pipeline.sources.file_names import sample_file, stems
from pipeline.sources.tables import RIGHT_TARGET, parse_labels, read_table

TRAIN, TEST, GROUPS = "train.csv", "sample_submission.csv", "groups.csv"

_KNOWN = {TRAIN, TEST, GROUPS, "test_truth.csv", "readme.md", "dvc.yaml", "dvc.lock", ".gitignore"}
NAMED = 3
"""Number of files that a message names."""
RIGHT = {
    TRAIN: RIGHT_TARGET,
    TEST: "'b1,0' below 'Id,Predicted'",
    GROUPS: "'a1,HPA000001' below 'id,antibody'",
}
"""A right row of each table, and its header."""
# Ids become parts of file names, so special characters are not allowed.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ATLAS_ID = r"^(\d+)_\d+_[A-Z]+\d+_\d+(?:_[A-Za-z0-9]+)?$"
"""``antibody_plate_well_field``, sometimes with a suffix: 10580_1610_C1_1, 11651_1732_F3_13_cr580610dc203b9."""


def list_samples(archive: Archive, *, one_file: bool = False) -> tuple[pd.DataFrame, list[Problem]]:
    """Read a source's tables.

    Args:
        archive: the source's files.
        one_file: whether a sample is one file, and not one for each channel.

    Returns:
        A frame of text with ``id`` (as the table writes it), ``split`` ("train" or "test"), ``target`` (ascending
        label ids; empty for test samples), ``files`` (see `file_names.stems`) and ``group``: first the training samples
        in the order of train.csv, then the test samples in the order of sample_submission.csv, if it exists. The group
        is the antibody from groups.csv or, without that file, from ids of the form ``antibody_plate_well_field``; it is
        empty if the antibody is unknown.
        Also returns all problems of the tables; samples with invalid ids are not in the frame.

    Raises:
        InputError: there is no train.csv, or a table cannot be parsed.
    """
    train, test = (
        table.assign(files=stems(archive, table["Id"], one_file=one_file))
        for table in (
            _table(archive, TRAIN, ["Id", "Target"]),
            _table(archive, TEST, ["Id"]) if _find(archive, TEST) else pd.DataFrame({"Id": []}, dtype=str),
        )
    )
    train, problems = _checked_ids(train, TRAIN)
    test, test_problems = _checked_ids(test, TEST)
    targets, target_problems = _targets(train)
    in_both = test["files"].isin(train["files"])
    samples = pd.concat(
        [
            pd.DataFrame({"id": train["Id"], "split": "train", "target": targets, "files": train["files"]}),
            pd.DataFrame({"id": test["Id"], "split": "test", "target": "", "files": test["files"]})[~in_both],
        ],
        ignore_index=True,
    )
    samples["group"], group_problems = _groups(archive, samples, one_file=one_file)
    unlike = samples.loc[samples["id"] != samples["files"], ["id", "files"]].to_numpy().tolist()
    if unlike:
        say(
            f"{archive.folder}: {len(unlike):,} ids are written in another way than the names of their files, such as "
            f"{unlike[0][0]} ({unlike[0][1]}): they are taken for the same"
        )
    both_problems = [
        Problem(id_, f"ids in both {TRAIN} and {TEST}: remove them from one") for id_ in test.loc[in_both, "Id"]
    ]
    return samples, problems + target_problems + test_problems + both_problems + group_problems


def unlisted(archive: Archive, samples: pd.DataFrame, *, one_file: bool = False) -> list[str]:
    """List the files that belong to no sample: stray files, and images that are in no table."""
    listed = {f"{stem}_{channel}" for stem in samples["files"] for channel in CHANNELS}
    listed |= {sample_file(archive, stem) for stem in samples["files"]} if one_file else set()
    return [
        member.where
        for name, member in archive.members.items()
        if name.lower() not in _KNOWN and name not in listed and plain(name).partition(".")[0] not in listed
    ]


def _table(archive: Archive, name: str, columns: list[str]) -> pd.DataFrame:
    """Read the named columns of a table as text, without the rows that are empty."""
    found = _find(archive, name)
    if found is None:
        raise InputError(
            f"{archive.folder}: there is no {name} among {len(archive.members)} files{_resembling(archive, name)}: "
            "place Kaggle's competition.zip, or all of its contents, in this folder"
        )
    if found in archive.repeated:
        raise InputError(f"{archive.folder}: {' and '.join(archive.repeated[found])} both exist: keep only one")
    member = archive.members[found]
    return read_table(member.read(), archive.folder / member.where, columns, RIGHT[name])


def _find(archive: Archive, name: str) -> str | None:
    """Name of a table among the files; without one, of the only file whose name differs in capitals alone."""
    if name in archive.members:
        return name
    same = [member for member in archive.members if member.lower() == name]
    return same[0] if len(same) == 1 else None


def _resembling(archive: Archive, name: str) -> str:
    """What else there is that may be or contain the table, as part of a message."""
    start = name.removesuffix(".csv")
    alike = (member for member in archive.members if member.lower().startswith(start) and "csv" in member)
    similar = sorted(member for member in alike if not member.lower().endswith(UNREAD))
    found = [f"rename {', '.join(map(repr, similar[:NAMED]))} if that is it"] if similar else []
    found += [archive.advice] if archive.advice else []
    return f" ({'; '.join(found)})" if found else ""


def _checked_ids(table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[Problem]]:
    """Drop rows whose id is invalid or a repetition."""
    valid = table["Id"].map(lambda id_: _ID.fullmatch(id_) is not None).astype(bool)
    repeated = table["files"].duplicated() & valid
    problems = [
        Problem(repr(id_), f"ids in {name} with characters other than letters, digits and _ . -: correct them")
        for id_ in table.loc[~valid, "Id"]
    ]
    problems += [
        Problem(id_, f"ids that occur more than once in {name}: keep one row of each")
        for id_ in table.loc[repeated, "Id"].drop_duplicates()
    ]
    return table[valid & ~repeated], problems


def _targets(train: pd.DataFrame) -> tuple[pd.Series, list[Problem]]:
    """Each target in canonical form, or empty if it is invalid."""
    what = (
        f"targets that are not label ids 0..{len(LABELS) - 1}, such as '16 0', nor names, such as 'Cytosol|Nucleoli', "
        f"without repeats: correct {TRAIN}"
    )
    targets, problems = [], []
    for id_, text in zip(train["Id"], train["Target"], strict=True):
        try:
            targets.append(format_target(parse_labels(text)))
        except InputError:
            targets.append("")
            problems.append(Problem(f"{id_} ({text!r})", what))
    return pd.Series(targets, index=train.index, dtype=str), problems


def _groups(archive: Archive, samples: pd.DataFrame, *, one_file: bool) -> tuple[pd.Series, list[Problem]]:
    """The antibody of each sample, empty if it is unknown."""
    if not _find(archive, GROUPS):
        return samples["files"].str.extract(_ATLAS_ID, expand=False).fillna(""), []
    table = _table(archive, GROUPS, ["id", "antibody"])
    table["files"] = stems(archive, table["id"], one_file=one_file)
    repeated = table["files"].duplicated()
    groups = samples["files"].map(table[~repeated].set_index("files")["antibody"]).fillna("")
    # Only training samples are assigned to folds, so only they need a group.
    lacking = samples.loc[(samples["split"] == "train") & (groups == ""), "id"]
    problems = [
        Problem(id_, f"ids that occur more than once in {GROUPS}: keep one row of each")
        for id_ in table["id"][repeated]
    ]
    problems += [
        Problem(
            id_,
            f"training ids without an antibody in {GROUPS}: add them, with an antibody of its own for each unknown one",
        )
        for id_ in lacking
    ]
    return groups, problems
