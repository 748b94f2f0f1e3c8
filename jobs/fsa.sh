#!/usr/bin/env bash
# The simulation of Barbu et al. 2017 (tables 2 and 3): every row, every loss, beside the paper's figures.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: jobs/fsa.sh [-n RANKS] [--runs RUNS] [--seed SEED] [--help]

Builds espalier, runs `espalier fsa` for the seven rows of the paper's tables 2 and 3
with four losses, and prints a table in Markdown. Ends with exit code 1 where logistic
or Lorenz loss stays below what the paper reports: DR by more than two standard errors
of RUNS runs and 2 points, PCD by more than 2.5 points, AUC by more than 0.005.

  -n RANKS      share the runs out over so many ranks under mpirun (default: 1)
  --runs RUNS   independent runs of a row (default: the paper's 100)
  --seed SEED   (default: 1)
EOT
}

fail() {
    echo "fsa.sh: $1" >&2
    exit 2
}

ranks=1 runs=100 seed=1
while [ $# -gt 0 ]; do
    case "$1" in
    --help | -h) usage && exit 0 ;;
    -n | --runs | --seed) [[ "${2:-}" =~ ^[1-9][0-9]{0,5}$ ]] || fail "$1: expected a number, 1 or more" ;;
    *) fail "unknown argument '$1'; see --help" ;;
    esac
    case "$1" in
    -n) ranks=$2 ;;
    --runs) runs=$2 ;;
    --seed) seed=$2 ;;
    esac
    shift 2
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./jobs/dependencies.sh build
cmake -S . -B build -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build build --target espalier -j "$(nproc 2>/dev/null || echo 2)" >/dev/null
launch=()
if [ "$ranks" -gt 1 ]; then
    launch=(mpirun --bind-to none -n "$ranks")
    ! mpirun --version 2>/dev/null | grep -q 'Open MPI' || launch+=(--oversubscribe)
    [ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# Samples, true variables, noise; DR/PCD/AUC of the paper's FSA with logistic and with Lorenz loss;
# rate and growth of Lorenz loss.
rows=(
    "300  10 0   29/86.1/.992  34/86.0/.990  0.3,0.5"
    "1000 10 0   100/100/1.00  100/100/1.00  0.3,0.5"
    "1000 30 0   24/93.8/.996  21/92.6/.995  0.4,0.6"
    "3000 30 0   100/100/1.00  100/100/1.00  0.3,0.5"
    "1000 10 0.1 45/92.5/.943  86/98.5/.946  0.3,0.5"
    "3000 10 0.1 100/100/.950  100/100/.950  0.3,0.5"
    "3000 30 0.1 12/92.4/.945  68/98.7/.949  0.3,0.5"
)
value() { sed -n "s/.*\"$1\": \([^,}]*\).*/\1/p" <<<"$2"; }

echo '| samples, true variables | noise | loss | rate, growth | DR (%) | PCD (%) | AUC | paper: DR/PCD/AUC | reached |'
echo '|---|---|---|---|---|---|---|---|---|'
missed=0
for row in "${rows[@]}"; do
    read -r samples keep noise logistic lorenz settings <<<"$row"
    for setting in logistic,5,0 "lorenz,$settings" huber_svm,1,0 squared,0.02,0; do
        IFS=, read -r loss rate growth <<<"$setting"
        found=$("${launch[@]}" ./build/espalier fsa --json --loss "$loss" --rate "$rate" \
            --growth "$growth" --samples "$samples" --keep "$keep" --noise "$noise" \
            --runs "$runs" --seed "$seed")
        case "$loss" in
        logistic) paper=$logistic ;;
        lorenz) paper=$lorenz ;;
        *) paper=- ;;
        esac
        awk -v data="$samples, $keep" -v noise="$noise" -v loss="$loss" -v rate="$rate, $growth" \
            -v dr="$(value detection_rate "$found")" -v pcd="$(value detected "$found")" \
            -v auc="$(value auc "$found")" -v paper="$paper" -v runs="$runs" 'BEGIN {
                reached = ""
                if (split(paper, p, "/") == 3) {
                    error = 100 * sqrt(p[1] / 100 * (1 - p[1] / 100) / runs)
                    good = 100 * dr >= p[1] - 2 * error - 2 && 100 * pcd >= p[2] - 2.5 && auc >= p[3] - 0.005
                    reached = good ? "yes" : "no"
                }
                printf "| %s | %g %% | %s | %s | %.0f | %.1f | %.3f | %s | %s |\n", data, 100 * noise,
                    loss, rate, 100 * dr, 100 * pcd, auc, paper == "-" ? "" : paper, reached
                exit reached == "no" }' || missed=1
    done
done
exit "$missed"
