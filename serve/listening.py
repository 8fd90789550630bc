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
# A host without IPv6 may well know an IPv6 address for a name such as localhost.
ABSENT: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def refusal(listen: str, error: OSError) -> StartError:
    """Give the error that says in an operator's terms why the system refused an address."""
    known = "there is no such host" if isinstance(error, socket.gaierror) else REASONS.get(error.errno or 0)
    return StartError(f"can't listen on {listen}: {known or error.strerror}")


def probe(listen: str) -> tuple[socket.AddressFamily, Any]:
    """Hold an address, ``host:port``, for a moment and alone; give its family and the place, port 0 made a free one.

    A host such as localhost may have several; then it is the first of them that this machine has, and none is taken.

    Raises:
        StartError: it can't be had.
    """
    host, _, port = listen.rpartition(":")
    had, absent = None, None
    try:
        for family, _, _, _, place in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM):
            try:
                with socket.socket(family) as alone:
                    alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    alone.bind(place)
                    had = had or (family, alone.getsockname())
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
    except OSError as error:
        raise refusal(listen, error) from None
    if had is None:
        assert absent is not None  # a host that has no address at all is an error of getaddrinfo's
        raise refusal(listen, absent)
    return had
