"""Reads the digits in image files with a Scanline server.

    python examples/python/classify.py seven.png four.jpg
    python examples/python/classify.py --server digits.example:50051 seven.png four.jpg

The client takes any number of files, holds few of them in memory, and waits for a server that is full or starts again.
Exit code: 0 done, 1 a file could not be read or there is no answer, 2 wrong use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scanline import Client, ScanlineError, ServiceError


def main(server: str, paths: Sequence[str]) -> int:
    """Print a line a file; give the exit code."""
    code = 0
    try:
        with Client(server, timeout=60) as client:
            for path, answer in zip(paths, client.stream(paths), strict=True):
                if answer.error is not None:
                    print(f"{path}: {answer.error}")
                    code = 1
                elif answer.rejected:
                    print(f"{path}: perhaps {answer.digit}, but {answer.reason}")
                else:
                    print(f"{path}: {answer.digit} ({answer.confidence:.1%})")
    except ScanlineError as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, ServiceError) else 2
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read the digits in image files.")
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("files", nargs="+", metavar="FILE")
    given = parser.parse_args()
    sys.exit(main(given.server, given.files))
