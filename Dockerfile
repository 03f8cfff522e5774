# The image of the action, in layers by environment. Targets: `slim` has mconv, OpenVINO and the browser, `all` (the default)
# every tool. The bases are named by tag; the release workflow resolves, pins and records their digests.
ARG BASE=python:3.11-slim-bookworm
ARG NODE=node:22-bookworm-slim

FROM ${NODE} AS npm
WORKDIR /src
COPY mconv/environments/locks/browser ./
RUN npm ci --ignore-scripts --no-fund --no-audit

# mconv's own packages, in a layer before its code, which changes more often.
FROM ${BASE} AS core
ENV PATH=/opt/mconv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MCONV_ENVIRONMENTS=/opt/mconv-tools \
    UV_COMPILE_BYTECODE=1
WORKDIR /src
RUN python -m venv /opt/mconv
COPY requirements.lock pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], 'uv', sep='\n')" > core.txt \
    && pip install --constraint requirements.lock --requirement core.txt
COPY README.md LICENSE ./
COPY mconv mconv
RUN pip install --no-deps .

# A stage a tool, so that each is a layer of the image, and they are made side by side.
# npm's browser is for x64 alone. On arm64 it is left out, and web targets need a Chromium of the user's: MCONV_BROWSER names it
# in the container, and here nothing, so that the packages are made that drive such a one.
FROM core AS browser
COPY --from=npm /src/node_modules /opt/node_modules
ENV MCONV_NODE_MODULES=/opt/node_modules
RUN if [ "$(uname -m)" = x86_64 ]; then \
      mconv setup --tool browser \
      && PYTHONPATH="$(echo /opt/mconv-tools/browser-*/packages)" python -m mconv.runtimes._browser.executables; \
    else \
      MCONV_BROWSER=/nonexistent mconv setup --tool browser; \
    fi \
    && rm -r /opt/node_modules/@sparticuz
FROM core AS openvino
RUN mconv setup --tool openvino
FROM core AS pytorch
RUN mconv setup --tool pytorch
FROM core AS tensorflow
RUN mconv setup --tool tensorflow
FROM core AS jax
RUN mconv setup --tool jax
FROM core AS sklearn
RUN mconv setup --tool sklearn
FROM core AS parquet
RUN mconv setup --tool parquet --tool pictures

FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="mconv" \
      org.opencontainers.image.description="Convert, quantize and prove machine-learning models" \
      org.opencontainers.image.licenses="MIT"
# Workers load models, which is to run code: each gets a user of its own out of this range, which has no names.
# What is not in MCONV_TOOLS is installed into the runner's temporary folder, which can be cached.
ENV PATH=/opt/mconv/bin:$PATH \
    MCONV_WORKER_UIDS=20000-59999 \
    MCONV_TOOLS=/opt/mconv-tools \
    MCONV_NODE_MODULES=/opt/node_modules \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git libnss3 libnspr4 libexpat1 && rm -rf /var/lib/apt/lists/*
COPY --from=core /opt/mconv /opt/mconv
COPY entrypoint.py /opt/mconv/entrypoint.py
ENTRYPOINT ["python", "/opt/mconv/entrypoint.py"]

FROM runtime AS slim
COPY --from=openvino /opt/mconv-tools /opt/mconv-tools
COPY --from=browser /opt/mconv-tools /opt/mconv-tools
COPY --from=browser /opt/node_modules /opt/node_modules

FROM slim AS all
COPY --from=parquet /opt/mconv-tools /opt/mconv-tools
COPY --from=sklearn /opt/mconv-tools /opt/mconv-tools
COPY --from=jax /opt/mconv-tools /opt/mconv-tools
COPY --from=pytorch /opt/mconv-tools /opt/mconv-tools
COPY --from=tensorflow /opt/mconv-tools /opt/mconv-tools
