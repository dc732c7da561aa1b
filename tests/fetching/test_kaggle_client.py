"""Kaggle's official client against a server on this machine: what it resumes, and what each failure says."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.core.errors import InputError
from pipeline.fetching import kaggle_client
from pipeline.fetching.kaggle_client import ATTEMPTS, COMPETITION, KaggleAccount
from tests.fixtures.kaggle_server import KaggleServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

ARCHIVE = bytes(range(256)) * 20_000
"""5 MB: several of the client's chunks of 1 MiB."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "competition.zip"


def download(target: Path) -> list[float]:
    """Download; returns the pauses between attempts."""
    pauses: list[float] = []
    KaggleAccount(COMPETITION).download(target, pauses.append)
    return pauses


def test_an_archive_is_downloaded_by_the_account_of_the_environment(kaggle: KaggleServer, target: Path) -> None:
    kaggle.archive = ARCHIVE
    assert download(target) == []
    assert target.read_bytes() == ARCHIVE
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert kaggle.ranges == [0]
    assert all(user.startswith("Basic ") for user in kaggle.users)


def test_a_broken_transfer_goes_on_where_it_broke(kaggle: KaggleServer, target: Path) -> None:
    kaggle.archive = ARCHIVE
    kaggle.breaks.extend([3_000_000, 1_500_000])
    pauses = download(target)
    assert target.read_bytes() == ARCHIVE
    # Each attempt first asks from the start, by which it learns what the file is, and then for the rest.
    assert len([start for start in kaggle.ranges if start]) >= 1
    assert pauses
    assert max(kaggle.ranges) >= 2 * 2**20


def test_another_run_goes_on_with_what_an_earlier_one_left(
    kaggle: KaggleServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.archive = ARCHIVE
    monkeypatch.setattr(kaggle_client, "ATTEMPTS", 1)
    kaggle.breaks.extend([3_000_000, 0, 0])
    with pytest.raises(InputError, match=r"kept: check the connection, then run the same command again"):
        download(target)
    kept = target.stat().st_size
    assert kept >= 2 * 2**20
    kaggle.breaks.clear()
    kaggle.ranges.clear()
    download(target)
    assert target.read_bytes() == ARCHIVE
    assert kaggle.ranges[-1] == kept


def test_what_was_left_of_another_archive_is_not_gone_on_with(
    kaggle: KaggleServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.archive = b"old" * 1_000_000
    monkeypatch.setattr(kaggle_client, "ATTEMPTS", 1)
    kaggle.breaks.extend([2_500_000, 0, 0])
    with pytest.raises(InputError):
        download(target)
    assert target.stat().st_size
    kaggle.breaks.clear()
    kaggle.archive, kaggle.etag = ARCHIVE, '"two"'
    download(target)
    assert target.read_bytes() == ARCHIVE


def test_a_complete_archive_of_a_run_that_was_killed_is_not_fetched_again(kaggle: KaggleServer, target: Path) -> None:
    kaggle.archive = ARCHIVE
    target.write_bytes(ARCHIVE)
    download(target)
    assert kaggle.ranges == [0]  # asked for, but not read
    assert target.read_bytes() == ARCHIVE


def test_a_transfer_that_brings_nothing_is_given_up(kaggle: KaggleServer, target: Path) -> None:
    kaggle.archive = ARCHIVE
    kaggle.breaks.extend([0] * 2 * ATTEMPTS)
    with pytest.raises(InputError, match=rf"broke {ATTEMPTS} times without bringing anything; 0.00 GB are kept"):
        download(target)


def test_an_outage_in_the_middle_is_waited_for(kaggle: KaggleServer, target: Path) -> None:
    kaggle.archive = ARCHIVE
    kaggle.breaks.append(3_000_000)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) < 4:
            kaggle.refusals.append((503, "Down for a moment", {}))

    KaggleAccount(COMPETITION).download(target, sleep)
    assert target.read_bytes() == ARCHIVE
    assert pauses == [1, 2, 4, 8]


def test_the_disk_is_asked_before_the_first_byte(
    kaggle: KaggleServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.archive = ARCHIVE
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(InputError, match=r"needs 0\.0 GB more, but only 0\.0 GB are free: make room"):
        download(target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (
            (401, "Unauthenticated", {}),
            r"does not accept the credentials \(Unauthenticated\): make a new token at https",
        ),
        ((403, "You must accept the rules", {}), r"denies access .*accept the rules .*/competitions/human.*/rules"),
        ((404, "Not found", {}), r"no such competition or file \(Not found\): check --competition"),
        ((429, "Too many requests", {"Retry-After": "1800"}), r"no more requests for now .*again in 30 minutes"),
        ((400, "Your team has used its submissions", {}), r"refuses this \(Your team has used its submissions\)"),
        ((500, "Oops", {}), r"has answered with an error \(Oops\): run the command again later"),
    ],
)
def test_a_refusal_says_what_to_do(
    kaggle: KaggleServer, target: Path, refusal: tuple[int, str, dict[str, str]], expected: str
) -> None:
    kaggle.refusals.append(refusal)
    with pytest.raises(InputError, match=expected):
        download(target)
    assert not target.exists()


def test_without_credentials_the_message_says_where_to_get_them(
    kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    from kaggle.api.kaggle_api_extended import KaggleApi

    monkeypatch.setattr(KaggleApi, "config", "/nowhere/kaggle.json")
    with pytest.raises(InputError, match=r"make a token at https://www\.kaggle\.com/settings/api and save it as"):
        KaggleAccount(COMPETITION)
    assert capsys.readouterr().out == ""
    assert not kaggle.users


def test_without_a_network_the_message_says_so(
    kaggle: KaggleServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    with pytest.raises(
        InputError,
        match=r"^Kaggle cannot be reached \(Failed to establish a new connection: \[Errno 111\] Connection refused\)",
    ):
        download(target)
    assert not kaggle.users


def test_without_the_client_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"client needs kaggle: .*requirements-fetch\.txt"):
        KaggleAccount(COMPETITION)


def test_a_submission_is_sent_and_listed_with_its_scores(kaggle: KaggleServer, tmp_path: Path) -> None:
    file = tmp_path / "submission.csv"
    file.write_text("Id,Predicted\na,0\n")
    account = KaggleAccount(COMPETITION)
    assert account.submissions() == []
    number = account.submit(file, "one forest")
    assert kaggle.uploaded == file.read_bytes()
    (found,) = account.submissions()
    assert (found.number, found.message, found.status) == (number, "one forest", "COMPLETE")
    assert (found.public, found.private) == (0.5, 0.51234)
    assert found.time.isoformat() == "2024-05-01T10:00:00+00:00"
    kaggle.states.append(("COMPLETE", "", ""))
    assert account.submissions()[0].private is None
