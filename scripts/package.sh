#!/usr/bin/env bash
# Builds the Debian package; its path is printed last. Needs cargo-deb (cargo install cargo-deb).
# Usage: scripts/package.sh [FOLDER]     into FOLDER instead of target/debian
set -euo pipefail
into=$(realpath -m "${1:-$(dirname "$0")/../target/debian}")
cd "$(dirname "$0")/.."

if ! command -v cargo-deb >/dev/null; then
    echo "package: no cargo-deb: cargo install cargo-deb" >&2
    exit 1
fi
scripts/setup.sh >/dev/null
cargo build --release --locked -p tcpprobe
tcpprobe="${CARGO_TARGET_DIR:-target}/release/tcpprobe"

# Man pages and completions follow from the program.
made="${CARGO_TARGET_DIR:-target}/release/package"
rm -rf "$made"
mkdir -p "$made/man" "$into"
"$tcpprobe" generate man -o "$made/man"
"$tcpprobe" generate bash > "$made/tcpprobe.bash"
"$tcpprobe" generate zsh > "$made/_tcpprobe"
"$tcpprobe" generate fish > "$made/tcpprobe.fish"

cargo deb --no-build --locked --strip -p tcpprobe -o "$into/"
