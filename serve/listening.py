"""How an address is taken, or why it can't be."""

from __future__ import annotations

import errno
import socket
from typing import Final

from scanline.errors import StartError

REASONS: Final = {
    errno.EADDRINUSE: "the port is taken",
    errno.EADDRNOTAVAIL: "the address is not this machine's",
    errno.EACCES: "this user has no right to the port; one from 1024 on needs none",
}
# A host without IPv6 may well know an IPv6 address for a name such as localhost.
ABSENT: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def bound(listen: str, purpose: str = "") -> socket.socket:
    """Take an address, ``host:port``, alone; give what holds it and does not listen yet, port 0 made a free one.

    A host such as localhost may have several; then it is the first of them that this machine has, and none is taken.

    Raises:
        StartError: it can't be had, for the purpose that is named; it says why in an operator's terms.
    """
    host, _, port = listen.rpartition(":")
    had, absent = None, None
    try:
        for family, _, _, _, place in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM):
            try:
                with socket.socket(family) as alone:
                    alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections of a server before
                    if place[0] == "::" and socket.has_dualstack_ipv6():  # all of IPv4, too, as in gRPC
                        alone.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                    alone.bind(place)
                    had = had or alone.dup()
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
        if had is None:
            assert absent is not None  # a host that has no address at all is an error of getaddrinfo's
            raise absent
    except (OSError, UnicodeError) as error:
        if had is not None:
            had.close()
        known = "there is no such host"  # UnicodeError: no name can be like that
        if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
            known = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StartError(f"can't listen on {listen}{purpose}: {known}") from None
    return had
