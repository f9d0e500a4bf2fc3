#!/usr/bin/env bash
# Makes the environment (.venv) and fetches data and weights. Run it again at any time: it does only what is missing.
# It stays within bash 3.2, which is what macOS has.
set -eu

usage() {
    cat <<'END'
usage: ./setup.sh [--dev] [--no-assets] [--only NAME]...

Makes .venv with everything that requirements.txt names, then fetches the files that assets.toml lists.

  --only NAME   fetch only this asset (may be repeated); that it cannot be had is then an error
  --no-assets   make the environment and fetch nothing
  --dev         also install what the tests and linters need
  --help        show this text

Environment:
  PYTHON            the Python to use (3.11 to 3.13); otherwise the first that works of python3, python3.13, ...
  MINLLAMA_ASSETS   a folder with the assets: files are copied from there, and the network is not asked for them
  TORCH_INDEX_URL   where a CPU-only PyTorch is found (Linux without an NVIDIA GPU)

Example: MINLLAMA_ASSETS=/path/to/folder ./setup.sh --only stories260K
END
}

say() { printf '%s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Without this, an interrupted pip would look like a failed one, and the next attempt would begin. The message has its own
# way to the terminal, since pip's errors may be going elsewhere at that moment.
exec 3>&2
trap 'printf "\ninterrupted: run ./setup.sh again to go on\n" >&3; exit 130' INT

# ---- options

dev=no
assets=yes
only=()
while [ $# -gt 0 ]; do
    case $1 in
        --dev) dev=yes ;;
        --no-assets) assets=no ;;
        --only)
            [ $# -ge 2 ] || fail "--only needs the name of an asset"
            only+=(--only "$2")
            shift
            ;;
        --only=*) only+=(--only "${1#--only=}") ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown option '$1': see ./setup.sh --help" ;;
    esac
    shift
done
[ "$assets" = yes ] || [ ${#only[@]} -eq 0 ] || fail "--only and --no-assets contradict each other"

# Relative paths are meant from where the user stands, not from this file's folder.
case ${MINLLAMA_ASSETS:-} in
    '' | /* | [A-Za-z]:*) ;;
    *) export MINLLAMA_ASSETS="$PWD/$MINLLAMA_ASSETS" ;;
esac
case ${PYTHON:-} in
    /* | [A-Za-z]:*) ;;
    */*) PYTHON=$PWD/$PYTHON ;;
esac
export PIP_USER=0 # a pip that is configured to install for the user refuses to work inside an environment
cd "$(dirname "${BASH_SOURCE[0]}")"

# ---- Python

# Prints the version of a command that is a Python which we support and which really runs (pyenv's shims may exist and
# only print an error), else nothing.
supported_version() {
    "$1" -c 'import sys
if (3, 11) <= sys.version_info[:2] <= (3, 13): print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

find_python() {
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        version=$(supported_version "$python")
        if [ -n "$version" ]; then return; fi
        [ -z "${PYTHON:-}" ] || fail "PYTHON is '$PYTHON', which is no Python 3.11, 3.12 or 3.13 that runs"
    done
    found=$(python3 --version 2>/dev/null) || found="no python3"
    fail "Python 3.11, 3.12 or 3.13 is needed, and there is $found. Install one" \
        "(https://www.python.org/downloads/, or apt install python3 python3-venv, or brew install python@3.13)," \
        "or say where it is: PYTHON=/path/to/python3.12 ./setup.sh"
}

# Sets venv_python; Windows keeps it elsewhere.
locate_venv_python() {
    venv_python=.venv/bin/python
    if [ -f .venv/Scripts/python.exe ]; then venv_python=.venv/Scripts/python.exe; fi
}

# Sets `venv` to ok or missing; `python` is then the environment's own.
find_venv() {
    locate_venv_python
    venv=missing
    there=$(supported_version "$venv_python")
    if [ -z "$there" ]; then return; fi
    if [ -n "${PYTHON:-}" ]; then
        find_python
        if [ "$version" != "$there" ]; then return; fi
    fi
    # pip is slow to start, and an environment with a stamp has had it
    if is_installed student || "$venv_python" -m pip --version >/dev/null 2>&1; then
        venv=ok
        python=$venv_python
    fi
}

make_venv() {
    if [ -e .venv ]; then
        say "setup: .venv does not work or has another Python: making it anew with Python $version"
    else
        say "setup: making .venv with Python $version"
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: apt install python3-venv (or install Python from python.org)"
    "$python" -m venv --clear .venv
    locate_venv_python
}

# ---- packages

# Installs at the tested versions; only errors are shown.
pip_install() { "$venv_python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt "$@"; }

# On Linux, the package index's PyTorch brings gigabytes of CUDA along. Where there is no NVIDIA GPU, a CPU-only build is
# tried first: where pip is configured to look, then at PyTorch's own index.
install_torch() {
    torch=$(sed -n 's/^torch==//p' constraints.txt)
    if "$venv_python" -c "
import importlib.metadata, sys
sys.exit(importlib.metadata.version('torch').partition('+')[0] != '$torch')" 2>/dev/null; then
        return
    fi
    if [ "$(uname -s)" = Darwin ] && [ "$(uname -m)" = x86_64 ]; then
        say "setup: PyTorch $torch is not published for Macs with an Intel processor: expect an error from pip"
    fi
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
        say "setup: installing PyTorch $torch for the CPU, as there is no NVIDIA GPU (this takes minutes)"
        if pip_install --retries 1 "torch==$torch+cpu" 2>/dev/null; then return; fi
        index=${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}
        say "setup: trying $index"
        if pip_install --retries 1 --timeout 15 --extra-index-url "$index" "torch==$torch+cpu" 2>/dev/null; then
            return
        fi
        say "setup: no CPU-only PyTorch could be had; the full one with CUDA is downloaded (some 3 GB)"
    else
        say "setup: installing PyTorch $torch (this takes minutes)"
    fi
    pip_install "torch==$torch"
}

# The environment is as wanted if its stamp holds this checksum. The stamp is written last: an interrupted installation
# is taken up again.
wanted_stamp() {
    {
        cat requirements.txt constraints.txt
        if [ "$1" = dev ]; then sed -n '/^\[dependency-groups\]/,/^\[tool/p' pyproject.toml; fi
    } | cksum
}

is_installed() { [ "$(cat ".venv/installed-$1" 2>/dev/null)" = "$(wanted_stamp "$1")" ]; }

install_packages() {
    if ! is_installed student; then
        install_torch
        say "setup: installing requirements.txt"
        pip_install --requirement requirements.txt
        wanted_stamp student >.venv/installed-student
    fi
    if [ "$dev" = yes ] && ! is_installed dev; then
        say "setup: installing what the tests and linters need"
        # pip reads [dependency-groups] from version 25.1 on
        "$venv_python" -m pip install --help | grep -e --group >/dev/null || pip_install --upgrade 'pip>=25.1'
        pip_install --requirement requirements.txt --group dev
        wanted_stamp dev >.venv/installed-dev
    fi
}

# ---- all of it

find_venv
if [ "$venv" = missing ]; then find_python; fi
if [ ${#only[@]} -gt 0 ]; then # an unknown name is told before gigabytes are installed
    "$python" fetch_assets.py --list "${only[@]}" >/dev/null
fi
if [ "$venv" = missing ]; then make_venv; fi
if is_installed student && { [ "$dev" = no ] || is_installed dev; }; then
    say "setup: .venv is up to date"
else
    install_packages
fi
if [ "$assets" = yes ]; then
    trap - INT # fetch_assets.py says itself what an interruption means
    "$venv_python" fetch_assets.py ${only[@]+"${only[@]}"}
fi
