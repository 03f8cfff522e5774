# The image of the action. The base is named by tag; the release workflow resolves, pins and records its digest.
ARG BASE=python:3.11-slim-bookworm
ARG NODE=node:22-bookworm-slim

FROM ${NODE} AS browser
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-fund --no-audit

FROM ${BASE} AS build
# PyTorch's CPU wheels are on an index of their own; an empty value takes pip's own configuration.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/mconv
COPY requirements.lock /src/
RUN /opt/mconv/bin/pip install ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY mconv /src/mconv
RUN /opt/mconv/bin/pip install --no-deps /src
COPY --from=browser /src/node_modules /browser/node_modules
WORKDIR /browser
RUN /opt/mconv/bin/python -c "from mconv.runtimes import _browser; print(_browser.find_browser())" \
    && rm -r node_modules/@sparticuz

FROM ${BASE}
LABEL org.opencontainers.image.title="mconv" \
      org.opencontainers.image.description="Convert, quantize and prove machine-learning models" \
      org.opencontainers.image.licenses="MIT"
# Workers load models, which is to run code: they get a uid of their own.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mconv
ENV PATH=/opt/mconv/bin:$PATH \
    MCONV_WORKER_UID=10001 \
    MCONV_NODE_MODULES=/opt/node_modules \
    MCONV_BROWSER=/opt/node_modules/.mconv-chromium/chromium \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git libnss3 libnspr4 libexpat1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/mconv /opt/mconv
COPY --from=build /browser/node_modules /opt/node_modules
COPY entrypoint.py /opt/mconv/entrypoint.py
ENTRYPOINT ["python", "/opt/mconv/entrypoint.py"]
