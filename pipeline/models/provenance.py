"""Which samples weights have seen: recorded in weight files, so that a fold's held-out samples are not among them."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.sources.packed_array import read_index

BYTES = 6
"""Length of a digest: 31,072 samples in five folds take 0.6 MB per weight file.

The expected number of false matches is (digests of the held-out samples) x (recorded digests) / 2**48. With three
digests per sample and five folds it is 5e-6 for 31,072 samples and 5e-5 for 100,000.
"""

FILES = [f"digest_{channel}" for channel in CHANNELS]


@dataclass(frozen=True)
class Provenance:
    """The samples that weights have seen: in their training, and in that of the weights that they started from.

    A sample is recorded by digests of its id, of its four files, and of its perceptual hash, and is recognised by any
    one of them. So a sample is also found under another id or in another source: if its files are identical, or if
    they have the same pixels and are packed at the same size. Uniform images are recognised by id alone, because
    different samples can have the same uniform image.

    Args:
        digests: up to three per sample.
        complete: whether all samples whose labels were seen are recorded; false if the weights, or those that they
            started from, were written by a version that did not record them.
        unlabelled: digests of the samples whose images, but not labels, were seen, as in pre-training without labels.
            They may be held out: the score is then that of transductive learning.
    """

    digests: frozenset[bytes] = frozenset()
    complete: bool = True
    unlabelled: frozenset[bytes] = frozenset()

    @classmethod
    def of_samples(cls, table: pd.DataFrame) -> "Provenance":
        """Record samples, from the indexes.

        Args:
            table: one row per sample, with ``source`` and ``row``.
        """
        return cls(frozenset().union(*(digests for _, digests in _digests(table))))

    @classmethod
    def of_ids(cls, ids: Iterable[str]) -> "Provenance":
        """Record samples that are in no index, by their ids alone."""
        return cls(frozenset(_digest(f"id {id_}") for id_ in ids))

    def union(self, other: "Provenance") -> "Provenance":
        """The samples of both."""
        return Provenance(
            self.digests | other.digests, self.complete and other.complete, self.unlabelled | other.unlabelled
        )

    def without_labels(self) -> "Provenance":
        """The same samples, of which the images alone were seen."""
        return Provenance(complete=self.complete, unlabelled=self.digests | self.unlabelled)

    def seen_among(self, table: pd.DataFrame) -> list[str]:
        """Ids of the samples of a table (see ``of_samples``) whose labels are recorded as seen, sorted."""
        if not self.digests:
            return []
        return sorted(id_ for id_, digests in _digests(table) if digests & self.digests)

    def to_json(self) -> dict[str, Any]:
        """An object for JSON; its size is 8 characters per digest."""
        record: dict[str, Any] = {"digests": _packed(self.digests), "complete": self.complete}
        return record | ({"unlabelled": _packed(self.unlabelled)} if self.unlabelled else {})

    @classmethod
    def from_json(cls, record: Any, origin: str) -> "Provenance":
        """Read the result of ``to_json``; None, in files of versions that recorded nothing, is an incomplete record.

        Args:
            record: the object.
            origin: the file, for the message.

        Raises:
            InputError: the record is damaged.
        """
        if record is None:
            return cls(complete=False)
        try:
            packed, complete = base64.b64decode(record["digests"], validate=True), record["complete"]
            unlabelled = base64.b64decode(record.get("unlabelled", ""), validate=True)
        except (KeyError, TypeError, ValueError):
            packed, complete, unlabelled = b"", None, b""
        if not isinstance(complete, bool) or len(packed) % BYTES or len(unlabelled) % BYTES:
            raise InputError(f"{origin}: its record of the samples that it has seen is damaged: train it again")
        return cls(_unpacked(packed), complete, _unpacked(unlabelled))


def _digests(table: pd.DataFrame) -> Iterator[tuple[str, set[bytes]]]:
    """Id and digests of each sample of a table, source by source."""
    for source, chosen in table.groupby("source"):
        rows = read_index(str(source)).iloc[chosen["row"]]
        for id_, phash, *files in rows[["id", "phash", *FILES]].itertuples(index=False):
            texts = [f"id {id_}"] + ([f"files {' '.join(files)}", f"phash {phash}"] if phash else [])
            yield id_, {_digest(text) for text in texts}


def _packed(digests: frozenset[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(digests))).decode()


def _unpacked(packed: bytes) -> frozenset[bytes]:
    return frozenset(packed[i : i + BYTES] for i in range(0, len(packed), BYTES))


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=BYTES).digest()
