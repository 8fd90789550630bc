"""The model as the Open Inference Protocol sees it: two names, for images in the network's form and for files.

What it takes and gives, how it is served, which versions there are and what they have done, as messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scanline.contract import CLASSES, COLUMNS, INPUT_NAME, METADATA_PREFIX, OUTPUT_NAME, ROWS
from scanline.inference import open_inference_pb2 as pb
from serve.errors import NotFoundError
from serve.folder import Policy
from serve.repository import Version
from serve.settings import ServeSettings
from serve.statistics import FILES_MODEL, ROWS_MODEL, Counts, ModelKey

PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
READY: Final = "READY"
UNAVAILABLE: Final = "UNAVAILABLE"
FREE: Final = -1  # a size that the request decides

LOGITS: Final = OUTPUT_NAME
PROBABILITIES: Final = "probabilities"
DIGIT: Final = "digit"
REJECTED: Final = "rejected"
ERROR: Final = "error"

# The enumeration in which ModelConfig names the types that everything else names in words.
CONFIGURED: Final = {
    "FP32": pb.TYPE_FP32,
    "UINT8": pb.TYPE_UINT8,
    "INT64": pb.TYPE_INT64,
    "BOOL": pb.TYPE_BOOL,
    "BYTES": pb.TYPE_STRING,
}


Tensor = pb.ModelMetadataResponse.TensorMetadata
Face = pb.ModelMetadataResponse  # a name under which the model is asked, and what it takes and gives


def _tensor(name: str, datatype: str, *shape: int) -> Tensor:
    """Describe an input or output by its sizes after the first, which is the number of images."""
    return Tensor(name=name, datatype=datatype, shape=[FREE, *shape])


_ANSWERS: Final = (
    _tensor(LOGITS, "FP32", CLASSES),
    _tensor(PROBABILITIES, "FP32", CLASSES),
    _tensor(DIGIT, "INT64"),
    _tensor(REJECTED, "BOOL"),
)
FACES: Final = {
    face.name: face
    for face in (
        Face(name=ROWS_MODEL, platform=PLATFORM, inputs=[_tensor(INPUT_NAME, "FP32", ROWS, COLUMNS)], outputs=_ANSWERS),
        # An image that can't be read is an error of its own: digit -1, rejected, all numbers 0.
        Face(
            name=FILES_MODEL,
            platform=PLATFORM,
            inputs=[_tensor("image", "BYTES")],
            outputs=[*_ANSWERS, _tensor(ERROR, "BYTES")],
        ),
    )
}


def face_of(name: str) -> Face:
    """Give the face of a name.

    Raises:
        NotFoundError: there is no such model.
    """
    face = FACES.get(name)
    if face is None:
        raise NotFoundError(f"there is no model {name[:64]!r}; there are {' and '.join(FACES)}")
    return face


def metadata_of(face: Face, versions: list[str]) -> pb.ModelMetadataResponse:
    """Say what a model takes and gives."""
    described = pb.ModelMetadataResponse(versions=versions)
    described.MergeFrom(face)
    return described


def config_of(face: Face, version: Version, settings: ServeSettings) -> pb.ModelConfig:
    """Say how a model is served."""
    # Whether the first size counts requests that could come alone, as load generators think of them: the sizes leave it
    # out then. Load generators can't make BYTES without a size.
    is_batch = face.name == ROWS_MODEL
    config = pb.ModelConfig(
        name=face.name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=_policy_of(Policy.parse(settings.model_versions)),
        instance_group=[
            pb.ModelInstanceGroup(name=face.name, count=settings.instances, kind=pb.ModelInstanceGroup.KIND_CPU)
        ],
        parameters={
            key.removeprefix(METADATA_PREFIX): pb.ModelParameter(string_value=value)
            for key, value in version.card.to_metadata().items()
        },
    )
    for tensor, add in ((face.inputs[0], config.input.add), *((output, config.output.add) for output in face.outputs)):
        add(name=tensor.name, data_type=CONFIGURED[tensor.datatype], dims=tensor.shape[is_batch:])
    if is_batch:
        config.max_batch_size = settings.max_images
        batching = config.dynamic_batching
        batching.preferred_batch_size.append(settings.max_batch_size)
        batching.max_queue_delay_microseconds = round(settings.max_queue_delay * 1e6)
        batching.default_queue_policy.max_queue_size = settings.max_queue_images
    return config


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
                name=name, version=version, state=UNAVAILABLE if reason else READY, reason=reason
            )
            for name in FACES
            for version, reason in versions.items()
            if not (only_ready and reason)
        ]
    )


def _policy_of(policy: Policy) -> pb.ModelVersionPolicy:
    if policy.listed:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=sorted(policy.listed)))
    if policy.latest is None:
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest))
