"""Where a command's answers come from: a model in this process, or a running server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scanline.errors import UsageError

if TYPE_CHECKING:
    from scanline.client import Client
    from scanline.reader import Reader


def engine(model: Path | None, server: str | None, min_confidence: float | None) -> Reader | Client:
    """Give a client of the server where one is named, else a reader of the model; only that one's packages are loaded.

    Args:
        model: a model file or a folder of exported files; None for the model that ships.
        server: ``HOST:PORT``.
        min_confidence: answers of less confidence are rejected; None for the bound in the model's card.

    Raises:
        UsageError: both are given.
        ModelError: the model can't be used.
    """
    if server is None:
        from scanline.reader import Reader

        return Reader(model, min_confidence=min_confidence)
    if model is not None:
        raise UsageError("--model and --server exclude each other: a server answers with its own model")

    from scanline.client import Client

    return Client(server, min_confidence=min_confidence)
