"""Reads one digit row by row, as a line camera would give it, and stops as soon as the answer is sure.

    python examples/python/rows.py seven.png
    python examples/python/rows.py --server digits.example:50051 --sure 0.999 seven.png

The server answers after each row; what is sent is what the network sees, 28 rows of 28 bytes, 0 background to 255 ink.
Exit code: 0 done, 1 the file could not be read or there is no answer, 2 wrong use.
"""

from __future__ import annotations

import argparse
import queue
import sys
from pathlib import Path

import grpc

from scanline import InputError, preprocess
from scanline.v1 import digits_pb2, digits_pb2_grpc

TIMEOUT = 10  # seconds, from the first row to the last answer


def main(server: str, file: str, sure: float) -> int:
    """Print a line a row; give the exit code."""
    try:
        rows = preprocess.to_rows(Path(file))  # uint8 [28, 28]; a camera's rows need no file
    except InputError as error:
        print(error, file=sys.stderr)
        return 1

    # What is put here is sent at once; None ends the stream.
    waiting: queue.SimpleQueue[digits_pb2.ClassifyRowsRequest | None] = queue.SimpleQueue()
    with grpc.insecure_channel(server) as channel:
        answers = digits_pb2_grpc.DigitsStub(channel).ClassifyRows(iter(waiting.get, None), timeout=TIMEOUT)
        try:
            for row in rows:
                waiting.put(digits_pb2.ClassifyRowsRequest(rows=row.tobytes()))
                answer = next(answers)
                print(f"row {answer.rows_seen:2}  {answer.digit}  {answer.confidence:6.1%}")
                if answer.confidence >= sure:
                    break
        except grpc.RpcError as error:
            print(f"no answer from {server}: {error.details()}", file=sys.stderr)
            return 1
        finally:
            waiting.put(None)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read one digit row by row.")
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--sure", type=float, default=0.99, help="stop at this confidence; default: %(default)s")
    parser.add_argument("file", metavar="FILE")
    given = parser.parse_args()
    sys.exit(main(given.server, given.file, given.sure))
