"""Requests to a server that misbehaves: what is tried again, what is not, and how the server's wishes are followed."""

import asyncio
from collections.abc import Sequence

import aiohttp
import pytest

from benchmarks.atlas_server import AtlasServer, Manner, serving
from pipeline.core.errors import InputError
from pipeline.fetching import http_files
from pipeline.fetching.http_files import ATTEMPTS, REFUSALS, Downloads, Failure, Fetched, retry_after

BODY = b"\xff\xd8" + bytes(50_000) + b"\xff\xd9"


class Clock:
    """Time that passes only while something sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def whole(data: bytes) -> int:
    if data != BODY:
        raise InputError("not the file")
    return len(data)


def get(server: AtlasServer, rate: float = 1000, pause: float = 1) -> tuple[Fetched[int] | Failure, Clock, Downloads]:
    """Get one file."""
    clock = Clock()

    async def run() -> tuple[Fetched[int] | Failure, Downloads]:
        async with aiohttp.ClientSession(timeout=http_files.TIMEOUT) as session:
            downloads = Downloads(session, rate, pause, clock.sleep, clock.time)
            return await downloads.get(
                server.address.format(antibody="1", image="2_A1_1", stain="red"), whole
            ), downloads

    result, downloads = asyncio.run(run())
    return result, clock, downloads


def behaving(*manners: Manner) -> tuple[AtlasServer, Clock, Fetched[int] | Failure, Downloads]:
    """The server, the time and the outcome if the requests are answered in these manners, and then well."""
    with serving(lambda _: BODY, lambda _, number: [*manners, "well"][min(number - 1, len(manners))]) as server:
        result, clock, downloads = get(server)
    return server, clock, result, downloads


@pytest.mark.parametrize("manner", ["error", "truncated", "page", "cut"])
def test_what_may_be_an_accident_is_tried_again_after_growing_pauses(manner: Manner) -> None:
    server, clock, result, _ = behaving(manner, manner, manner)
    assert result == Fetched(len(BODY), len(BODY))
    assert server.requests.total() == 4
    assert [seconds for seconds in clock.slept if seconds >= 1] == [1, 2, 4]


def test_a_dropped_connection_is_opened_again_at_once_and_then_after_a_pause() -> None:
    server, clock, result, _ = behaving("dropped", "dropped", "dropped")
    assert isinstance(result, Fetched)
    assert server.requests.total() == 4
    assert [seconds for seconds in clock.slept if seconds >= 1] == [1]


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("error", "HTTP 500 Internal Server Error"),
        ("truncated", "the connection broke (Response payload is not completed"),
        ("dropped", "the connection broke (Server disconnected)"),
        ("page", "not the file"),
    ],
)
def test_a_file_is_given_up_after_some_attempts_with_the_last_reason(manner: Manner, reason: str) -> None:
    server, _, result, _ = behaving(*[manner] * 2 * ATTEMPTS)
    assert isinstance(result, Failure)
    assert result.reason.startswith(reason)
    assert not result.missing
    assert server.requests.total() == ATTEMPTS * (2 if manner == "dropped" else 1)


@pytest.mark.parametrize(("manner", "missing"), [("missing", True), ("forbidden", False)])
def test_what_the_server_denies_is_not_asked_for_again(manner: Manner, missing: bool) -> None:
    server, _, result, _ = behaving(manner)
    assert isinstance(result, Failure)
    assert result.missing == missing
    assert server.requests.total() == 1


def test_a_wish_to_wait_is_followed_slows_down_and_is_no_attempt() -> None:
    waits: Sequence[Manner] = ["busy"] * (ATTEMPTS + 2)
    server, clock, result, downloads = behaving(*waits)
    assert isinstance(result, Fetched)
    assert server.requests.total() == len(waits) + 1
    assert sum(clock.slept) == pytest.approx(len(waits), abs=0.01)  # Retry-After is 1 s
    assert downloads.rate == pytest.approx(1000 / http_files.SLOWEST, rel=0.01)


def test_connections_that_are_told_at_the_same_time_halve_the_rate_once_and_it_recovers() -> None:
    with serving(
        lambda _: BODY, lambda path, number: "busy" if number == 1 and "late" not in path else "well"
    ) as server:
        clock, rates = Clock(), list[float]()

        async def run() -> None:
            async with aiohttp.ClientSession() as session:
                downloads = Downloads(session, 1e6, 1, clock.sleep, clock.time)
                addresses = [server.address.format(antibody=row, image="2_A1_1", stain="red") for row in range(4)]
                await asyncio.gather(*(downloads.get(address, whole) for address in addresses))
                rates.append(downloads.rate)
                for _ in range(800):
                    await downloads.get(server.address.format(antibody=1, image="late", stain="red"), len)
                rates.append(downloads.rate)

        asyncio.run(run())
    assert rates == [pytest.approx(5e5, rel=0.01), 1e6]


def test_a_server_that_goes_on_refusing_is_left_alone() -> None:
    busy: Sequence[Manner] = ["busy"] * (REFUSALS + 1)
    with pytest.raises(InputError, match=r"asks to be left alone \(HTTP 429, .*run the same command later"):
        behaving(*busy)


def test_a_longer_wait_than_an_hour_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_files, "LONGEST_WAIT_S", 0.5)
    with pytest.raises(InputError, match=r"left alone \(HTTP 429, for 0 minutes\)"):
        behaving("busy")


def test_requests_keep_to_the_rate() -> None:
    with serving(lambda _: BODY, lambda *_: "well") as server:
        clock = Clock()
        address = server.address.format(antibody="1", image="2_A1_1", stain="red")
        started: list[float] = []

        async def run() -> None:
            async with aiohttp.ClientSession() as session:
                downloads = Downloads(session, 4, 1, clock.sleep, clock.time)

                def accept(_: bytes) -> None:
                    started.append(clock.now)

                await asyncio.gather(*(downloads.get(address, accept) for _ in range(12)))

        asyncio.run(run())
    assert len(started) == 12
    assert clock.now == pytest.approx(11 / 4)


def test_a_file_larger_than_any_of_a_competition_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_files, "MAX_BYTES", 2**15)
    _, _, result, _ = behaving()
    assert isinstance(result, Failure)
    assert result.reason.startswith("larger than")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("0", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10),
        ("soon", None),
        ("-5", None),
    ],
)
def test_the_time_to_wait_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    now = 1000.0 if header != "Fri, 31 Dec 1999 23:59:59 GMT" else 2e9
    assert retry_after(header, now) == seconds
