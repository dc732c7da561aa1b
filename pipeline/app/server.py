"""The server of the page. The only module that imports aiohttp, besides `fetching.http_files`.

Uploads stay in memory and end with their request. One is analysed at a time, in a thread, while the server goes on
answering. Requests that another web page sends, or that come by a name that is not this machine's, are refused: a page
that is open in the same browser must not use the models (cross-site requests, DNS rebinding).
"""

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import BodyPartReader, web

from pipeline.app.analysis import analyse
from pipeline.app.rendering import FOLDER, UploadPage, render_problem, render_result
from pipeline.app.served_run import ServedRun
from pipeline.app.uploads import FILES, Part, Sample, decode_sample, read_upload
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS

WAITING = 8
"""Most uploads at a time, which limits the memory needed."""

FIELD = 1000
"""Most bytes of a value of the form that is no file."""

PART_ONLY = "X-Part"
"""Header of requests of the page's script, which replaces the result and not the page."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "hpa-atlas",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer:
    """Answers the requests of the page."""

    def __init__(self, run: ServedRun, *, limit: int, names: frozenset[str]) -> None:
        """Take what is served.

        Args:
            run: the loaded run.
            limit: of an upload in bytes.
            names: by which this machine is called, besides its addresses.
        """
        self._run, self._limit, self._names = run, limit, names
        self._page = UploadPage(list(run.models), run.packed, limit)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="analysis")
        self._uploads = 0

    def application(self) -> web.Application:
        """The application that aiohttp serves."""
        application = web.Application(middlewares=[self._check])
        application.on_response_prepare.append(_add_headers)
        application.add_routes(
            [
                web.get("/", self._show_page),
                web.post("/analyse", self._show_upload),
                web.get("/examples/{number:[0-9]{1,3}}", self._show_example),
                web.get("/app.css", functools.partial(_send_file, "app.css", "text/css")),
                web.get("/app.js", functools.partial(_send_file, "app.js", "text/javascript")),
            ]
        )
        return application

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests by another name or from another page."""
        if not self._is_ours(request.host):
            return web.Response(status=403, text="This server is not called so: open the address that it has printed.")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.host}":
            return web.Response(status=403, text="Requests of other web pages are refused.")
        return await handler(request)

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header is an address or a name of this machine; an address cannot be rebound."""
        name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True

    async def _show_page(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._page.render(), content_type="text/html")

    async def _show_example(self, request: web.Request) -> web.Response:
        number, packed = int(request.match_info["number"]), self._run.packed
        if packed is None or number >= len(packed.examples):
            raise web.HTTPNotFound
        found = await self._in_thread(lambda: self._result(packed.sample(packed.examples[number])))
        return self._answer(request, found)

    async def _show_upload(self, request: web.Request) -> web.Response:
        if self._uploads >= WAITING:
            return self._refuse(request, 503, "Too many uploads at a time", "Try again in some seconds.")
        self._uploads += 1
        try:
            parts, chosen = await self._receive(request)
            found = await self._in_thread(lambda: self._analysed(parts, chosen))
        except UploadTooLargeError:
            megabytes = self._limit >> 20
            message = (
                f"The files have more than {megabytes} MB. Send fewer, or start the program with a higher --limit-mb."
            )
            return self._refuse(request, 413, "Too large", message)
        except InputError as error:
            return self._refuse(request, 400, "These files cannot be used", str(error))
        finally:
            self._uploads -= 1
        return self._answer(request, found)

    async def _receive(self, request: web.Request) -> tuple[list[Part], str]:
        """Read the form: its files, and the id of the sample that is asked for.

        Raises:
            UploadTooLargeError: the files are larger than the limit.
            InputError: the request is no form with files.
        """
        if (request.content_length or 0) > self._limit + 1_000 * FIELD:
            raise UploadTooLargeError
        try:
            reader = await request.multipart()
            parts, chosen, left = list[Part](), "", self._limit
            while (field := await reader.next()) is not None:
                if not isinstance(field, BodyPartReader) or len(parts) > FILES:
                    raise InputError(f"more than {FILES:,} files: send fewer samples at a time")
                is_file = field.filename is not None
                data = await _read_field(field, left if is_file else FIELD)
                left -= len(data) if is_file else 0
                if is_file and field.filename:  # empty where nothing was chosen
                    parts.append(Part(field.filename, data, field.name if field.name in CHANNELS else ""))
                elif field.name == "sample":
                    chosen = data.decode(errors="replace")
        except (ValueError, AssertionError, UnicodeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the request is not a form with files: use the page") from None
        return parts, chosen

    def _analysed(self, parts: list[Part], chosen: str) -> str:
        """The result of an upload as HTML, for the chosen sample or the first one."""
        upload = read_upload(parts)
        id_ = chosen if chosen in upload.samples else next(iter(upload.samples))
        sample = decode_sample(upload, id_, self._run.size)
        return self._result(sample, tuple(upload.samples), tuple(upload.ignored))

    def _result(self, sample: Sample, samples: tuple[str, ...] = (), ignored: tuple[str, ...] = ()) -> str:
        return render_result(analyse(self._run, sample), sample, samples, ignored)

    async def _in_thread(self, work: Callable[[], str]) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _refuse(self, request: web.Request, status: int, title: str, message: str) -> web.Response:
        response = self._answer(request, render_problem(title, message), status)
        if status == 413:
            response.force_close()  # the rest of the upload is not read
        return response

    def _answer(self, request: web.Request, result: str, status: int = 200) -> web.Response:
        """A result alone for the page's script, otherwise the page with it."""
        text = result if PART_ONLY in request.headers else self._page.render(result)
        return web.Response(text=text, status=status, content_type="text/html")


class UploadTooLargeError(Exception):
    """An upload has more bytes than the limit."""


def listen(host: str, port: int) -> socket.socket:
    """Open a socket; port 0 is any that is free.

    Raises:
        InputError: the port is in use, or the host is no address of this machine.
    """
    try:
        if not 0 <= port < 2**16:
            raise OSError(0, "ports are 0 to 65535")
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"cannot serve at {host}, port {port} ({error.strerror}): name others by --host and --port"
        ) from None


def serve(server: PageServer, opened: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM, which end it without a message."""
    web.run_app(server.application(), sock=opened, print=None, access_log=None, shutdown_timeout=1)


async def _read_field(field: BodyPartReader, limit: int) -> bytes:
    """Read a value of the form.

    Raises:
        UploadTooLargeError: it has more bytes than the limit.
    """
    data = bytearray()
    while chunk := await field.read_chunk(2**16):
        data += chunk
        if len(data) > limit:
            raise UploadTooLargeError
    return bytes(data)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def _send_file(name: str, kind: str, _request: web.Request) -> web.Response:
    return web.Response(text=(FOLDER / name).read_text(encoding="utf-8"), content_type=kind)
