#!/usr/bin/env bash
# Makes sure that what the program (and with `tests`, its tests) is built from is there.
#
# Each need is looked for by what it provides, so that a compiler or an MPI from anywhere counts.
# What is missing is installed with apt-get where that can be done (as root or by sudo);
# elsewhere it is named, and the script fails.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: jobs/dependencies.sh [build|tests]

Checks for what espalier is built from (build, the default) and what its tests
need besides (tests). On Debian and Ubuntu installs what is missing, as root or
with sudo; elsewhere names the missing packages and ends with exit code 1.
EOF
}

has_command() { command -v "$1" >/dev/null 2>&1; }
has_library() { has_command pkg-config && pkg-config --exists "$1"; }

# Debian package, and how to see that it is not needed.
build_needs=(
    "gcc          has_command cc"
    "make         has_command make"
    "cmake        has_command cmake"
    "pkg-config   has_command pkg-config"
    "libopenmpi-dev has_command mpicc"
    "openmpi-bin  has_command mpirun"
    "libopenblas-dev has_library openblas"
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

# Prints the packages whose check fails.
missing_of() {
    local need package check
    for need in "$@"; do
        read -r package check <<<"$need"
        $check || echo "$package"
    done
}

install_with() {
    echo "installing: ${packages[*]}" >&2
    "$@" apt-get update -q >&2
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "${packages[@]}" >&2
}

case "${1:-build}" in
build) needs=("${build_needs[@]}") ;;
tests) needs=("${build_needs[@]}" "${test_needs[@]}") ;;
--help | -h) usage && exit 0 ;;
*) usage >&2 && exit 2 ;;
esac

mapfile -t packages < <(missing_of "${needs[@]}")
[ "${#packages[@]}" -gt 0 ] || exit 0

if has_command apt-get && [ "$(id -u)" -eq 0 ]; then
    install_with
elif has_command apt-get && has_command sudo; then
    install_with sudo
else
    echo "missing (by their names in Debian and Ubuntu): ${packages[*]}" >&2
    echo "install them, then run this again" >&2
    exit 1
fi

mapfile -t packages < <(missing_of "${needs[@]}")
if [ "${#packages[@]}" -gt 0 ]; then
    echo "still missing after the installation: ${packages[*]}" >&2
    exit 1
fi
