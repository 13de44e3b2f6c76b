# The bridge, the consumers and (target `simulator`) the simulator, each as `python -m …`:
#
#   docker build -t backpack-bridge .
#   docker build -t backpack-simulator --target simulator .
#
# Packages come locked and by hash; the stage that installs them stays behind.

FROM python:3.11-slim AS packages
WORKDIR /build
RUN python -m venv --without-pip /venv
COPY requirements/runtime.txt requirements/
RUN python -m pip --python /venv/bin/python install --no-cache-dir --no-compile \
    --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/runtime.txt
RUN python -m compileall -q /venv

FROM packages AS simulator-packages
COPY requirements/simulator.txt requirements/
RUN python -m pip --python /venv/bin/python install --no-cache-dir \
    --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/simulator.txt

FROM python:3.11-slim AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin bridge
WORKDIR /app
ENTRYPOINT ["python", "-m"]

FROM base AS simulator
COPY --from=simulator-packages /venv /venv
COPY simulator/ simulator/
RUN python -m compileall -q simulator
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/api/v1/status', timeout=4)"]
CMD ["simulator", "--host", "0.0.0.0", "--port", "8000"]

# The last stage is what `docker build` makes when no target is named.
FROM base AS bridge
COPY --from=packages /venv /venv
COPY LICENSE .env.example ./
COPY config.yaml config/
RUN ln -s config/config.yaml config.yaml
COPY backpack_bridge/ backpack_bridge/
COPY bridge/ bridge/
COPY consumers/ consumers/
RUN python -m compileall -q backpack_bridge bridge consumers && mkdir -m 700 data && chown 10001 data
USER 10001
VOLUME /app/data
# Healthy: the bridge (or the worker, with --health 127.0.0.1:9464) of this container does its work.
ENV BRIDGE_METRICS__LISTEN=127.0.0.1:9464
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; ask = http.client.HTTPConnection('127.0.0.1', 9464, timeout=4); ask.request('GET', '/readyz'); told = ask.getresponse(); print(told.read().decode()); sys.exit(told.status != 200)"]
CMD ["bridge", "run"]
