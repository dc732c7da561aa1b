"""The server: what it answers, to whom, and that it keeps nothing."""

import http.client
import io
import json
import os
import re
import socket
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from threading import Event, Thread
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from pipeline.app import server as serving
from pipeline.app.analysis import Analysis, analyse
from pipeline.app.served_run import ServedRun
from pipeline.app.server import PageServer, listen
from pipeline.app.uploads import Sample
from pipeline.core.errors import InputError
from pipeline.core.labels import LABELS
from tests.fixtures.prediction import files
from tests.fixtures.served import running

LIMIT = 1 << 20
BOUNDARY = "----a-boundary"


class Answer(NamedTuple):
    """What the server answers."""

    status: int
    headers: Mapping[str, str]
    text: str


def form(members: Sequence[tuple[str, str | None, bytes]]) -> bytes:
    """The body of a form: the name of each field, of its file if it is one, and its content."""
    body = b""
    for field, name, data in members:
        file = "" if name is None else f'; filename="{name}"'
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'.encode()
        body += data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def of_files(members: Mapping[str, bytes]) -> bytes:
    return form([("files", name, data) for name, data in members.items()])


def ask(address: str, path: str = "", body: bytes | Iterator[bytes] | None = None, **headers: str) -> Answer:
    """Send a request; header names have "_" in place of "-"."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent.setdefault("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.request("GET" if body is None else "POST", f"/{path}", body, sent)
    answer = connection.getresponse()
    found = Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
    connection.close()
    return found


@pytest.fixture(scope="module")
def address(served: ServedRun) -> Iterator[str]:
    with running(PageServer(served, limit=LIMIT, names=frozenset({"localhost"}))) as found:
        yield found


def test_an_upload_is_answered_with_its_result(address: str, served: ServedRun) -> None:
    answer = ask(address, "analyse", of_files(files(["a"])), X_Part="result")
    assert answer.status == 200
    assert answer.text.lstrip().startswith("<section")
    assert answer.text.count("<tr") == len(LABELS) + 2  # and two heads
    for part in ("data:image/webp", "of the 200 labels", "most similar training images"):
        assert part in answer.text
    assert served.packed is not None
    assert ask(address, "analyse", of_files(files(["b_1"])), X_Part="result").text != answer.text


def test_without_its_script_the_page_loads_anew_with_the_result(address: str) -> None:
    for answer in (ask(address, "analyse", of_files(files(["a"]))), ask(address, "examples/0")):
        assert answer.text.startswith("<!doctype html>")
        assert "most similar training images" in answer.text
    assert "most similar training images" not in ask(address).text


def test_the_sample_that_is_asked_for_is_shown(address: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files(["a", "b_1"]).items():
            archive.writestr(name, data)
    zipped = [("files", "both.zip", buffer.getvalue())]
    for fields, shown in (([], "a"), ([("sample", None, b"b_1")], "b_1"), ([("sample", None, b"gone")], "a")):
        text = ask(address, "analyse", form([*zipped, *fields]), X_Part="result").text
        assert f'<h2 id="found-title">{shown}</h2>' in text
        assert re.findall(r"<option( selected)?>(\w+)<", text) == [
            (" selected" if id_ == shown else "", id_) for id_ in ("a", "b_1")
        ]


def test_empty_fields_of_the_form_are_no_files(address: str) -> None:
    body = form([("files", "", b""), *[(name[2:-4], name, data) for name, data in files(["a"]).items()]])
    assert ask(address, "analyse", body).status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (of_files({}), "no file came"),
        (of_files({"a_green.png": b"text"}), "a_green.png: neither a PNG"),
        (of_files({"<script>.txt": b"text"}), "no images found (&lt;script&gt;.txt)"),
        (b"not a form", "the request is not a form with files"),
        (of_files(files(["a"]))[:-200], "the request is not a form with files"),
    ],
)
def test_bad_uploads_end_with_a_message_on_the_page(address: str, body: bytes, message: str) -> None:
    answer = ask(address, "analyse", body, X_Part="result")
    assert answer.status == 400
    assert "These files cannot be used" in answer.text
    assert message in answer.text
    assert "<script>" not in answer.text


def test_another_content_than_a_form_is_refused(address: str) -> None:
    assert ask(address, "analyse", b"{}", Content_Type="application/json").status == 400


def test_a_larger_upload_is_refused_before_it_is_read(address: str) -> None:
    connection = socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=60)
    with connection:
        lines = ["POST /analyse HTTP/1.1", "Host: localhost", f"Content-Length: {1 << 40}"]
        lines += [f"Content-Type: multipart/form-data; boundary={BOUNDARY}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_hides_its_size_is_refused(address: str) -> None:
    whole = of_files({"a_green.png": bytes(LIMIT + (1 << 16))})
    chunks = iter([whole[start : start + 5000] for start in range(0, len(whole), 5000)])
    answer = ask(address, "analyse", chunks)  # http.client then sends no length
    assert answer.status == 413
    assert "The files have more than 1 MB" in answer.text


@pytest.mark.parametrize(
    ("path", "status"), [("", 200), ("app.css", 200), ("app.js", 200), ("examples/0", 200), ("examples/900", 404)]
)
def test_every_answer_forbids_what_the_page_does_not_need(address: str, path: str, status: int) -> None:
    answer = ask(address, path)
    assert answer.status == status
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"unsafe|http|\*", policy)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "aiohttp" not in json.dumps(dict(answer.headers))


@pytest.mark.parametrize("path", ["../params.yaml", "%2e%2e/params.yaml", "template/app.css", "examples/-1", "models"])
def test_nothing_else_is_served(address: str, path: str) -> None:
    assert ask(address, path).status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("attacker.example", 403),
        ("attacker.example:8000", 403),
        ("localhost.attacker.example", 403),
        ("127.0.0.1.attacker.example", 403),
        ("", 403),
    ],
)
def test_other_names_of_this_machine_are_refused(address: str, host: str, status: int) -> None:
    assert ask(address, Host=host).status == status


@pytest.mark.parametrize(("origin", "status"), [("http://attacker.example", 403), ("null", 403), ("", 200)])
def test_forms_of_other_pages_are_refused(address: str, origin: str, status: int) -> None:
    own = origin or address.rstrip("/")
    assert ask(address, "analyse", of_files(files(["a"])), Origin=own).status == status


def test_the_server_answers_while_it_analyses_and_limits_the_uploads(
    served: ServedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, found = Event(), list[int]()

    def wait(run: ServedRun, sample: Sample) -> Analysis:
        assert go.wait(60)
        return analyse(run, sample)

    monkeypatch.setattr(serving, "analyse", wait)
    monkeypatch.setattr(serving, "WAITING", 2)
    with running(PageServer(served, limit=LIMIT, names=frozenset())) as address:
        body = of_files(files(["a"]))
        senders = [Thread(target=lambda: found.append(ask(address, "analyse", body).status)) for _ in range(3)]
        for sender in senders:
            sender.start()
        while 503 not in found:
            assert ask(address).status == 200
        go.set()
        for sender in senders:
            sender.join()
    assert sorted(found) == [200, 200, 503]


_OPENED: list[str] = []
_watching = Event()


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watching.is_set() and event == "open" and isinstance(arguments[2], int):
        writing = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing:
            _OPENED.append(str(arguments[0]))


def test_no_file_is_written(address: str) -> None:
    sys.addaudithook(_note)
    _watching.set()
    try:
        assert ask(address, "analyse", of_files(files(["a", "b_1"]))).status == 200
        assert ask(address, "analyse", of_files({"a_green.png": bytes(LIMIT // 2)})).status == 400
    finally:
        _watching.clear()
    assert _OPENED == []


def test_a_port_in_use_and_an_unknown_host_are_named() -> None:
    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot serve at 127\.0\.0\.1, port {port} \(.*in use.*\): name others"):
            listen("127.0.0.1", port)
    for host, number in (("192.0.2.1", 0), ("127.0.0.1", 70000)):
        with pytest.raises(InputError, match=rf"cannot serve at {host}, port {number} "):
            listen(host, number)
