"""The health of the server and of its services, as grpc.health.v1 has it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from serve import digits
from serve.core import when_over
from serve.oip import servicer as oip

NAMES: Final = ("", digits.SERVICE, oip.SERVICE)  # under which it is asked for; "" is the whole server
UNKNOWN: Final = health_pb2.HealthCheckRequest(service="?")


class Health(health.HealthServicer):  # type: ignore[misc] # grpc_health ships no types
    """grpc_health's, which keeps to the end each name that Watch is asked for; here all but ours are kept as one."""

    def __init__(self) -> None:
        """Begin as NOT_SERVING."""
        # In its non-blocking form Watch waits for its message to be sent while it holds a lock that gRPC's only thread
        # wants when another watcher goes: both wait for ever. The loop transport calls it in a form of its own.
        super().__init__(experimental_non_blocking=False)
        self.tell(is_serving=False)

    def tell(self, *, is_serving: bool) -> None:
        """Say from now on whether calls are worth sending."""
        state = health_pb2.HealthCheckResponse
        for name in NAMES:
            self.set(name, state.SERVING if is_serving else state.NOT_SERVING)

    def List(self, _: health_pb2.HealthListRequest, context: grpc.ServicerContext) -> health_pb2.HealthListResponse:
        """Tell the health of all there is; grpc_health's class does not have it."""
        asked = {name: health_pb2.HealthCheckRequest(service=name) for name in NAMES}
        return health_pb2.HealthListResponse(statuses={name: self.Check(asked[name], context) for name in NAMES})

    def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, *say: Any) -> Any:
        """Tell of a service's health whenever it changes."""
        # all of a call that grpc_health's uses; by itself it does not look whether the call is over already
        call = SimpleNamespace(add_callback=partial(when_over, context))
        return super().Watch(request if request.service in NAMES else UNKNOWN, call, *say)
