# One image for the API, the worker and the stand-in model server; they differ by their command.
# No BuildKit syntax: the builder of Debian's docker.io is the old one.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
COPY requirements.txt /tmp/
# pip works from outside on a virtual environment without pip: what runs needs no installer.
# Wheels only: nothing of a dependency is executed while building, and no compiler is wanted.
RUN python -m venv --without-pip /opt/rejoin \
 && python -m pip --python /opt/rejoin/bin/python install \
        --no-cache-dir --require-hashes --only-binary :all: -r /tmp/requirements.txt

FROM ${PYTHON_IMAGE}
# The root file system is meant to be mounted read-only, so everything is compiled here.
ENV PATH=/opt/rejoin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /opt/rejoin /opt/rejoin
WORKDIR /srv/rejoin
COPY api api
COPY worker worker
COPY shared shared
RUN python -m compileall -q api worker shared
# A number, so that an orchestrator can see without a password file that this is not root.
USER 10001:10001
CMD ["python", "-m", "api"]
