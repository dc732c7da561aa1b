"""Kaggle's official client, with its errors as messages that say what to do.

The client keeps what a transfer has brought, with a note of the file's ETag and size beside it, and asks for the rest
only of that same file. After an error it tries again by itself with the address that it was given first, which Kaggle
signs for a limited time; so its own attempts are switched off here, and each attempt asks for a new address.
"""

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import requests

from pipeline.core.errors import InputError
from pipeline.core.optional_packages import check_installed
from pipeline.core.progress import count, say

COMPETITION = "human-protein-atlas-image-classification"
SITE = "https://www.kaggle.com"
ATTEMPTS = 6
"""Attempts in a row that bring nothing, after which a transfer is given up."""
WATCH_S = 1.0
"""Time between two looks at how far a transfer is."""

_BROKEN = (requests.RequestException, ConnectionError, TimeoutError)


class UnreachableError(InputError):
    """Kaggle cannot be reached for now."""


class Submission(NamedTuple):
    """A submission as Kaggle lists it."""

    number: int
    time: datetime
    """UTC."""
    message: str
    status: str
    """PENDING, COMPLETE or ERROR."""
    error: str
    public: float | None
    private: float | None


class KaggleAccount:
    """An account that Kaggle's client can sign in with.

    Raises:
        InputError: the client is not installed, there are no credentials, or Kaggle cannot be reached.
    """

    def __init__(self, competition: str) -> None:
        check_installed("Kaggle's client", ("kaggle",), "requirements-fetch.txt")
        self.competition = competition
        # The client prints advice of its own, signs in when it is imported, and ends the program if it cannot.
        with redirect_stdout(io.StringIO()), self._explained():
            try:
                from kaggle.api.kaggle_api_extended import KaggleApi

                self._api = KaggleApi()
                self._api.authenticate()
            except SystemExit:
                raise InputError(
                    f"Kaggle needs to know who you are: make a token at {SITE}/settings/api and save it as "
                    "~/.kaggle/access_token (or the older kaggle.json in ~/.kaggle/), or put it into KAGGLE_API_TOKEN; "
                    "then run the command again"
                ) from None

    def download(self, path: Path, sleep: Callable[[float], object]) -> None:
        """Download all files of the competition as one zip, going on where an earlier run stopped.

        Args:
            path: the file to write; what an earlier run left there is used if it is of the same archive.
            sleep: waits so many seconds between two attempts.

        Raises:
            InputError: it is not possible, or the disk is too small; what has come is kept.
        """
        failures = 0
        while True:
            before = _size(path)
            try:
                if self._attempt(path):
                    return
            except UnreachableError:
                if not before:
                    raise  # nothing has worked yet, so it is better to say so at once
            failures = 0 if _size(path) > before else failures + 1
            if failures >= ATTEMPTS:
                raise InputError(
                    f"the transfer broke {ATTEMPTS} times without bringing anything; {_size(path) / 1e9:.2f} GB are "
                    "kept: check the connection, then run the same command again, which goes on from there"
                )
            pause = 2.0**failures
            say(f"the transfer broke at {_size(path) / 1e9:.2f} GB: trying again in {pause:.0f} s")
            sleep(pause)

    def submit(self, file: Path, message: str) -> int:
        """Hand in a submission; returns its number.

        Raises:
            InputError: Kaggle does not take it.
        """
        printed = io.StringIO()
        with redirect_stdout(printed), self._explained():
            answer: Any = self._api.competition_submit(str(file), message, self.competition, quiet=True)
        if not answer.ref:
            reason = " ".join([answer.message, *printed.getvalue().split()])
            raise InputError(f"{file} could not be sent to Kaggle ({reason}): run the command again")
        return int(answer.ref)

    def submissions(self) -> list[Submission]:
        """The latest submissions, newest first."""
        with redirect_stdout(io.StringIO()), self._explained():
            listed: Any = self._api.competition_submissions(self.competition, page_size=100) or []
        return [
            Submission(
                int(one.ref),
                one.date.replace(tzinfo=UTC) if one.date.tzinfo is None else one.date.astimezone(UTC),
                one.description,
                one.status.name,
                one.error_description,
                _score(one.public_score),
                _score(one.private_score),
            )
            for one in listed
            if one is not None
        ]

    def _attempt(self, path: Path) -> bool:
        """Ask for the archive and transfer what is missing of it. Returns whether it is complete."""
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

        before = _size(path)
        with self._explained(), self._api.build_kaggle_client() as client:
            request = ApiDownloadDataFilesRequest()
            request.competition_name = self.competition
            response = client.competitions.competition_api_client.download_data_files(request)
        size = int(response.headers.get("Content-Length") or 0)
        _check_space(path, size - before)
        if size and before == size:
            return True  # an earlier run was stopped right after the last byte
        try:
            with _watched(path, size):
                self._api.download_file(
                    response, str(path), client.http_client(), quiet=True, resume=True, max_retries=0
                )
        except _BROKEN:
            return False
        except ValueError:
            # Kaggle has answered with something else, which the client has taken for a part of the archive.
            path.unlink(missing_ok=True)
            return False
        finally:
            response.close()
        return True

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the client into messages that say what to do."""
        rules = f"{SITE}/competitions/{getattr(self, 'competition', '')}/rules"
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            said = str(error).strip()
            if status >= 500:
                raise UnreachableError(
                    f"Kaggle has answered with an error ({said}): run the command again later"
                ) from None
            raise InputError(
                {
                    400: f"Kaggle refuses this ({said}): correct what it names",
                    401: f"Kaggle does not accept the credentials ({said}): make a new token at {SITE}/settings/api",
                    403: f"Kaggle denies access ({said}): sign in, accept the rules of the competition at {rules} "
                    "(which may ask you to verify your phone number), then run the command again",
                    404: f"Kaggle has no such competition or file ({said}): check --competition",
                    429: f"Kaggle allows no more requests for now ({said}): {_later(error)}",
                }.get(status, f"Kaggle has answered with an error ({said}): run the command again later")
            ) from None
        except _BROKEN as error:
            raise UnreachableError(
                f"Kaggle cannot be reached ({_cause(error)}): check the connection, run the command again"
            ) from None


def _cause(error: Exception) -> str:
    """What lies below an error of a connection, without the addresses and objects that it passed."""
    below = getattr(error.args[0] if error.args else None, "reason", None) or error
    return str(below).rpartition("): ")[2]


def _later(error: requests.HTTPError) -> str:
    seconds = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    when = f"in {int(seconds) / 60:.0f} minutes" if seconds.isdecimal() else "later"
    return f"run the command again {when}; submissions are counted anew at midnight UTC"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _score(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # not scored, or not shown


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"{path.parent}: the archive needs {needed / 1e9:.1f} GB more, but only {free / 1e9:.1f} GB are free: make "
            "room, or put a link to a folder on a larger disk in the place of the source's folder; nothing was fetched"
        )


@contextmanager
def _watched(path: Path, size: int) -> Iterator[None]:
    """Show how fast a file grows while the block runs, since the client's own bar would fill a log."""
    done = threading.Event()
    before = _size(path)
    with count("fetching", total=size >> 20, unit="MiB", done=before >> 20) as bar:

        def look() -> None:
            while True:
                ended = done.wait(WATCH_S)
                bar.update(max((_size(path) >> 20) - bar.n, 0))
                if ended:
                    return

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
