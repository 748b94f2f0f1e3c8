#!/usr/bin/env bash
# Everything that wants a real GPU, in one command: build, test, sanitize, measure, write it down.
set -euo pipefail

usage() {
    cat <<'EOF2'
usage: jobs/gpu_check.sh [--quick] [--out DIR] [--build DIR] [--help]

For a machine with an NVIDIA GPU. Builds espalier with CUDA into build/gpu, runs the
tests of label gpu on the device (every backend case, training against the CPU),
measures ann_d and ann_a, PyTorch beside them where it is installed (as it comes, with
TF32 in convolutions, and without), and lenet_300_100 of which 2 % is left, ann_a of
which 10 % is left, masked and deleted, trains ann_d and ann_a, runs
compute-sanitizer's memcheck and racecheck over a few updates and the cases of the
backend's own kernels where it is installed, and writes
results/gpu/DEVICE.md as it goes: when it is stopped, the page has what was done until
then, and says what was not. Ends with exit code 1 when a test failed. On an H100 and
16 cores it takes some six minutes.

Needs the CUDA toolkit with cuBLAS, cuDNN and, for several GPUs, NCCL; no network.
Without MPI it builds the program of one rank. Without cmocka there are no tests to
build, without MNIST (data/mnist, or $ESPALIER_MNIST) random images are measured; the
page says so.

  --quick      20 updates a measurement in place of 300
  --out DIR    where the page goes (default: results/gpu)
  --build DIR  where the build goes (default: build/gpu)
EOF2
}

fail() {
    echo "gpu_check.sh: $1" >&2
    exit "${2:-2}"
}

exec 3>&2 # a signal may come while the script's own output goes to a file
say() { echo "gpu_check.sh: $SECONDS s: $*" >&3; }
has() { command -v "$1" >/dev/null 2>&1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
steps=300
out=$root/results/gpu
build=$root/build/gpu
while [ $# -gt 0 ]; do
    case "$1" in
    --help | -h) usage && exit 0 ;;
    --quick) steps=20 ;;
    --out | --build) [ $# -ge 2 ] || fail "option '$1' needs a directory; see --help" ;;&
    --out) out=$(realpath -m "$2") && shift ;;
    --build) build=$(realpath -m "$2") && shift ;;
    *) fail "unknown argument '$1'; see --help" ;;
    esac
    shift
done
cd "$root"

# ---- what there is ----

has nvidia-smi || fail "no nvidia-smi here: no NVIDIA driver, so no GPU to check" 1
mapfile -t gpus < <(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || true)
[ -n "${gpus[0]:-}" ] || fail "nvidia-smi lists no GPU" 1
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
has nvcc || fail "no nvcc on PATH or in ${CUDA_HOME:-/usr/local/cuda}/bin: install the CUDA toolkit" 1
for command in cmake make cc pkg-config; do
    has "$command" || fail "no $command here: install it" 1
done
device=${gpus[0]}
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
toolkit=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
mpi=OFF
has mpicc && has mpirun && mpi=ON
tests=OFF
pkg-config --exists cmocka && has python3 && tests=ON
say "$device (${#gpus[@]} GPU), driver $driver, CUDA $toolkit, MPI $mpi, tests $tests"

jobs=$(nproc 2>/dev/null || echo 2)
work=$(mktemp -d)
set -m # each job is a group of processes, which ends with this script

leave() {
    local job
    for job in $(jobs -p); do
        kill -- -"$job" 2>/dev/null || true
    done
    rm -rf "$work"
    [ -z "$written" ] || say "stopped; $written has what was done until then"
}
written="" # what there is of this run's page
trap leave EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

job() { # COMMAND...: waits for it so that a signal does not have to
    "$@" &
    wait $!
}

# ---- the page: written anew with each result, under its name when it is whole ----

slug=$(tr '[:upper:]' '[:lower:]' <<<"$device" | tr -cs 'a-z0-9' '_' | sed 's/^_//; s/_$//')
page=$out/$slug.md
partial=$out/$slug.partial.md
todo=(tests measurements training compute-sanitizer)
tested="" rows=() trained=() sanitized=()

section() { # LINE...: a blank line and these, when there is something below the table's head of two
    [ "$#" -le 2 ] || printf '%s\n' "" "$@"
}

write_page() {
    mkdir -p "$out"
    {
        echo "# $device"
        echo
        echo "Written by \`jobs/gpu_check.sh\` on $(date -u +%Y-%m-%d): ${#gpus[@]} GPU, driver $driver, CUDA"
        echo "$toolkit, MPI $mpi, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown). $steps updates a measurement, on $images."
        [ -z "$tested" ] || printf '\n%s\n' "Tests of label gpu: ${tested%.}."
        section "| | batch | images/s | us a step | s an epoch |" "|---|---|---|---|---|" "${rows[@]}"
        section "| trained, seed 1 | epochs | s in all | test accuracy | connections left |" \
            "|---|---|---|---|---|" "${trained[@]}"
        section "| compute-sanitizer | of | |" "|---|---|---|" "${sanitized[@]}"
        [ "${#todo[@]}" -eq 0 ] || printf '\n%s\n' "**Stopped before its end.** Not, or not all, done: $(join "${todo[@]}")."
    } >"$partial.tmp"
    mv "$partial.tmp" "$partial"
    written=$partial
}

join() { # WORD...: with commas
    local all
    all=$(printf '%s, ' "$@")
    echo "${all%, }"
}

done_with() { # the first of what is to do
    todo=("${todo[@]:1}")
    write_page
}

# ---- build ----

quietly() { # NAME COMMAND...
    local log=$work/$1.log
    shift
    job "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2 && fail "failed: $*" 1; }
}

quietly configure cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DESPALIER_CUDA=ON \
    -DESPALIER_MPI="$mpi" -DESPALIER_TESTS="$tests"
say "building into $build"
targets=(--target espalier)
[ "$tests" = OFF ] || targets+=(--target gpu_tests)
quietly build cmake --build "$build" -j "$jobs" "${targets[@]}"
espalier=$build/espalier

# ---- images ----

# Random ones in MNIST's format cost an update what MNIST's do.
random_images() { # DIR
    python3 - "$1" <<'EOF2'
import os, struct, sys
os.makedirs(sys.argv[1], exist_ok=True)
for split, count in (("train", 60000), ("t10k", 10000)):
    with open(os.path.join(sys.argv[1], split + "-images-idx3-ubyte"), "wb") as file:
        file.write(struct.pack(">4I", 0x803, count, 28, 28) + os.urandom(count * 784))
    with open(os.path.join(sys.argv[1], split + "-labels-idx1-ubyte"), "wb") as file:
        file.write(struct.pack(">2I", 0x801, count) + bytes(b % 10 for b in os.urandom(count)))
EOF2
}

data=data/mnist
images=MNIST
if ! quietly_log=$(./jobs/fetch_mnist.sh 2>&1); then
    echo "$quietly_log" | tail -n 3 >&2
    say "no MNIST: measuring with random images"
    images="random images in MNIST's format"
    data=$work/images
    random_images "$data"
fi
unset ESPALIER_MNIST

# ---- tests ----

failed=0
write_page
tested="not run: cmocka or python3 is missing"
if [ "$tests" = ON ]; then
    say "testing"
    job ctest --test-dir "$build" -L gpu -j "$jobs" --output-on-failure --no-tests=error \
        >"$work/tests.log" 2>&1 || failed=1
    tested=$(grep -E 'tests passed|tests failed' "$work/tests.log" | tail -1 || true)
    if grep -q '(Skipped)' "$work/tests.log"; then # there is a GPU: each must run
        failed=1
        tested="$tested $(grep -c '(Skipped)' "$work/tests.log") of them were **skipped**."
    fi
    [ "$failed" -eq 0 ] || tail -n 40 "$work/tests.log" >&2
fi
done_with

# ---- measurements ----

number() { # KEY: of the JSON object on stdin
    sed -n "s/.*\"$1\":[[:space:]]*\([-0-9.e+]*\).*/\1/p" | head -1
}

row() { # LABEL JSON BATCH
    local seconds
    seconds=$(number step_seconds <<<"$2")
    awk -v label="$1" -v s="$seconds" -v b="$3" 'BEGIN {
        printf "| %s | %d | %.0f | %.1f | %.3f |\n", label, b, b / s, 1e6 * s, 60000 / b * s }'
}

measure() { # LABEL BATCH COMMAND...
    local label=$1 batch=$2 json
    shift 2
    say "measuring $label, batch $batch"
    if job "$@" >"$work/measure.json" 2>"$work/measure.log" &&
        json=$(cat "$work/measure.json") && [ -n "$(number step_seconds <<<"$json")" ]; then
        rows+=("$(row "$label" "$json" "$batch")")
    else
        tail -n 3 "$work/measure.log" >&2
        rows+=("| $label | $batch | failed: $(tail -n 1 "$work/measure.log" | tr '|' '/') | | |")
    fi
    write_page
}

ours() { # RECIPE BATCH [SETTING...]
    local words=(bench "jobs/recipes/$1.cfg" -s "data.dir=$data" -s train.backend=cuda
        -s "train.batch=$2" --steps "$steps" --json)
    for setting in "${@:3}"; do
        words+=(-s "$setting")
    done
    "${launcher[@]}" "$espalier" "${words[@]}"
}

pruned() { # RECIPE DENSITY DELETION BATCH [SETTING...]: with that part of its layers' connections
    local words=(bench "jobs/recipes/$1.cfg" --density "$2" -s "data.dir=$data"
        -s train.backend=cuda -s "prune.deletion=$3" -s "train.batch=$4" --steps "$steps" --json)
    for setting in "${@:5}"; do
        words+=(-s "$setting")
    done
    "$espalier" "${words[@]}"
}

peer() { # BATCH [OPTION...]
    python3 tests/peers/torch_mnist.py --data "$data" --device cuda --batch "$1" --steps "$steps" \
        --warm-up 50 "${@:2}"
}

launcher=()
for batch in 128 1024; do
    for recipe in ann_d ann_a; do
        measure "espalier $recipe" "$batch" ours "$recipe" "$batch"
    done
    measure "espalier ann_d, train.tf32" "$batch" ours ann_d "$batch" train.tf32=true
    measure "espalier ann_d, train.cudnn_autotune" "$batch" ours ann_d "$batch" \
        train.cudnn_autotune=true
    measure "espalier ann_d, train.tf32, train.cudnn_autotune" "$batch" ours ann_d "$batch" \
        train.tf32=true train.cudnn_autotune=true
    ESPALIER_CUDA_CONV=cudnn measure "espalier ann_d, convolutions by cuDNN" "$batch" ours ann_d "$batch"
    ESPALIER_CUDA_GRAPH=0 measure "espalier ann_d, not captured" "$batch" ours ann_d "$batch"
    left=(lenet_300_100 0.02)
    measure "espalier lenet_300_100, 2 % left, masked" "$batch" pruned "${left[@]}" mask "$batch"
    measure "espalier lenet_300_100, 2 % left, deleted" "$batch" pruned "${left[@]}" delete "$batch"
    measure "espalier lenet_300_100, 2 % left, sparse form" "$batch" pruned "${left[@]}" delete \
        "$batch" prune.sparse_below=1
    left=(ann_a 0.1)
    all="prune.layers=[conv1,conv2,dense1,dense2]"
    measure "espalier ann_a, 10 % left, masked" "$batch" pruned "${left[@]}" mask "$batch" "$all"
    measure "espalier ann_a, 10 % left, deleted" "$batch" pruned "${left[@]}" delete "$batch" "$all"
    measure "espalier ann_a, 10 % left, sparse form" "$batch" pruned "${left[@]}" delete "$batch" \
        "$all" prune.sparse_below=1
    if has python3 && python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        measure "PyTorch ann_d, eager" "$batch" peer "$batch"
        measure "PyTorch ann_d, compiled" "$batch" peer "$batch" --compile
        [ "$batch" -eq 128 ] || continue # a compiler takes its time
        measure "PyTorch ann_d, eager, no TF32" "$batch" peer "$batch" --no-tf32
        measure "PyTorch ann_d, compiled, no TF32" "$batch" peer "$batch" --compile --no-tf32
    fi
done
if [ "$mpi" = ON ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    for ((n = 2; n <= ${#gpus[@]}; n *= 2)); do
        launcher=(mpirun --bind-to none -n "$n")
        measure "espalier ann_d, $n GPUs" $((128 * n)) ours ann_d $((128 * n))
        measure "espalier ann_d, $n GPUs" $((1024 * n)) ours ann_d $((1024 * n))
    done
fi
done_with

# ---- training ----

if [ "$images" = MNIST ] && [ "$steps" -ge 300 ]; then
    for recipe in ann_d ann_a; do
        say "training $recipe"
        job "$espalier" train "jobs/recipes/$recipe.cfg" -o "$work/$recipe" -s "data.dir=$data" \
            -s train.backend=cuda --quiet >"$work/train.log" 2>&1 || { tail -n 3 "$work/train.log" >&2 && failed=1; }
        summary=$(cat "$work/$recipe/summary.json" 2>/dev/null || true)
        trained+=("| $recipe | $(number epochs <<<"$summary") | $(printf %.2f "$(number seconds_train <<<"$summary")") | $(number test_accuracy <<<"$summary") | $(number survivors <<<"$summary") |")
        write_page
    done
fi
done_with

# ---- sanitizers ----

# Of the backend's cases, those that run kernels of its own, and short ones of them: a sanitizer makes a
# kernel some hundred times slower.
kernels=("backend_blocks conv_tiles_exact" "backend_blocks conv_pool_exact" "backend_blocks dense_exact"
    "backend_slots compact*" "backend_slots gather*" "backend_slots hash*" "backend_slots softmax*"
    "backend_update update_*" "batchnorm in_*" "dropconnect it_samples*" "dropout units_fall*"
    "select select_breaks*" "sparse_form conv_exact" "steps a_step_does*")
sanitizer_seconds=60

sanitize() { # TOOL WHAT COMMAND...: as a job; its row goes to a file, as several run at a time
    local tool=$1 what=$2 log options=() code=0 found
    log=$work/$tool-$(tr -c 'a-z0-9_\n' - <<<"$what").log
    shift 2
    # Calls that fail, and are meant to: an allocation that is too large, the update of a graph.
    [ "$tool" != memcheck ] || options=(--report-api-errors no)
    say "compute-sanitizer $tool: $what"
    trap 'kill $! 2>/dev/null; exit 143' TERM # timeout leaves this job's group for one of its own
    timeout "$sanitizer_seconds" compute-sanitizer --tool "$tool" "${options[@]}" --error-exitcode 9 \
        "$@" >"$log" 2>&1 &
    wait $! || code=$?
    case $code in
    0) found=clean ;;
    124) found="not finished in $sanitizer_seconds s" ;;
    *)
        tail -n 20 "$log" >&2
        found="**failed**: $(grep -m1 -E 'ERROR SUMMARY|RACECHECK SUMMARY|espalier:' "$log" || echo see the log)"
        ;;
    esac
    echo "| $tool | $what | $found |" >"$log.row"
}

few=(-s "data.dir=$data" -s train.backend=cuda -s data.train_limit=512 -s data.test_limit=128
    -s train.steps=4 -s train.epochs=1 -s prune.every=2 --quiet)
sanitize_all() { # at most a job for each core at a time
    local tool kernel
    for tool in memcheck racecheck; do
        sanitize "$tool" "4 updates of ann_a" "$espalier" train jobs/recipes/ann_a.cfg \
            -o "$work/$tool" "${few[@]}" &
        [ "$tests" = ON ] || continue
        for kernel in "${kernels[@]}"; do
            [ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
            sanitize "$tool" "$kernel" "$build/tests/gpu/gpu_${kernel% *}" "${kernel#* }" &
        done
    done
    wait
}

if has compute-sanitizer; then
    sanitize_all
    mapfile -t sanitized < <(cat "$work"/*.row)
    ! grep -qF '**failed**' "$work"/*.row || failed=1
else
    sanitized=("| memcheck, racecheck | | not run: compute-sanitizer is missing |")
fi
done_with

mv "$partial" "$page"
written=""
say "wrote $page"
[ "$failed" -eq 0 ] || fail "a test failed; $page says which" 1
