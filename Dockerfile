# One small image: the base install in a virtual environment, run by a user who is not root.
# Any Debian with Python 3.11 or later will do as the base: docker compose build --build-arg BASE_IMAGE=...
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
RUN python3 -m venv /opt/scanline
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/scanline/bin/pip install --constraint constraints.txt . \
 && /opt/scanline/bin/pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE}
COPY --from=build /opt/scanline /opt/scanline
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin scanline
ENV PATH=/opt/scanline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SCANLINE_LISTEN=0.0.0.0:50051 \
    SCANLINE_LOG_FORMAT=json
USER scanline
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["scanline", "health"]
ENTRYPOINT ["scanline"]
CMD ["serve"]
