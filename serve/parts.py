"""A bound on the parts of a message, held before it is parsed.

An empty part takes two bytes of a message, and 16 (a string) to 90 (a message) once it is parsed: made of those, a
message would take 40 times the memory that there is for it (serve/sizing.py). Made of numbers of a byte each, which are
eight once they are parsed, it would take 15 times its own size with the room that the parser keeps for more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

SMALL: Final = 2**16  # bytes of a message that may be made of anything
FREE: Final = 1024  # parts of a message of any size
BYTES_PER_PART: Final = 64  # beyond those: no file is smaller that shows an image
# Wire types (protobuf.dev/programming-guides/encoding); what has no content of a known size: 0 VARINT, 3 and 4 groups.
LEN: Final = 2
LONGEST: Final = 63  # bits before the last seven of a number
FIXED: Final = {1: 8, 5: 4}
WIDE: Final = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64}  # what no model here takes more than a few of


def most(size: int) -> int:
    """Give how many parts a message of so many bytes may have."""
    return FREE + size // BYTES_PER_PART


def too_many(content: bytes, kind: Descriptor) -> bool:
    """Say whether a message has more parts than it may have: fields, and elements of repeated ones, at every depth.

    What is no message may have any answer.
    """
    if len(content) <= SMALL:
        return False
    left = most(len(content))
    inside: list[tuple[int, int, Descriptor | None]] = [(0, len(content), kind)]
    while inside:
        at, end, kind_here = inside.pop()
        # What is cut short or no message is the parser's to refuse, but only after it has made the parts before.
        with suppress(IndexError, ValueError):
            while at < end:
                left -= 1
                if left < 0:
                    return True
                tag, at = _varint(content, at)
                field, wire = tag >> 3, tag & 7
                if wire == LEN:
                    size, at = _varint(content, at)
                    known = kind_here.fields_by_number.get(field) if kind_here is not None else None
                    if known is not None and known.message_type is not None:
                        inside.append((at, at + size, known.message_type))
                    elif known is not None and known.type in WIDE:
                        left -= size  # packed, each byte may be an element
                    at += size
                elif wire == 0:
                    _, at = _varint(content, at)
                else:
                    at += FIXED.get(wire, 0)
    return left < 0


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a number; give it and where the next thing begins."""
    value = shift = 0
    while (byte := content[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if shift > LONGEST:
            raise ValueError
    return value | byte << shift, at + 1
