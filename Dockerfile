# One image for every process of the pipeline: `docker run IMAGE processor`, `... agent`, `... api`, `... simulate`.
#
# Build:   docker build -t gpu-token-analytics:dev .
# Behind a package mirror or an own certificate authority, hand both in without leaving them in a layer:
#          docker build --secret id=pip_conf,src=/etc/pip.conf --secret id=ca_bundle,src=/etc/ssl/certs/ca-certificates.crt ...
# There is no `syntax` line on purpose: it makes BuildKit fetch a frontend image before it reads anything else.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
# The runtime environment gets no pip of its own: nothing in the image can install anything.
RUN python -m venv /build/tools && python -m venv --without-pip /opt/gpu-tokens
COPY requirements/grpc.txt requirements/build.txt requirements/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/etc/ssl/certs/ca-certificates.crt \
    tools/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && tools/bin/pip --python /opt/gpu-tokens/bin/python install --require-hashes --only-binary :all: -r requirements/grpc.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && tools/bin/pip --python /opt/gpu-tokens/bin/python install --no-index --no-deps dist/*.whl \
 && /opt/gpu-tokens/bin/python -m compileall -q /opt/gpu-tokens/lib

FROM python:3.12-slim
LABEL org.opencontainers.image.title="gpu-token-analytics" \
      org.opencontainers.image.description="What each LLM token really costs on your own GPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/gpu-tokens /opt/gpu-tokens
# A number, not a name: Kubernetes' runAsNonRoot can only check numbers. The root file system can be mounted read-only.
USER 10001:10001
WORKDIR /var/empty
ENV PATH=/opt/gpu-tokens/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    HTTP_HOST=0.0.0.0 HTTP_PORT=8080 LOG_FORMAT=json
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["gpu-tokens"]
CMD ["processor"]
