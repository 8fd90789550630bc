# Two images: `serve`, the base install and the last stage, and `train`, with torch for training and exporting.
# `make image` builds the first with its labels filled in, `docker compose --profile train build` both.
# Any Debian with Python 3.11 or later will do as the base: docker compose build --build-arg BASE_IMAGE=...
ARG BASE_IMAGE=python:3.11-slim-bookworm

# What is installed comes as wheels alone, each checked by its hash: no compiler is needed, and none is there.
FROM ${BASE_IMAGE} AS wheels
RUN python3 -m venv /opt/build
COPY deploy/lock/build.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip install --only-binary :all: --require-hashes --requirement /lock/build.txt
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scanline scanline
COPY train train
COPY export export
COPY serve serve
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${BASE_IMAGE} AS install
RUN python3 -m venv /opt/scanline
COPY deploy/lock/base.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/scanline/bin/pip install --only-binary :all: --require-hashes --requirement /lock/base.txt
COPY --from=wheels /wheels /wheels
RUN /opt/scanline/bin/pip install --no-deps --no-index /wheels/*.whl \
 && /opt/scanline/bin/pip check \
 && /opt/scanline/bin/pip uninstall --yes setuptools pip

# TORCH=cuda is what the package index has, and runs on hosts with and without a GPU. TORCH=cpu is a tenth of the size;
# that build of torch comes from PyTorch's own index (build argument PIP_EXTRA_INDEX_URL) or lies in deploy/wheels.
FROM ${BASE_IMAGE} AS install-train
ARG TORCH=cuda
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv /opt/scanline
COPY deploy/lock/train-${TORCH}.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=deploy,target=/deploy \
    /opt/scanline/bin/pip install --only-binary :all: --require-hashes --requirement /lock/train-${TORCH}.txt \
      --find-links /deploy/wheels
COPY --from=wheels /wheels /wheels
RUN /opt/scanline/bin/pip install --no-deps --no-index /wheels/*.whl \
 && /opt/scanline/bin/pip check \
 && /opt/scanline/bin/pip uninstall --yes pip

# What both images share. pip goes, wherever the base keeps it (python.org's layout or Debian's).
FROM ${BASE_IMAGE} AS runtime
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/lib/python3/dist-packages/pip* /usr/lib/python3/dist-packages/wheel* \
      /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels /usr/local/bin/pip* /usr/bin/pip* \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin scanline \
 && install -d -o scanline /runs /models
# A new volume for models begins with edge as version 1: the files, without the folder of accurate.
COPY --from=wheels --chown=scanline /src/scanline/models/*.* /models/1/
ARG VERSION=unreleased
ARG REVISION=
ARG SOURCE=
ARG MODEL_SHA256=
LABEL org.opencontainers.image.title=Scanline \
      org.opencontainers.image.description="Reads handwritten digits, over gRPC" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.licenses=Apache-2.0 \
      scanline.model.sha256=$MODEL_SHA256
ENV PATH=/opt/scanline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SCANLINE_LISTEN=0.0.0.0:50051 \
    SCANLINE_LOG_FORMAT=json
STOPSIGNAL SIGTERM
ENTRYPOINT ["scanline"]

FROM runtime AS train
COPY --from=install-train /opt/scanline /opt/scanline
USER 10001
CMD ["train", "--help"]

FROM runtime AS serve
COPY --from=install /opt/scanline /opt/scanline
USER 10001
EXPOSE 50051
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["scanline", "health"]
CMD ["serve"]
