#!/bin/sh
# Installs what `make demo` and `make test` need, says so, and does nothing when all is there:
# GMT and ghostscript from the system, everything else into .venv with the versions of
# constraints.txt. PYTHON chooses the interpreter that .venv is made with. With the argument
# `tests` also Chromium, in which pages are opened: without it those tests are skipped.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
packages="gmt libgmt-dev gmt-gshhg ghostscript python3 python3-venv"

system_is_ready() {
    command -v gmt >/dev/null && command -v gs >/dev/null &&
        "$python" -c 'import ctypes, ensurepip, sys, venv
ctypes.CDLL("libgmt.so")
sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

browser_is_ready() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null
}

may_install() {
    if [ "$(id -u)" = 0 ]; then sudo=""; elif sudo -n true 2>/dev/null; then sudo="sudo"; else return 1; fi
    command -v apt-get >/dev/null
}

install() {
    echo "Installing with apt-get: $*"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! system_is_ready; then
    if ! may_install; then
        echo "GMT (with libgmt.so), ghostscript or Python >= 3.11 is missing, and this user may not" \
            "install it. Ask for 'sudo apt-get install $packages'," \
            "or run 'conda env create -f environment.yml && conda activate deepbedmap'." >&2
        exit 1
    fi
    install $packages
    if ! system_is_ready; then
        echo "After 'apt-get install $packages' there is still no GMT, ghostscript or" \
            "Python >= 3.11: set PYTHON to one, or run 'conda env create -f environment.yml'." >&2
        exit 1
    fi
fi

if [ "${1:-}" = tests ] && ! browser_is_ready && ! { may_install && install chromium; }; then
    echo "There is no Chromium, and 'apt-get install chromium' is not possible: tests of pages" \
        "are skipped." >&2
fi

wanted=$(cat pyproject.toml constraints.txt | cksum)
if [ "$(cat .venv/complete 2>/dev/null)" != "$wanted" ]; then
    echo "Installing Python packages into .venv: about 2 GB, a few minutes"
    "$python" -m venv .venv
    PIP_CONSTRAINT=constraints.txt .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --editable ".[all,dev]"
    echo "$wanted" > .venv/complete
fi
