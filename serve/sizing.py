"""How large messages, pictures and crowds may be, by default, in the memory that there is.

Whatever callers send, the sum of what the server holds for them must stay below its limit: a kernel that runs out of
memory ends the process and with it everybody's calls. So what is left beside the server itself is shared out: to the
calls that may be under way, each with the largest message; to the largest pictures, of which each run of the model may
have one; to the streams. The rest is for connections, which cost up to 0.4 MB each while refused messages come in on
them. Workers that share a port share the memory and the cores. `docs/edge.md` has the outcome for some sizes,
tests/compose tries it.
"""

from __future__ import annotations

from typing import Final

from scanline.decode import MAX_PIXELS
from scanline.machine import cores, memory

MIB: Final = 2**20
# The interpreter, the packages, the models and what the allocators keep: 105 to 140 MB were seen.
SERVER: Final = 120 * MIB
LEAST_ROOM: Final = 24 * MIB
AMPLE: Final = 4096 * MIB
FOR_CALLS: Final = 0.3
FOR_PICTURES: Final = 0.2
FOR_STREAMS: Final = 0.2
BYTES_PER_MESSAGE_BYTE: Final = 2  # as it came, and as Python has it
BYTES_PER_PIXEL: Final = 12  # while a picture in colour is decoded, turned upright and made opaque
MESSAGES_PER_STREAM: Final = 14  # what a stream was seen to hold: it is read ahead of its answers
MESSAGE: Final = (MIB, 16 * MIB)  # at least 1,024 images of 784 bytes
USUAL: Final = 8 * MIB  # a photograph: what is left beyond it is for more callers first, then for larger messages
CROWD: Final = 128  # callers at once for which there should be room, at the price of smaller messages
CALLS: Final = (8, 1024)
STREAMS: Final = (1, 32)
PIXELS: Final = (MIB, MAX_PIXELS)


def max_message_bytes(workers: int) -> int:
    """Give the most bytes in a message."""
    room = _for_messages(workers)
    return _within(MESSAGE, max(min(room / CROWD, USUAL), room / CALLS[1]) // MIB * MIB)


def max_calls(workers: int) -> int:
    """Give the most calls under way."""
    return _within(CALLS, _for_messages(workers) / max_message_bytes(workers))


def max_streams(workers: int) -> int:
    """Give the most streams that are open at once."""
    return _within(STREAMS, _room(workers) * FOR_STREAMS / MESSAGES_PER_STREAM / max_message_bytes(workers))


def max_pixels(workers: int) -> int:
    """Give the most pixels of a picture, of which as many are decoded at once as there are instances."""
    return _within(PIXELS, _for_pictures(workers) / instances(workers))


def instances(workers: int) -> int:
    """Give how many runs of the model there may be at once: one a core, and for each room for a picture."""
    return _within((1, max(1, cores() // workers)), _for_pictures(workers) / PIXELS[0])


def may_read_ahead(workers: int) -> bool:
    """Say whether gRPC may take to reading ahead on fast connections, megabytes on each, which nothing bounds.

    Without it, 156 calls of 1 MiB take 105 MB instead of 230; large messages come at about a third of the speed.
    """
    return memory() // workers >= AMPLE


def _room(workers: int) -> int:
    return max(memory() // workers - SERVER, LEAST_ROOM)


def _for_pictures(workers: int) -> float:
    """Give how many pixels may be decoded at once."""
    return _room(workers) * FOR_PICTURES / BYTES_PER_PIXEL


def _for_messages(workers: int) -> float:
    return _room(workers) * FOR_CALLS / BYTES_PER_MESSAGE_BYTE


def _within(bounds: tuple[int, int], value: float) -> int:
    return int(min(max(value, bounds[0]), bounds[1]))
