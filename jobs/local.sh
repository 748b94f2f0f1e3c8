#!/usr/bin/env bash
# The poster's experiment on this machine: install, build, fetch MNIST, train, compare.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: jobs/local.sh [-n RANKS] [-e EPOCHS] [--recipe NAME]... [--help]

Installs what is missing (Debian, Ubuntu), builds a Release build into build/,
fetches MNIST into data/mnist, trains the poster's networks on all cores and
prints a table of what they reached.

  -n RANKS        train on so many ranks under mpirun (default: 1, without it)
  -e EPOCHS       passes over the training set (default: the poster's 12)
  --recipe NAME   a recipe in jobs/recipes, or a path; can be given several times
                  (default: ann_d, ann_a and ann_a_global)

The results go to results/runs/local-TIME/RECIPE, and a page with plots of all of
them to results/runs/local-TIME/report.html. A second run neither installs nor
fetches again.
EOF
}

fail() {
    echo "local.sh: $1" >&2
    exit 2
}

is_count() { [[ "$1" =~ ^[1-9][0-9]{0,5}$ ]]; }

ranks=1
epochs=12
recipes=()
while [ $# -gt 0 ]; do
    case "$1" in
    --help | -h) usage && exit 0 ;;
    -n | -e | --recipe) [ $# -ge 2 ] || fail "option '$1' needs a value; see --help" ;;
    *) fail "unknown argument '$1'; see --help" ;;
    esac
    case "$1" in
    -n) ranks=$2 ;;
    -e) epochs=$2 ;;
    --recipe) recipes+=("$2") ;;
    esac
    shift 2
done
is_count "$ranks" || fail "-n $ranks: expected a number of ranks, 1 or more"
is_count "$epochs" || fail "-e $epochs: expected a number of epochs, 1 or more"
[ "${#recipes[@]}" -gt 0 ] || recipes=(ann_d ann_a ann_a_global)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -z "${ESPALIER_MNIST:-}" ] || ESPALIER_MNIST=$(realpath -m "$ESPALIER_MNIST")

# A file where the user stands wins over the name of a shipped recipe.
shipped() { (cd "$root/jobs/recipes" && printf '%s\n' *.cfg | sed 's/\.cfg$//' | xargs echo); }
declare -A seen
for i in "${!recipes[@]}"; do
    given=${recipes[i]}
    if [ -f "$given" ]; then
        recipes[i]=$(realpath "$given")
    else
        recipes[i]="$root/jobs/recipes/${given%.cfg}.cfg"
        [ -f "${recipes[i]}" ] || fail "no recipe '$given'; there are: $(shipped)"
    fi
    name=$(basename "${recipes[i]}" .cfg)
    [ -z "${seen[$name]:-}" ] || fail "two recipes are called '$name': their results would mix"
    seen[$name]=1
done
cd "$root"
. jobs/functions.sh

./jobs/dependencies.sh build
cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DESPALIER_MPI=AUTO >/dev/null
cmake --build build --target espalier -j "$(nproc 2>/dev/null || echo 2)"
./jobs/fetch_mnist.sh
unset ESPALIER_MNIST # data/mnist is complete and checked now

launch=()
if [ "$ranks" -gt 1 ]; then
    launch=(mpirun --bind-to none -n "$ranks")
    # Open MPI counts slots and refuses more ranks than it finds; other launchers do not.
    ! mpirun --version 2>/dev/null | grep -q 'Open MPI' || launch+=(--oversubscribe)
    # Open MPI refuses to run as root unless told twice; in a container there is often nobody else.
    [ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

results=$(new_directory results/runs/local)
run_dirs=()
for recipe in "${recipes[@]}"; do
    name=$(basename "$recipe" .cfg)
    printf '\n%s: epochs %s, ranks %s\n' "$name" "$epochs" "$ranks"
    "${launch[@]}" ./build/espalier train "$recipe" -s "train.epochs=$epochs" \
        -o "$results/$name" >/dev/null
    run_dirs+=("$results/$name")
done

printf '\n%-16s %14s %17s %22s %20s\n' network 'test accuracy' 'errors of 10,000' survivors \
    'seconds of training'
for recipe in "${recipes[@]}"; do
    name=$(basename "$recipe" .cfg)
    summary="$results/$name/summary.json"
    awk -v name="$name" -v accuracy="$(json_value "$summary" test_accuracy)" \
        -v errors="$(json_value "$summary" test_errors)" -v left="$(json_value "$summary" survivors)" \
        -v all="$(json_value "$summary" connections)" -v seconds="$(json_value "$summary" seconds_train)" \
        'BEGIN { printf "%-16s %12.2f %% %17d %10d of %8d %20.1f\n",
                 name, 100 * accuracy, errors, left, all, seconds }'
done
./build/espalier report "${run_dirs[@]}" -o "$results/report.html" >/dev/null
printf '\nresults: %s\nreport:  %s\n' "$results" "$results/report.html"
