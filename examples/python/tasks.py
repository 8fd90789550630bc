"""An application with many tasks, each of which wants one image read: their images travel together.

    python examples/python/tasks.py seven.png four.jpg
    python examples/python/tasks.py --server digits.example:50051 seven.png four.jpg

In a web application, open one AsyncClient when it starts, and close it when it ends.
Exit code: 0 done, 1 a file could not be read or there is no answer, 2 wrong use.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from scanline import AsyncClient, ScanlineError, ServiceError


async def handle(client: AsyncClient, path: str) -> bool:
    """Stand for a request's handler: it knows nothing of the others, and may be cancelled or given less time.

    Returns:
        Whether the file was read.
    """
    try:
        async with asyncio.timeout(10):
            [answer] = await client.classify(path)
    except (ServiceError, TimeoutError) as error:
        print(f"{path}: {str(error) or 'no answer within 10 seconds'}")
        return False
    if answer.error is not None:
        print(f"{path}: {answer.error}")
    elif answer.rejected:
        print(f"{path}: perhaps {answer.digit}, but {answer.reason}")
    else:
        print(f"{path}: {answer.digit}")
    return answer.error is None


async def main(server: str, paths: Sequence[str]) -> int:
    """Handle a request for each file, all at the same time; give the exit code."""
    try:
        async with AsyncClient(server) as client:
            await client.model()  # where no server answers, an application ends here and takes no request
            read = await asyncio.gather(*(handle(client, path) for path in paths))
    except ScanlineError as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, ServiceError) else 2
    return 0 if all(read) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read the digits in image files, a task for each.")
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("files", nargs="+", metavar="FILE")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.server, given.files)))
