# Serves a model folder over HTTP, on the CPU, as a user without rights:
#
#   docker build -t automoe .
#   docker run --rm --read-only --tmpfs /tmp -p 8080:8080 \
#       -v "$PWD/runs/demo/seed-1/train-automoe/model:/model:ro" automoe
#
# Options of `automoe serve` follow the folder: docker run ... automoe /model --precision int8

FROM python:3.13-slim-bookworm AS build
ENV PATH=/opt/automoe/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY data data
COPY recipes recipes
COPY src src
# Versions stand in pyproject.toml.
# hadolint ignore=DL3013
RUN python -m venv /opt/automoe && \
    pip install --no-cache-dir '.[runtime]'

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin automoe
COPY --from=build /opt/automoe /opt/automoe
ENV PATH=/opt/automoe/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["automoe", "serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["/model"]
