# The server alone: no torch, no TenSEAL, no secret keys. Build: docker build -t ciphershift .
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python -m venv /opt/ciphershift && /opt/ciphershift/bin/pip install --no-cache-dir -c constraints.txt '.[server]'

FROM python:3.11-slim
RUN useradd --uid 10000 --create-home ciphershift && install -d -o ciphershift /data
COPY --from=build /opt/ciphershift /opt/ciphershift
USER ciphershift
ENV PATH=/opt/ciphershift/bin:$PATH CIPHERSHIFT_HOST=0.0.0.0 CIPHERSHIFT_STORAGE=/data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
CMD ["python", "-m", "server"]
