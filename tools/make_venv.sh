#!/bin/sh
# Make a virtual environment, or say in one sentence what stands in the way.
#
#   tools/make_venv.sh FOLDER [PYTHON]
#
# Without PYTHON, takes the first of python3, python3.13, python3.12 and python3.11 that fits. TensorFlow sets the
# upper end: it has no wheels for Python 3.14 yet, and the simulation and the tests train with it. The core alone
# (`pip install fedmq`) knows no upper end.
set -eu

folder=$1
wanted=${2:-}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

fail() {
    echo "$*" >&2
    exit 1
}

if [ -x "$folder/bin/python" ]; then
    fits "$folder/bin/python" ||
        fail "$folder holds $("$folder/bin/python" --version 2>&1), and fedmq is developed on 3.11 to 3.13:" \
            "delete $folder and run make again."
    exit 0
fi

python=
for candidate in ${wanted:-python3 python3.13 python3.12 python3.11}; do
    if fits "$candidate"; then
        python=$candidate
        break
    fi
done

if [ -z "$python" ]; then
    candidate=${wanted:-python3}
    found=$("$candidate" --version 2>&1) || found="no program"
    fail "Python 3.11, 3.12 or 3.13 is needed and $candidate is $found:" \
        "install one of them, then name it, as in: make PYTHON=python3.12 ..."
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python comes without its venv module: install it (on Debian and Ubuntu: apt install python3-venv)" \
        "and run make again."

"$python" -m venv "$folder"
