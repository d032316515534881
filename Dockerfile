# One image for `serve`, `worker` and the administration commands: no torch, no TenSEAL, no secret keys, no compiler.
# Build: docker build -t ciphershift .
# With a base image that cannot change: --build-arg PYTHON=3.11-slim-bookworm@sha256:...
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG LOCK=server
# The compiler's version follows the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/build && python -m venv /opt/ciphershift
# Every file that is fetched is one of those whose hashes stand in the locks (make locks).
COPY deploy/locks deploy/locks
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r deploy/locks/build.txt \
    && /opt/ciphershift/bin/pip install --no-cache-dir --require-hashes -r "deploy/locks/${LOCK}.txt"
COPY . .
RUN PATH=/opt/build/bin:$PATH pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/ciphershift/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:${PYTHON}
RUN useradd --uid 10000 --no-create-home --shell /usr/sbin/nologin ciphershift \
    && install -d -o ciphershift -g ciphershift /data
COPY --from=build /opt/ciphershift /opt/ciphershift
USER 10000:10000
WORKDIR /data
ENV PATH=/opt/ciphershift/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    CIPHERSHIFT_HOST=0.0.0.0 \
    CIPHERSHIFT_STORAGE=/data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["ciphershift"]
CMD ["serve"]
