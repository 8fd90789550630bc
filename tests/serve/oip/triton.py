"""What Triton's own Python client does, in an environment of its own: `python triton.py HOST:PORT IMAGES.npy FILE ...`.

It calls in every way that tritonclient[grpc] has and prints what came back as JSON. The images are uint8 [n, 28, 28].
"""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

PATIENCE = 30.0


def tensor(name: str, datatype: str, values: NDArray[Any]) -> triton.InferInput:
    result = triton.InferInput(name, [*values.shape], datatype)
    result.set_data_from_numpy(values)
    return result


def numbers(result: triton.InferResult, *names: str) -> dict[str, Any]:
    return {name: result.as_numpy(name).tolist() for name in names or ("logits", "probabilities", "digit", "rejected")}


def status(call: Callable[[], object]) -> str:
    """Make a call that is refused; give the status and the words."""
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "no error"


def streamed(client: triton.InferenceServerClient, requests: list[Any]) -> list[Any]:
    """Send requests on a stream; give the digits of each, or its error."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put(error or result))
    for number, inputs in enumerate(requests):
        client.async_stream_infer("digits", inputs, request_id=str(number))
    found = [answers.get(timeout=PATIENCE) for _ in requests]
    client.stop_stream()
    return [
        each.message() if isinstance(each, InferenceServerException) else numbers(each, "digit")["digit"]
        for each in found
    ]


def async_infer(client: triton.InferenceServerClient, inputs: list[triton.InferInput]) -> dict[str, Any]:
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer("digits", inputs, callback=lambda result, error: answers.put(error or result))
    return numbers(answers.get(timeout=PATIENCE))


def reload(client: triton.InferenceServerClient) -> list[bool]:
    """Take the model out of service and back; say whether it is ready after each."""
    states = []
    for change in (client.unload_model, client.load_model):
        change("digits")
        states.append(client.is_model_ready("digits"))
    return states


def main() -> None:
    address, images, *files = sys.argv[1:]
    pixels = np.load(images)
    rows = (pixels / np.float32(255)).astype(np.float32)
    fp32, uint8 = [tensor("rows", "FP32", rows)], [tensor("rows", "UINT8", pixels)]
    contents = np.array([Path(file).read_bytes() for file in files], np.object_)
    wrong = [tensor("rows", "FP32", rows.reshape(len(rows), 784))]
    best = [triton.InferRequestedOutput("probabilities", class_count=2), triton.InferRequestedOutput("digit")]
    with triton.InferenceServerClient(address) as client:
        first = client.infer("digits", fp32, request_id="mine")
        report = {
            "live": [client.is_server_live(), client.is_server_ready()],
            "ready": [
                client.is_model_ready(*model) for model in (("digits",), ("digits-image", "1"), ("digits", "9"), ("x",))
            ],
            "server": client.get_server_metadata(as_json=True),
            "metadata": client.get_model_metadata("digits", as_json=True),
            "config": client.get_model_config("digits", as_json=True)["config"],
            "index": client.get_model_repository_index(as_json=True)["models"],
            "id": first.get_response().id,
            "fp32": numbers(first),
            "uint8": numbers(client.infer("digits", uint8, model_version="1")),
            "async": async_infer(client, fp32),
            "classes": client.infer("digits", fp32, outputs=best).as_numpy("probabilities").astype(str).tolist(),
            "files": numbers(client.infer("digits-image", [tensor("image", "BYTES", contents)]), "digit", "error"),
            "stream": streamed(client, [fp32, wrong, uint8]),
            "statistics": client.get_inference_statistics("digits", "1", as_json=True)["model_stats"],
            "refused": [
                status(lambda: client.infer("digits", wrong)),
                status(lambda: client.infer("digits", fp32, model_version="9")),
                status(client.get_trace_settings),
                status(client.get_log_settings),
                status(client.get_system_shared_memory_status),
            ],
            "reload": status(lambda: client.unload_model("digits")),
        }
        if report["reload"] == "no error":
            client.load_model("digits")
            report["reload"] = reload(client)
    sys.stdout.write(json.dumps(report, default=lambda value: value.decode()))


if __name__ == "__main__":
    main()
