#!/usr/bin/env bash
# The table of the runs that seeds.sbatch has made.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: jobs/summary.sh RESULTS

RESULTS holds a directory for each recipe, with a run for each seed in it. Prints,
for each recipe, mean, minimum, maximum and standard deviation (over the seeds) of
the test accuracy in percent and of the test errors.
USAGE
}

case "${1:---help}" in --help | -h) usage && exit ;; esac
[ -d "$1" ] || { echo "summary.sh: no directory '$1'" >&2 && exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

# One line a run: its recipe, and what it reached or "failed".
runs() {
    local file dir
    for file in "$1"/*/*/summary.json "$1"/*/*.failed; do
        [ -e "$file" ] || continue
        dir=$(basename "$(dirname "${file%/summary.json}")")
        case "$file" in
        *.failed) echo "$dir failed" ;;
        *) echo "$dir $(json_value "$file" test_accuracy) $(json_value "$file" test_errors)" ;;
        esac
    done
}

runs "$1" | LC_ALL=C sort -s -k1,1 | awk '
function row(format, sum, squares, low, high) {
    mean = sum / count
    # from squares about the first value: it is near the mean, and nothing cancels
    spread = count > 1 ? squares - (sum - count * first) ^ 2 / count : 0
    deviation = count > 1 ? sprintf(format, sqrt((spread > 0 ? spread : 0) / (count - 1))) : "-"
    printf "  " format " " format " " format " %8s", mean, low, high, deviation
}
function print_recipe() {
    if (name == "") return
    printf "%-20s %4d %6d", name, count, failed
    if (count > 0) {
        first = first_accuracy; row("%8.3f", accuracy, accuracy2, accuracy_low, accuracy_high)
        first = first_errors; row("%8.1f", errors, errors2, errors_low, errors_high)
    }
    printf "\n"
}
BEGIN {
    printf "%-20s %4s %6s  %8s %8s %8s %8s  %8s %8s %8s %8s\n", "", "", "", "test", "accuracy", "%",
        "", "test", "errors", "", ""
    printf "%-20s %4s %6s  %8s %8s %8s %8s  %8s %8s %8s %8s\n", "recipe", "runs", "failed", "mean",
        "min", "max", "std", "mean", "min", "max", "std"
}
$1 != name {
    print_recipe()
    name = $1; count = failed = accuracy = accuracy2 = errors = errors2 = 0
}
$2 == "failed" { failed++; next }
{
    a = 100 * $2; e = $3
    if (count++ == 0) {
        first_accuracy = accuracy_low = accuracy_high = a
        first_errors = errors_low = errors_high = e
    }
    accuracy += a; accuracy2 += (a - first_accuracy) ^ 2
    errors += e; errors2 += (e - first_errors) ^ 2
    if (a < accuracy_low) accuracy_low = a
    if (a > accuracy_high) accuracy_high = a
    if (e < errors_low) errors_low = e
    if (e > errors_high) errors_high = e
}
END { print_recipe() }'
