"""What `python -m benchmarks.export.speed` holds the export against."""

from __future__ import annotations

import onnx
import pytest

from benchmarks.export.speed import ARCHITECTURES, contents


@pytest.mark.parametrize(
    ("preset", "weights"),
    [("seed", [[28, 128], [512, 128], [512, 128], [10, 128]]), ("edge", [[504, 28], [504, 126], [10, 126]])],
)
def test_the_plain_export_is_of_the_network_as_it_is_written_down(preset: str, weights: list[list[int]]) -> None:
    graph = onnx.load_from_string(contents(ARCHITECTURES[preset])["plain export"]).graph
    large = [list(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] > 1]
    assert sorted(large) == sorted(weights)  # the projection is by itself, and no unit is beside the network's own
