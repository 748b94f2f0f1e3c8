#!/usr/bin/env bash
# Builds espalier and measures it on this machine: against PyTorch, or with "survivors" as the first
# word what deleted connections save. --help says what either takes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

driver=tests/bench/run.py
if [ "${1-}" = survivors ]; then
    driver=tests/bench/survivors.py
    shift
fi

build=build
words=("$@")
for ((i = 0; i < ${#words[@]}; i++)); do
    case "${words[i]}" in
    --help | -h) exec python3 -B "$driver" --help ;;
    --build) build=${words[i + 1]:?"--build needs a directory"} ;;
    --build=*) build=${words[i]#--build=} ;;
    esac
done

./jobs/dependencies.sh bench
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DESPALIER_BENCH=ON >/dev/null
cmake --build "$build" --target espalier bench_programs -j "$(nproc 2>/dev/null || echo 2)" >&2
./jobs/fetch_mnist.sh >&2
unset ESPALIER_MNIST # data/mnist is complete and checked now

exec python3 -B "$driver" "$@"
