#!/usr/bin/env bash
# Runs once, as root, when Gradescope builds the image: an environment for the grader, beside the system's Python, which
# the platform's own programs use and which stays as it is.
set -eu

source=${AUTOGRADER_ROOT:-/autograder}/source
repository=$source/minllama
environment=${AUTOGRADER_ENVIRONMENT:-/opt/minllama}
export DEBIAN_FRONTEND=noninteractive

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

find_python() {
    for python in python3.13 python3.12 python3.11 python3; do
        if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import ensurepip, sys, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then return; fi
    done
    return 1
}

# Ubuntu 22.04 has Python 3.10 and offers 3.11 beside it; newer images bring one that will do.
if ! find_python; then
    apt-get update
    for version in 3.12 3.11; do
        if apt-get install -y --no-install-recommends "python$version" "python$version-venv"; then break; fi
    done
    find_python || fail "no Python 3.11 to 3.13 can be had on this image: choose Ubuntu 22.04 or a newer one"
fi

# bubblewrap rarely works in the platform's containers, where the `uid` sandbox takes its place. setpriv is util-linux's.
if ! command -v bwrap >/dev/null 2>&1; then
    { apt-get update && apt-get install -y --no-install-recommends bubblewrap; } >/dev/null 2>&1 ||
        echo "bubblewrap cannot be installed: the uid sandbox is used"
fi

# Submissions run as a user who may not enter the repository, and use the environment's libraries: it lies elsewhere.
umask 022
"$python" -m venv --clear "$environment"
ln -sfn "$environment" "$repository/.venv"
chmod 700 "$source"

cd "$repository"
PYTHON=$python ./setup.sh --no-assets
# pip reads dependency groups from version 25.1 on
.venv/bin/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
.venv/bin/python -m pip install -q --disable-pip-version-check --constraint constraints.txt --group grading
# what the edition promises to a submission's code
export PYTHONPATH=$repository
.venv/bin/python -P -c 'import json, sys
from autograder.editions import read_edition
print(*read_edition(json.load(open(sys.argv[1]))["edition"]).environment, sep="\n")' "$source/settings.json" >/tmp/environment.txt
.venv/bin/python -m pip install -q --disable-pip-version-check --constraint constraints.txt --requirement /tmp/environment.txt
.venv/bin/python -P -m autograder doctor || echo "the doctor found something, see above"
