"""The RPCs of inference.GRPCInferenceService: messages in, the core, messages out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Final

from scanline import __version__
from scanline.inference import open_inference_pb2 as pb
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from serve.core import Caller, DigitService, Pending
from serve.errors import BadRequestError, CallError, DisallowedError, ExpiredError, NotFoundError, NotReadyError
from serve.intake import Deferred, submitted
from serve.oip import convert
from serve.oip.models import FACES, config_of, face_of, index_of, metadata_of, statistics_of
from serve.settings import ServeSettings
from serve.statistics import FILES_MODEL, Statistics

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
NAME: Final = "scanline"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
# What is wrong with one request of a stream and says nothing of the next.
OF_ONE_REQUEST: Final = (BadRequestError, NotFoundError, NotReadyError, ExpiredError)


class OpenInference(GRPCInferenceServiceServicer):
    """Reads digits for clients of the Open Inference Protocol.

    Attributes:
        load: serves what is on disk now: in this process, unless others have theirs to change, too.
        unload: serves nothing, likewise.
    """

    def __init__(
        self,
        service: DigitService,
        statistics: Statistics,
        settings: ServeSettings,
        is_ready: Callable[[], bool],
    ) -> None:
        """Answer with a service.

        Args:
            service: has the versions of the model, and takes what is to be inferred.
            statistics: what the versions have done.
            settings: what the configuration tells, and whether there are admin calls.
            is_ready: says whether calls are worth sending.
        """
        self._service = service
        self._repository = service.repository
        self.load: Callable[[], None] = self._repository.load
        self.unload: Callable[[], None] = self._repository.unload
        self._statistics = statistics
        self._settings = settings
        self._is_ready = is_ready

    def ServerLive(self, request: pb.ServerLiveRequest, context: Caller) -> pb.ServerLiveResponse:
        """Say that the process answers."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: pb.ServerReadyRequest, context: Caller) -> pb.ServerReadyResponse:
        """Say whether calls are worth sending: a version of the model is served, and the server is not stopping."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    def ModelReady(self, request: pb.ModelReadyRequest, context: Caller) -> pb.ModelReadyResponse:
        """Say whether a version of a model is served; no error where there is no such model, as with Triton."""
        try:
            face_of(request.name)
            self._repository.get(request.version)
        except (NotFoundError, NotReadyError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Caller) -> pb.ServerMetadataResponse:
        """Say who answers, and what it can do."""
        return pb.ServerMetadataResponse(name=NAME, version=__version__, extensions=EXTENSIONS)

    def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Caller) -> pb.ModelMetadataResponse:
        """Say what a model takes and gives."""
        face = face_of(request.name)
        version = self._repository.get(request.version)
        versions = [version] if request.version else self._repository.served()
        return metadata_of(face, [each.name for each in versions])

    def ModelConfig(self, request: pb.ModelConfigRequest, context: Caller) -> pb.ModelConfigResponse:
        """Say how a model is served."""
        version = self._repository.get(request.version)
        return pb.ModelConfigResponse(config=config_of(face_of(request.name), version, self._settings))

    def ModelInfer(self, request: pb.ModelInferRequest, context: Caller) -> pb.ModelInferResponse:
        """Infer."""
        return self._respond(request, self._submit(request, context))

    def deferred(self) -> dict[str, Deferred | None]:
        """Give the methods that take a thread's time, in two halves where they have them.

        Reading image files takes it, and waiting for a timeout of the protocol's own, a model to be loaded, or other
        processes.
        """
        infer = Deferred(
            is_slow=lambda request: request.model_name == FILES_MODEL or convert.TIMEOUT in request.parameters,
            begin=self._submit,
            end=self._respond,
        )
        whole = ("ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
        return {f"/{SERVICE}/ModelInfer": infer, **{f"/{SERVICE}/{name}": None for name in whole}}

    def ModelStreamInfer(
        self, request_iterator: Iterator[pb.ModelInferRequest], context: Caller
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Infer in order, reading ahead while the model runs; a request that is refused does not end the stream."""
        for request, pending in submitted(request_iterator, context, self._submit):
            try:
                if isinstance(pending, CallError):
                    raise pending
                response = self._respond(request, pending)
            except OF_ONE_REQUEST as error:
                nothing = pb.ModelInferResponse(id=request.id)
                yield pb.ModelStreamInferResponse(error_message=str(error), infer_response=nothing)
            else:
                response.parameters["triton_final_response"].bool_param = True
                yield pb.ModelStreamInferResponse(infer_response=response)

    def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Caller) -> pb.ModelStatisticsResponse:
        """Say what the models have done since the start."""
        if request.name:
            face_of(request.name)
        if request.version:
            self._repository.get(request.version)
        models = self._statistics.everywhere().models
        return pb.ModelStatisticsResponse(
            model_stats=[
                statistics_of(model, counts)
                for model, counts in sorted(models.items())
                if request.name in {"", model[0]} and request.version in {"", model[1]}
            ]
        )

    def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Caller) -> pb.RepositoryIndexResponse:
        """List all versions that are known."""
        return index_of(self._repository.index(), only_ready=request.ready)

    def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Caller
    ) -> pb.RepositoryModelLoadResponse:
        """Serve what is on disk now, under both of the model's names."""
        self._check_admin(request.model_name)
        if request.parameters:
            raise BadRequestError("load takes no parameters here: the model and its settings come from the folder")
        self.load()
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Caller
    ) -> pb.RepositoryModelUnloadResponse:
        """Serve nothing, under neither of the model's names."""
        self._check_admin(request.model_name)
        self.unload()
        return pb.RepositoryModelUnloadResponse()

    def _check_admin(self, name: str) -> None:
        if not self._settings.admin:
            raise DisallowedError("loading and unloading is switched off; start the server with --admin to allow it")
        face_of(name)

    def _submit(self, message: pb.ModelInferRequest, context: Caller, over: Event | None = None) -> Pending:
        face = face_of(message.model_name)
        convert.wanted_of(message, face)  # refused before the model is troubled
        timeout, images = convert.timeout_of(message), convert.images_of(message, face, self._settings.max_images)
        return self._service.submit(context, images, message.model_version, timeout=timeout, over=over)

    def _respond(self, message: pb.ModelInferRequest, pending: Pending) -> pb.ModelInferResponse:
        answers = pending.result()
        return convert.response_of(message, FACES[message.model_name], answers, pending.version.name)
