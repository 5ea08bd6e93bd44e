#!/usr/bin/env bash
# Builds the Debian package; its path is printed last. Needs cargo-deb (cargo install cargo-deb).
# Usage: scripts/package.sh [--program FILE] [FOLDER]
#   FOLDER          where it goes instead of target/debian
#   --program FILE  packages this program instead of building it, for a test: less compressed
set -euo pipefail
program= fast=
if [[ "${1:-}" == --program ]]; then
    program=$(realpath "$2")
    fast=--fast
    shift 2
fi
into=$(realpath -m "${1:-$(dirname "$0")/../target/debian}")
cd "$(dirname "$0")/.."

if ! command -v cargo-deb >/dev/null; then
    echo "package: no cargo-deb: cargo install cargo-deb" >&2
    exit 1
fi
scripts/setup.sh >/dev/null
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
if [[ -n "$program" ]]; then
    # cargo-deb takes what stands where cargo builds
    CARGO_TARGET_DIR=$(mktemp -d)
    trap 'rm -rf "$CARGO_TARGET_DIR"' EXIT
    mkdir "$CARGO_TARGET_DIR/release"
    cp "$program" "$CARGO_TARGET_DIR/release/tcpprobe"
else
    cargo build --release --locked -p tcpprobe
fi
tcpprobe="$CARGO_TARGET_DIR/release/tcpprobe"

# Man pages and completions follow from the program, notices from what it is linked of.
made="$CARGO_TARGET_DIR/release/package"
rm -rf "$made"
mkdir -p "$made/man" "$into"
"$tcpprobe" generate man -o "$made/man"
"$tcpprobe" generate bash > "$made/tcpprobe.bash"
"$tcpprobe" generate zsh > "$made/_tcpprobe"
"$tcpprobe" generate fish > "$made/tcpprobe.fish"
scripts/notices.py > "$made/THIRD-PARTY"

cargo deb --no-build ${fast:+"$fast"} --locked --strip -p tcpprobe -o "$into/"
