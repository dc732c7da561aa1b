"""A server on this machine that serves JPEGs as the Human Protein Atlas does, and misbehaves on purpose."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Manner = Literal["well", "missing", "forbidden", "slow", "busy", "error", "truncated", "dropped", "page", "cut"]
"""How a request is answered: with the file; 404; 403; slowly; 429 with Retry-After; 500; fewer bytes than announced;
the connection closed without an answer; a page of HTML with status 200; half a file, announced as whole."""

SLOW_S = 0.2
RETRY_AFTER_S = 1


class AtlasServer:
    """Answers ``GET /ANTIBODY/IMAGE_STAIN.jpg``.

    Attributes:
        address: of the server, with the fields of a template.
        requests: number of requests by path.
        served: number of whole files that were sent, by path.
        most: how many connections were open at one time.
    """

    def __init__(self, files: Callable[[str], bytes | None], manner: Callable[[str, int], Manner]) -> None:
        self._files, self._manner = files, manner
        self._lock = threading.Lock()
        self.requests = Counter[str]()
        self.served = Counter[str]()
        self.agents = set[str]()
        self.most = 0
        self._open = set[socket.socket]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer._open.add(self.connection)
                    outer.most = max(outer.most, outer.connections)

            def finish(self) -> None:
                with outer._lock:
                    outer._open.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing: a client that was killed is what is tested."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}" + "/{antibody}/{image}_{stain}.jpg"

    @property
    def connections(self) -> int:
        """How many connections are open, without those that the client has closed and no answer has met yet."""
        return sum(not _closed_by_client(connection) for connection in self._open)

    def serve(self) -> None:
        """Serve until `stop`."""
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        with self._lock:
            self.requests[path] += 1
            number = self.requests[path]
            self.agents.add(handler.headers.get("User-Agent", ""))
        manner = self._manner(path, number)
        body = self._files(path)
        if body is None or manner == "missing":
            self._send(handler, 404, b"no such file")
        elif manner in ("forbidden", "error", "busy"):
            status = {"forbidden": 403, "error": 500, "busy": 429}[manner]
            self._send(
                handler, status, manner.encode(), {"Retry-After": str(RETRY_AFTER_S)} if manner == "busy" else {}
            )
        elif manner == "page":
            self._send(handler, 200, b"<html>The image is being prepared</html>")
        elif manner == "cut":
            self._send(handler, 200, body[: len(body) // 2])
        elif manner == "dropped":
            handler.close_connection = True
        elif manner == "truncated":
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
        else:
            if manner == "slow":
                time.sleep(SLOW_S)
            self._send(handler, 200, body)
            with self._lock:
                self.served[path] += 1

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def _closed_by_client(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False  # open, and nothing to read
    except OSError:
        return True


@contextmanager
def serving(files: Callable[[str], bytes | None], manner: Callable[[str, int], Manner]) -> Iterator[AtlasServer]:
    """Serve while the block runs."""
    server = AtlasServer(files, manner)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
