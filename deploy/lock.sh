#!/bin/sh
# Make the three lock files anew from pyproject.toml, with uv in a throw-away environment.
# One resolution serves all: the largest is solved first and constrains the others.
set -eu
cd "$(dirname "$0")/.."
sh deploy/venv.sh requirements-run.txt
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT INT TERM
.venv/bin/python -m venv "$tool"
"$tool/bin/python" -m pip install --disable-pip-version-check --quiet uv

compile() {
    output=$1
    shift
    # No addresses: a lock must say what is installed, not where one machine fetched it.
    "$tool/bin/uv" pip compile pyproject.toml --quiet --universal --generate-hashes --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --no-header --output-file "$output" "$@"
}
compile requirements-dev.txt --extra run --group dev "$@"
compile requirements-run.txt --extra run --constraint requirements-dev.txt "$@"
compile requirements.txt --constraint requirements-dev.txt "$@"
