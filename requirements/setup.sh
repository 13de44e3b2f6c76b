#!/bin/sh
# Makes the environment and installs what the lock file says, and this project. Called by make.
# An environment that already holds every locked package is taken as it is.
#
#   sh requirements/setup.sh .venv requirements/all.txt
set -eu

venv=$1
lock=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_QUIET=1

fail() {
    echo "error: $1" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for name in python3.13 python3.12 python3.11 python3.14 python3; do
        if command -v "$name" >/dev/null 2>&1 && is_new_enough "$name"; then
            echo "$name"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no python3")
    fail "this needs Python 3.11 or newer, and here is $found: install python3.11 and call make again"
}

make_venv() {
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$("$python" --version) came without its venv module: install it (Debian, Ubuntu: apt install $(basename "$python")-venv)"
    echo "Creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "$venv could not be created: is this folder writable?"
}

pip() {
    "$venv/bin/python" -m pip "$@"
}

has_all_packages() {
    pip install --no-index --dry-run --require-hashes -r "$lock" >/dev/null 2>&1
}

half_done=$venv/.installing # there while an installation of ours has not come to its end

pip --version >/dev/null 2>&1 && is_new_enough "$venv/bin/python" || make_venv
if [ ! -e "$half_done" ] && has_all_packages; then
    exit 0
fi
touch "$half_done"
echo "Installing the locked packages (a minute or two, the first time)"
pip install --require-hashes -r "$lock" ||
    fail "the packages could not be installed (see above): is there a network, and a way to PyPI?"
pip install --no-deps --no-build-isolation -e . || fail "this project could not be installed (see above)"
rm -f "$half_done"
