"""A local web page to try the models of a finished run: ``python -m pipeline app``.

Drop four images, a zip or an RGB composite on the page, or choose an example. It shows the four channels, the colour
composite, the probabilities with their thresholds, a map for each label, the most similar training images, and warns
where the images are unlike the training images. The inference path is that of `predict`.

The page is served at 127.0.0.1, so that other machines cannot reach it. Uploads are limited in size, stay in memory and
are not kept; nothing is loaded from elsewhere.

Reads ``pack`` (size), ``tta`` and ``data`` of params.yaml, the models, and, where they are there, blend/ and
reference.npz beside their folder and the packed images. Needs the package of requirements-app.txt.
"""

import argparse
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.app.analysis import analyse
from pipeline.app.served_run import ServedRun, load_run
from pipeline.app.uploads import Sample
from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.labels import CHANNELS
from pipeline.core.optional_packages import check_installed
from pipeline.core.progress import say

LIMIT_MB = 64
"""Of an upload: four images of 2048 px and 8 bits without compression take 16 MB."""


def warm_up(run: ServedRun) -> None:
    """Analyse an image, since the first one takes longer: libraries are loaded and memory is allocated."""
    if run.packed is not None and run.packed.examples:
        sample = run.packed.sample(run.packed.examples[0])
    else:
        noise = np.random.default_rng(0).integers(0, 256, (run.size, run.size, len(CHANNELS)), dtype=np.uint8)
        sample = Sample("warm-up", noise, CHANNELS, run.size, dict.fromkeys(CHANNELS, (0.5, 0.3, 0.0)))
    analyse(run, sample)


def is_local(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main(arguments: Sequence[str]) -> None:
    """Serve the page."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline app",
        description="A local web page to try the models of a finished run on images: probabilities, maps, similar "
        "training images, and a warning where an image is unlike them.",
        epilog="Ctrl-C ends it. Nothing that is uploaded is kept.",
    )
    parser.add_argument("--models", default=Path("models"), type=Path, help="folder of models (default: models)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at; 0.0.0.0 lets other machines use the page (default: %(default)s, this machine only)",
    )
    parser.add_argument("--port", default=8000, type=int, help="0 is any free one (default: %(default)s)")
    parser.add_argument(
        "--limit-mb", default=LIMIT_MB, type=int, metavar="MB", help="of an upload (default: %(default)s)"
    )
    parsed = parser.parse_args(arguments)
    if parsed.limit_mb < 1:
        raise InputError(f"--limit-mb {parsed.limit_mb}: give at least 1")
    check_installed("the page", ("aiohttp",), "requirements-app.txt")
    from pipeline.app import server

    settings = params.load()
    with server.listen(parsed.host, parsed.port) as opened:
        run = load_run(parsed.models, settings)
        warm_up(run)
        if not is_local(parsed.host):
            say(f"warning: whoever can reach {parsed.host} can use this page; without --host, only this machine can")
        names = frozenset({"localhost", parsed.host.lower(), socket.gethostname().lower()})
        page = server.PageServer(run, limit=parsed.limit_mb << 20, names=names)
        host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        print(f"http://{host}:{opened.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        server.serve(page, opened)
