"""What is wrong with a source, collected so that a user meets all of it at once."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError

EXAMPLES = 5


class Problem(NamedTuple):
    """One fault: where it is, and what it is with what to do about it, in words that equal faults share."""

    where: str
    what: str


def refuse(folder: Path, problems: Iterable[Problem]) -> None:
    """End the work when there is any problem.

    Raises:
        InputError: its message counts the problems of each kind and names the first few of each.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[problem.what].append(problem.where)
    if not kinds:
        return
    total = sum(map(len, kinds.values()))
    lines = [f"{folder}: {total:,} problem{'s' if total > 1 else ''}; nothing was written"]
    for what, places in kinds.items():
        more = f", and {len(places) - EXAMPLES:,} more" if len(places) > EXAMPLES else ""
        lines.append(f"  {what}\n    {', '.join(places[:EXAMPLES])}{more}")
    raise InputError("\n".join(lines))
