#!/bin/sh
# Make .venv hold exactly what one lock file names: `deploy/venv.sh requirements-run.txt`.
# Looks for a Python >= 3.11 by itself; an existing .venv that still works is kept and brought up to date.
set -eu
cd "$(dirname "$0")/.."
lock=$1

works='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
recent='import sys; sys.exit(sys.version_info < (3, 11))'

if ! .venv/bin/python -c "$works" 2>/dev/null; then
    chosen='' without_venv=''
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        # A name may be there and still not run (a version manager's stand-in), so each is tried.
        if "$python" -c "$works" 2>/dev/null; then chosen=$python; break; fi
        if "$python" -c "$recent" 2>/dev/null; then without_venv=$python; fi
    done
    if [ -z "$chosen" ]; then
        if [ -n "$without_venv" ]; then
            echo "Rejoin: $without_venv has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2
        else
            echo "Rejoin: no Python >= 3.11 found (tried python3, python3.14 ... python3.11)" >&2
        fi
        exit 1
    fi
    "$chosen" -m venv --clear .venv
fi

echo "Installing $lock into .venv ..."
.venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet --require-hashes -r "$lock"
