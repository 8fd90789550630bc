"""Reads the digits in image files with a Scanline server.

    python examples/python/classify.py 127.0.0.1:50051 seven.png four.jpg

The client takes any number of files, holds few of them in memory, and waits for a server that is full or starts again.
"""

from __future__ import annotations

import sys

from scanline import Client, ScanlineError


def main(server: str, *paths: str) -> int:
    """Print a line a file; 2 if there is no answer or no such address."""
    try:
        with Client(server, timeout=60) as client:
            for path, answer in zip(paths, client.stream(paths), strict=True):
                if answer.error is not None:
                    print(f"{path}: {answer.error}")
                elif answer.rejected:
                    print(f"{path}: perhaps {answer.digit}, but {answer.reason}")
                else:
                    print(f"{path}: {answer.digit} ({answer.confidence:.1%})")
    except ScanlineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print("usage: classify.py HOST:PORT FILE ...", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
