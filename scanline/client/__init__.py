"""Reading digits with servers, over gRPC: `Client` for threads, `AsyncClient` for tasks.

blocking.py    Client
tasks.py       AsyncClient
gather.py      puts what tasks send at the same time into common messages
connection.py  addresses, channels; every call goes through it
call.py        one call with its attempts, and the errors that it can end with
messages.py    images to requests, responses to predictions
"""

from scanline.client.blocking import Client
from scanline.client.tasks import AsyncClient
from scanline.tls import Tls

__all__ = ["AsyncClient", "Client", "Tls"]
