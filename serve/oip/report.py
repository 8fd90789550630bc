"""What the models have done and which versions there are, as messages."""

from __future__ import annotations

from collections.abc import Mapping

from scanline.inference import open_inference_pb2 as pb
from serve.oip.models import FACES
from serve.statistics import Counts, ModelKey

READY = "READY"
UNAVAILABLE = "UNAVAILABLE"


def statistics_of(model: ModelKey, counts: Counts) -> pb.ModelStatistics:
    """Turn a model's counts into a message."""
    name, version = model

    def duration(seconds: float, count: int = counts.success) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))

    return pb.ModelStatistics(
        name=name,
        version=version,
        last_inference=round(counts.last * 1000),
        inference_count=counts.images,
        execution_count=sum(counts.runs.values()),
        inference_stats=pb.InferStatistics(
            success=duration(counts.total),
            fail=duration(counts.failed_total, sum(counts.failed.values())),
            queue=duration(counts.queue),
            compute_input=duration(counts.input),
            compute_infer=duration(counts.infer),
            compute_output=duration(counts.output),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=duration(counts.run_total[size], runs))
            for size, runs in sorted(counts.runs.items())
        ],
    )


def index_of(versions: Mapping[str, str], *, only_ready: bool) -> pb.RepositoryIndexResponse:
    """Turn what Repository.index gives into a message: each version under both of the model's names."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=name,
                version=version,
                state=UNAVAILABLE if reason else READY,
                reason=reason,
            )
            for name in FACES
            for version, reason in versions.items()
            if not (only_ready and reason)
        ]
    )
