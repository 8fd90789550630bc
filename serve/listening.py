"""Why an address can't be listened on."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from scanline.errors import StartError

REASONS: Final = {
    errno.EADDRINUSE: "the port is taken",
    errno.EADDRNOTAVAIL: "the address is not this machine's",
    errno.EACCES: "this user has no right to the port; one from 1024 on needs none",
}


def refusal(listen: str, error: OSError) -> StartError:
    """Give the error that says in an operator's terms why the system refused an address."""
    known = "there is no such host" if isinstance(error, socket.gaierror) else REASONS.get(error.errno or 0)
    return StartError(f"can't listen on {listen}: {known or error.strerror}")


def probe(listen: str) -> tuple[socket.AddressFamily, Any]:
    """Hold an address, ``host:port``, for a moment and alone; give its family and the place, port 0 made a free one.

    Raises:
        StartError: it can't be had.
    """
    host, _, port = listen.rpartition(":")
    try:
        family, _, _, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
            return family, alone.getsockname()
    except OSError as error:
        raise refusal(listen, error) from None
