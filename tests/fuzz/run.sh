#!/usr/bin/env bash
# Builds the fuzzers, or runs one of them on its kept corpus.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: tests/fuzz/run.sh build
       tests/fuzz/run.sh TARGET [SECONDS]
       tests/fuzz/run.sh keep TARGET DIR

TARGET is X of tests/fuzz/fuzz_X.c. A run tries mutations of tests/fuzz/corpus/X
for SECONDS (default: $ESPALIER_FUZZ_SECONDS, else 10). What ends the program is
kept in build/fuzz/found. `keep` adds those inputs of DIR to the corpus that reach
code which it does not. Needs clang; ends with exit code 77 where there is none.
USAGE
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=build/fuzz
corpus=tests/fuzz/corpus
longest=8192 # bytes of an input
# libconfig itself loses a few bytes of a text at a syntax error.
export LSAN_OPTIONS=suppressions=tests/fuzz/leaks.txt:print_suppressions=0
# What is found must not end with libFuzzer's 77, which is the code of a skipped test.
limits=(-error_exitcode=1 -timeout_exitcode=1
    -max_len="$longest" -malloc_limit_mb=16 -rss_limit_mb=1024 -timeout=60)

find_clang() {
    local name
    for name in clang-14 clang; do
        if command -v "$name" >/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "skipped: fuzzing needs clang with libFuzzer (Debian: clang-14, libclang-rt-14-dev)" >&2
    exit 77
}

build_all() {
    cmake -S tests/fuzz -B $build -DCMAKE_C_COMPILER="$1" -DESPALIER_WERROR=ON >/dev/null
    cmake --build $build -j "$(nproc 2>/dev/null || echo 2)" >/dev/null
}

# The words of a language, for the fuzzer to put together.
words() {
    local sources=()
    case "$1" in
    recipe) sources=(jobs/recipes/*.cfg src/config/keys.c src/base/kinds.c) ;;
    safetensors) sources=(src/io/safetensors.c) ;;
    report) sources=(src/io/run_record.c src/io/events.c) ;;
    checkpoint) sources=(src/io/checkpoint.c src/io/safetensors.c src/config/keys.c) ;;
    model) sources=(jobs/recipes/*.cfg src/config/keys.c src/io/safetensors.c src/io/model.c) ;;
    *) return 0 ;; # no language
    esac
    grep -ohE '[A-Za-z_][A-Za-z0-9_.]{2,}' "${sources[@]}" | LC_ALL=C sort -u | sed 's/.*/"&"/'
}

# Where the shipped recipes are inputs, they need no copy in the corpus.
inputs() {
    echo "$corpus/$1"
    [ "$1" != recipe ] || echo jobs/recipes
}

fuzz() {
    local options=("${limits[@]}" -max_total_time="$2" -artifact_prefix="$build/found/$1-"
        -print_final_stats=1 -verbosity=0)
    # The suite takes the same way each time, so that no change is red by chance; --long explores.
    [ -n "${ESPALIER_FUZZ_SECONDS:-}" ] || options+=(-seed=1)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p $build/found "$scratch/new"
    words "$1" >"$scratch/words"
    [ ! -s "$scratch/words" ] || options+=(-dict="$scratch/words")
    mapfile -t inputs < <(inputs "$1")
    env -u ESPALIER_MNIST "$build/fuzz_$1" "${options[@]}" "${KEEP_IN:-$scratch/new}" "${inputs[@]}"
}

keep() {
    env -u ESPALIER_MNIST "$build/fuzz_$1" "${limits[@]}" -set_cover_merge=1 -use_counters=0 \
        "$corpus/$1" "$2"
}

case "${1:---help}" in
--help | -h) usage ;;
build) build_all "$(find_clang)" ;;
keep) keep "$2" "$3" ;;
*)
    [ -e "tests/fuzz/fuzz_$1.c" ] || { usage >&2 && exit 2; }
    find_clang >/dev/null
    fuzz "$1" "${2:-${ESPALIER_FUZZ_SECONDS:-10}}"
    ;;
esac
