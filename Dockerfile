# One image for API, persister and migrations; which one it is, the command says:
#   docker build -t crossbook .
#   docker run crossbook serve | persist | migrate
FROM python:3.12-slim-bookworm AS packages

# For gunicorn's C parser, which is published as source only. Stays in this stage.
# hadolint ignore=DL3008  # the base image's tag decides the version
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY requirements.txt Makefile ./
# What stands above the marker line, and the parser at the version that the Makefile names.
RUN sed '/^# --- not needed in the container image ---$/,$d' requirements.txt > image.txt \
    && sed -n 's/^FAST_PARSER := //p' Makefile >> image.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r image.txt
# The page's chart library, checked against its pinned hash, into the environment.
COPY app/web/chart_library.py ./
RUN /opt/venv/bin/python chart_library.py

FROM python:3.12-slim-bookworm

# Nothing here needs a home or a shell, only not to be root.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin crossbook

COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/crossbook
COPY app app
COPY lua lua
COPY db db

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/tmp/crossbook \
    LOG_FORMAT=json \
    PORT=3000

USER 10001
EXPOSE 3000
# Whether the API can take orders, as docker-compose.yml asks; slim has no curl. Not urlopen, which
# follows redirects and believes the environment's proxies. Docker only shows the result; where
# something replaces what is unhealthy, let it ask /healthz: a Redis that is away is no reason.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, sys, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
