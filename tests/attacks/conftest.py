"""The servers of tests/faults: an attack must leave them unharmed, too."""

from tests.faults.conftest import answers, server, shared_server, transport

__all__ = ["answers", "server", "shared_server", "transport"]
