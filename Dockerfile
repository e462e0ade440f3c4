# ilx for CPUs, NVIDIA GPUs and TPUs:
#
#   docker build --target=cpu  -t ilx:cpu  .
#   docker build --target=cuda -t ilx:cuda .
#   docker build --target=tpu  -t ilx:tpu  .
#   docker run --rm -v "$PWD/runs:/runs" ilx:cpu python -m experiments.main --config=experiments/configs/bc.py
#
# Runs and datasets are in /runs, which the user 1000 must be able to write to. GPUs need --gpus=all, no CUDA in the image
# (jax brings its own), only the host's driver.
ARG PYTHON=python:3.12-slim-bookworm

# What a run needs of the system: a user, an init that hands on SIGTERM, EGL for videos.
FROM ${PYTHON} AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libegl-mesa0 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home ilx \
    && install --directory --owner=ilx --group=ilx /runs
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# The dependencies, in layers that changes of the code leave as they are.
FROM base AS packages-cpu
WORKDIR /ilx
COPY pyproject.toml .
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *p['optional-dependencies']['data'], sep='\n')" > /requirements.txt \
    && python3 -m venv /venv \
    && pip install --requirement /requirements.txt

FROM packages-cpu AS packages-cuda
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install "jax[cuda12]"

FROM packages-cpu AS packages-tpu
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install "jax[tpu]"

FROM base AS code
WORKDIR /ilx
COPY . .
RUN ln -s /runs runs
ENV ILX_DATA_DIR=/runs/data
USER 1000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "experiments.main", "--help"]

FROM code AS cuda
COPY --from=packages-cuda /venv /venv
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM code AS tpu
COPY --from=packages-tpu /venv /venv

# Without --target.
FROM code AS cpu
COPY --from=packages-cpu /venv /venv
