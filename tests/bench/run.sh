#!/usr/bin/env bash
# Builds espalier and compares it with PyTorch on this machine; --help says what it takes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=build
words=("$@")
for ((i = 0; i < ${#words[@]}; i++)); do
    case "${words[i]}" in
    --help | -h) exec python3 -B tests/bench/run.py --help ;;
    --build) build=${words[i + 1]:?"--build needs a directory"} ;;
    --build=*) build=${words[i]#--build=} ;;
    esac
done

./jobs/dependencies.sh build
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DESPALIER_BENCH=ON >/dev/null
cmake --build "$build" --target espalier fma_peaks -j "$(nproc 2>/dev/null || echo 2)" >&2
./jobs/fetch_mnist.sh >&2
unset ESPALIER_MNIST # data/mnist is complete and checked now

exec python3 -B tests/bench/run.py "$@"
