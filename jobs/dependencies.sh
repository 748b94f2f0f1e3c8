#!/usr/bin/env bash
# Makes sure that what the program (and with `tests`, its tests) is built from is there.
#
# Each need is looked for by what it provides, so that a compiler or an MPI from anywhere counts.
# What is missing is installed with apt-get where that can be done (as root or by sudo);
# elsewhere it is named, and the script fails.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: jobs/dependencies.sh [build|bench|tests]

Checks for what espalier is built from (build, the default) and what its
benchmarks or tests need besides (bench, tests). On Debian and Ubuntu installs what is missing, as root or
with sudo; elsewhere names the missing packages and ends with exit code 1.
EOF
}

has_command() { command -v "$1" >/dev/null 2>&1; }
has_clang() { has_command clang-14 || has_command clang; }
has_libfuzzer() { compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a' >/dev/null; }
has_browser() { has_command chromium || has_command chromium-browser; }
has_library() { has_command pkg-config && pkg-config --exists "$1"; }

# Debian package, and how to see that it is not needed.
build_needs=(
    "gcc          has_command cc"
    "make         has_command make"
    "cmake        has_command cmake"
    "pkg-config   has_command pkg-config"
    "libopenmpi-dev has_command mpicc"
    "openmpi-bin  has_command mpirun"
    "libconfig-dev has_library libconfig"
    "libcjson-dev has_library libcjson"
    "zlib1g-dev   has_library zlib"
    "libssl-dev   has_library libcrypto"
    "curl         has_command curl"
)
test_needs=(
    "libcmocka-dev has_library cmocka"
    "python3      has_command python3"
)
# For comparisons and tests that are skipped without them.
bench_wants=(
    "libopenblas-dev has_library openblas"
)
test_wants=(
    "${bench_wants[@]}"
    "gcc-aarch64-linux-gnu has_command aarch64-linux-gnu-gcc"
    "libc6-dev-arm64-cross has_command aarch64-linux-gnu-gcc"
    "clang-14     has_clang"
    "libclang-rt-14-dev has_libfuzzer"
    "slurmctld    has_command slurmctld"
    "slurmd       has_command slurmd"
    "slurm-client has_command sbatch"
    "slurm-wlm-basic-plugins has_command slurmd"
    "util-linux   has_command unshare"
    "iproute2     has_command ip"
    "chromium     has_browser"
)

# Prints the packages whose check fails.
missing_of() {
    local need package check
    for need in "$@"; do
        read -r package check <<<"$need"
        $check || echo "$package"
    done
}

# Those of the packages that apt-get can install here.
known_to_apt() {
    local package
    for package in "$@"; do
        ! apt-cache show "$package" >/dev/null 2>&1 || echo "$package"
    done
}

# Prints the command that apt-get runs behind; fails where packages cannot be installed.
installer() {
    has_command apt-get || return 1
    [ "$(id -u)" -eq 0 ] || { has_command sudo && echo sudo; }
}

install() {
    echo "installing: $*" >&2
    $before env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

case "${1:-build}" in
build) needs=("${build_needs[@]}") optional=() ;;
bench) needs=("${build_needs[@]}") optional=("${bench_wants[@]}") ;;
tests) needs=("${build_needs[@]}" "${test_needs[@]}") optional=("${test_wants[@]}") ;;
--help | -h) usage && exit 0 ;;
*) usage >&2 && exit 2 ;;
esac

mapfile -t packages < <(missing_of "${needs[@]}")
mapfile -t wants < <(missing_of "${optional[@]}")
[ $((${#packages[@]} + ${#wants[@]})) -gt 0 ] || exit 0
if before=$(installer); then
    $before apt-get update -q >&2
    [ "${#packages[@]}" -eq 0 ] || install "${packages[@]}"
    mapfile -t wants < <(known_to_apt "${wants[@]}")
    [ "${#wants[@]}" -eq 0 ] || install "${wants[@]}" || true
fi

mapfile -t packages < <(missing_of "${needs[@]}")
mapfile -t wants < <(missing_of "${optional[@]}")
[ "${#wants[@]}" -eq 0 ] || echo "without ${wants[*]}: what needs them is skipped" >&2
if [ "${#packages[@]}" -gt 0 ]; then
    echo "missing (by their names in Debian and Ubuntu): ${packages[*]}" >&2
    echo "install them, then run this again" >&2
    exit 1
fi
