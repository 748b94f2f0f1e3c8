#!/usr/bin/env bash
# Installs what is missing, builds the program and its tests, and runs the whole suite by CTest.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: tests/run.sh [--long] [CTEST-OPTION]...

Installs missing packages (Debian, Ubuntu), builds into build/, fetches MNIST
into data/mnist, and runs every test. Options go to ctest: -R REGEX runs the
tests whose names match, -N lists them.

  --long   fuzz each reader for 60 s instead of 10
EOF
}

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    usage
    exit 0
fi

if [ "${1:-}" = --long ]; then
    export ESPALIER_FUZZ_SECONDS=60
    shift
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(nproc 2>/dev/null || echo 2)

./jobs/dependencies.sh tests
./jobs/fetch_mnist.sh
# Building is silent unless it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! {
    cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DESPALIER_TESTS=ON \
        -DESPALIER_WERROR="${ESPALIER_WERROR:-ON}" &&
        cmake --build build -j "$jobs"
} >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
ctest --test-dir build --output-on-failure --no-tests=error -j "$jobs" "$@"
