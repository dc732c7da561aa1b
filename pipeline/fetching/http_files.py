"""Get many files over HTTP: few connections, a bounded rate, growing pauses, and whatever the server asks for.

What a single file meets is kept apart from what the server asks of all requests. A connection that breaks, an answer of
500, or a body that is not what it should be is tried again after a pause that doubles. An answer of 429, and one of 503
that names a time, stops all requests until then, halves the rate, and is no attempt of the file. The rate recovers.
A connection that the server has closed meanwhile is opened again at once, by aiohttp itself (RFC 9112, 9.3.1).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

import aiohttp

from pipeline import __version__
from pipeline.core.errors import InputError
from pipeline.core.progress import say
from pipeline.sources.zips import MAX_BYTES

ATTEMPTS = 6
"""Requests for one file before it is given up."""
REFUSALS = 20
"""Answers of 429 without a success in between, after which the server is left alone."""
LONGEST_WAIT_S = 3600.0
"""The longest time that a server is waited for when it asks for a pause."""
SLOWEST = 16
"""The rate is halved down to this part of what was asked for."""
RECOVERY = 0.001
"""Growth of a halved rate with each file that comes: it doubles with 700 files."""

MISSING = (404, 410)
NOT_NOW = (408, 425)
TOO_MANY, UNAVAILABLE = 429, 503
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
CHUNK = 2**16

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """Why a file could not be had."""

    reason: str
    missing: bool
    """The server does not have it, so that it makes no sense to ask again soon."""


@dataclass(frozen=True)
class Fetched(Generic[T]):
    """A file that was fetched and accepted."""

    value: T
    size: int
    """Bytes of the body."""


class _AskedToWaitError(Exception):
    def __init__(self, status: int, seconds: float | None) -> None:
        super().__init__(status)
        self.status, self.seconds = status, seconds


class _RefusedError(Exception):
    def __init__(self, reason: str, *, missing: bool) -> None:
        super().__init__(reason)
        self.failure = Failure(reason, missing)


class Downloads:
    """GET requests that share a rate and a server's wishes. Make it by `open_downloads`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        rate: float,
        pause: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self.rate = self._asked = rate
        self._pause = pause
        self._sleep, self._clock = sleep, clock
        self._order = asyncio.Lock()
        self._next = 0.0
        """The earliest time of the next request, by the clock."""
        self._told = -1.0
        """When the server has last asked to wait."""
        self._refusals = 0

    async def get(self, url: str, accept: Callable[[bytes], T]) -> Fetched[T] | Failure:
        """Get one file.

        Args:
            url: its address; redirects are followed.
            accept: makes a value of the body, in a thread; raises `InputError` if the body is not what it should be.

        Raises:
            InputError: the server asks to be left alone.
        """
        attempt = 0
        reason = ""
        while attempt < ATTEMPTS:
            sent = await self._turn()
            try:
                body = await self._body(url)
                value = await asyncio.to_thread(accept, body)
            except _AskedToWaitError as asked:
                self._wait(asked, sent)
                continue
            except _RefusedError as refused:
                return refused.failure
            except aiohttp.InvalidURL:
                raise InputError(f"{url} is not an address: correct --url") from None
            except InputError as error:
                reason = str(error)
            except TimeoutError:
                reason = "no answer in time"
            except aiohttp.ClientResponseError as error:
                reason = f"HTTP {error.status} {error.message}".strip()
            except (aiohttp.ClientError, ConnectionError) as error:
                reason = f"the connection broke ({str(error) or type(error).__name__})"
            else:
                self._refusals = 0
                self.rate = min(self.rate * (1 + RECOVERY), self._asked)
                return Fetched(value, len(body))
            attempt += 1
            if attempt < ATTEMPTS:
                await self._sleep(self._pause * 2 ** (attempt - 1))
        return Failure(reason, missing=False)

    async def _body(self, url: str) -> bytes:
        async with self._session.get(url) as response:
            status = response.status
            asked = retry_after(response.headers.get("Retry-After"), time.time())
            if status == TOO_MANY or (status == UNAVAILABLE and asked is not None):
                raise _AskedToWaitError(status, asked)
            if status in MISSING:
                raise _RefusedError(f"not on the server (HTTP {status})", missing=True)
            if 400 <= status < 500 and status not in NOT_NOW:
                raise _RefusedError(f"refused (HTTP {status} {response.reason})", missing=False)
            response.raise_for_status()
            if status != 200:
                raise InputError(f"an answer without the file (HTTP {status})")
            parts, size = [], 0
            async for part in response.content.iter_chunked(CHUNK):
                size += len(part)
                if size > MAX_BYTES:
                    raise InputError(f"larger than {MAX_BYTES >> 20} MiB")
                parts.append(part)
            return b"".join(parts)

    async def _turn(self) -> float:
        """Wait until the rate, and what the server has asked for, allow a request. Returns the time."""
        async with self._order:
            while (wait := self._next - self._clock()) > 0:
                await self._sleep(wait)
            now = self._clock()
            self._next = now + 1 / self.rate
            return now

    def _wait(self, asked: _AskedToWaitError, sent: float) -> None:
        """Stop all requests for a while, and go on more slowly; ``sent`` is the time of the request."""
        self._refusals += 1
        seconds = asked.seconds if asked.seconds is not None else self._pause * 2 ** min(self._refusals - 1, 6)
        if seconds > LONGEST_WAIT_S or self._refusals > REFUSALS:
            raise InputError(
                f"the server asks to be left alone (HTTP {asked.status}"
                + (f", for {seconds / 60:.0f} minutes" if asked.seconds else "")
                + "): run the same command later, with a lower --rate; it goes on from here"
            )
        now = self._clock()
        if sent > self._told:  # otherwise another connection has been told since
            self.rate = max(self.rate / 2, self._asked / SLOWEST)
            say(f"the server asks to wait (HTTP {asked.status}): {seconds:.0f} s, then {self.rate:.2g} requests a s")
        self._told = now
        self._next = max(self._next, now + seconds)


@asynccontextmanager
async def open_downloads(connections: int, rate: float, pause: float) -> AsyncIterator[Downloads]:
    """Open connections to a server, at most ``connections`` at a time.

    Args:
        connections: at most so many at a time.
        rate: requests per second, of all connections together.
        pause: before a file is tried a second time, in seconds; it doubles with each attempt.
    """
    headers = {"User-Agent": f"hpa-atlas/{__version__} (aiohttp)"}
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, headers=headers, trust_env=True) as session:
        yield Downloads(session, rate, pause)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds to wait by a header ``Retry-After``, in seconds or a date (RFC 9110, 10.2.3); None without a valid one.

    ``now`` is the time in seconds since 1970.
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - now, 0.0)
    except ValueError:
        return None
