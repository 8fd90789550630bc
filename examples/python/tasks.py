"""An application with many tasks, each of which wants one image read: their images travel together.

    python examples/python/tasks.py 127.0.0.1:50051 seven.png four.jpg

In a web application, open one AsyncClient when it starts, and close it when it ends.
"""

from __future__ import annotations

import asyncio
import sys

from scanline import AsyncClient, ScanlineError, ServiceError


async def handle(client: AsyncClient, path: str) -> None:
    """Stand for a request's handler: it knows nothing of the others, and may be cancelled or given less time."""
    try:
        async with asyncio.timeout(10):
            [answer] = await client.classify(path)
    except (ServiceError, TimeoutError) as error:
        print(f"{path}: {str(error) or 'no answer within 10 seconds'}")
        return
    if answer.error is not None:
        print(f"{path}: {answer.error}")
    elif answer.rejected:
        print(f"{path}: perhaps {answer.digit}, but {answer.reason}")
    else:
        print(f"{path}: {answer.digit}")


async def main(server: str, *paths: str) -> int:
    """Handle a request for each file, all at the same time; 2 if there is no such address."""
    try:
        async with AsyncClient(server) as client, asyncio.TaskGroup() as requests:
            for path in paths:
                requests.create_task(handle(client, path))
    except ScanlineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print("usage: tasks.py HOST:PORT FILE ...", file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
