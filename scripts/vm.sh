#!/usr/bin/env bash
# Runs the backends on other kernels: boots Debian's 5.10, 6.1, 6.12 and newest backport in QEMU (emulated: needs no
# KVM, no root), records a lossy transfer there with each backend, joins and verifies it, and prints a table.
#     scripts/vm.sh [KERNEL…]      # 5.10 6.1 6.12 newest; all of them by default
# Kernels are cached in $XDG_CACHE_HOME/tcpprobe (or target/vm); what each machine said, and its traces, are left in
# target/vm/. BACKENDS="fentry kprobe" runs only these, SCENARIO=FILE another script inside the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

declare -A suites=([5.10]=bullseye-security [6.1]=bookworm-security [6.12]=trixie-security [newest]=trixie-backports)
kernels=("$@")
((${#kernels[@]})) || kernels=(5.10 6.1 6.12 newest)
for kernel in "${kernels[@]}"; do
    [[ -v "suites[$kernel]" ]] || { echo "vm: no kernel $kernel: there are ${!suites[*]}" >&2; exit 2; }
done

needs=("qemu-system-x86_64 qemu-system-x86" "depmod kmod" "busybox busybox-static" "cpio cpio" "dash dash" "ip iproute2"
    "tc iproute2" "ethtool ethtool" "iperf3 iperf3" "tcpdump tcpdump" "xz xz-utils" "zstd zstd")
missing=()
for need in "${needs[@]}"; do
    read -r command package <<<"$need"
    command -v "$command" >/dev/null || missing+=("$package")
done
if ((${#missing[@]})); then
    echo "vm: run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

mkdir -p target/vm
out=$PWD/target/vm
cache=$out/kernels
[[ -z "${XDG_CACHE_HOME:-}" ]] || cache=$XDG_CACHE_HOME/tcpprobe
mkdir -p "$cache"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# fetch KERNEL: unpacks the kernel and its modules to $cache/KERNEL, through a package state of its own.
fetch() {
    local root=$cache/$1 suite=${suites[$1]} state mirror uri image packages apt
    [[ ! -e "$root/complete" ]] || return 0
    echo "vm: fetches the kernel of $suite" >&2
    rm -rf "$root"
    state=$root/apt
    mkdir -p "$state"/{lists/partial,archives/partial,parts,packages}
    : >"$state/status"
    mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
    case $suite in
        *-security) uri=$mirror/debian-security ;;
        *) uri=$mirror/debian ;;
    esac
    echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$state/list"
    apt=(-qq -o "Dir::Etc::sourcelist=$state/list" -o "Dir::Etc::sourceparts=$state/parts" -o "Dir::State=$state"
        -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state"
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3)
    apt-get "${apt[@]}" update
    # the metapackage names the suite's image; newer suites split that into several packages
    image=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
    mapfile -t packages < <(apt-cache "${apt[@]}" depends "$image" |
        awk '/Depends: linux-(binary|modules|base)-[0-9]/ {print $2}')
    (cd "$state/packages" && apt-get "${apt[@]}" download "$image" "${packages[@]}")
    for package in "$state"/packages/*.deb; do
        dpkg -x "$package" "$root"
    done
    rm -rf "$state"
    touch "$root/complete"
}

# pack FOLDER: an initramfs of a folder, on standard output. Several of them, one after the other, are one.
pack() {
    (cd "$1" && find . | cpio --create --format=newc --owner=0:0 --quiet | gzip -1)
}

# modules KERNEL: the kernel modules that the scenario needs and those that these need, in their order of loading.
modules() {
    local modules version base into=$scratch/modules-$1/modules file name
    modules=$(find "$cache/$1" -type d -path '*lib/modules/*' -prune | head -1)
    version=$(basename "$modules") base=${modules%/lib/modules/*}
    [[ -e "$modules/modules.dep" ]] || depmod -b "$base" "$version"
    mkdir -p "$into"
    for name in veth sch_netem sch_tbf virtio_pci virtio_blk; do
        # what is built in shows no line
        modprobe -d "$base" -S "$version" --show-depends "$name" 2>/dev/null || true
    done | awk '/^insmod/ && !seen[$2]++ {print $2}' | while read -r file; do
        name=$(basename "$file")
        name=${name%.xz} name=${name%.zst}
        case $file in
            *.xz) xz -dc "$file" ;;
            *.zst) zstd -qdc "$file" ;;
            *) cat "$file" ;;
        esac >"$into/$name"
        echo "$name"
    done >"$scratch/order"
    mv "$scratch/order" "$into/order"
    pack "$scratch/modules-$1"
}

# The root of every machine: programs, the libraries that they are linked to, the scenario.
cargo build --locked -p tcpprobe
root=$scratch/root
mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,etc,var/run}
programs=()
for program in dash ip tc ethtool iperf3 tcpdump; do
    programs+=("$(command -v "$program")")
done
cp "$(command -v busybox)" "${programs[@]}" "$root/bin/"
strip -o "$root/bin/tcpprobe" "${CARGO_TARGET_DIR:-target}/debug/tcpprobe"
for library in $(ldd "${programs[@]}" "$root/bin/tcpprobe" | grep -o '/[^ :]*\.so[^ :]*' | sort -u); do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
done
cp "${SCENARIO:-scripts/vm-scenario.sh}" "$root/scenario"
echo "root:x:0:0:root:/:/bin/dash" >"$root/etc/passwd"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
while read -r module; do insmod "/modules/$module" || echo "no module $module"; done </modules/order
ip link set lo up
dash /scenario $(sed -n 's/.*backends=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' ')
echo "scenario ended: $?"
tar cf /dev/vda -C /tmp . 2>/dev/null
sync
reboot -f
INIT
chmod +x "$root/init"
# busybox brings an ip and a tc of its own, which lack most of what these can: they must not replace them
pack "$root" >"$scratch/root.img"

backends=${BACKENDS:-fentry kprobe tracepoint}
status=0
for kernel in "${kernels[@]}"; do
    fetch "$kernel"
    { cat "$scratch/root.img"; modules "$kernel"; } >"$scratch/$kernel.img"
    vmlinuz=$(find "$cache/$kernel/" -name 'vmlinuz*' -type f | head -1)
    rm -f "$scratch/$kernel.disk"
    truncate -s 256M "$scratch/$kernel.disk"
    echo "vm: boots ${vmlinuz#"$cache/"}" >&2
    # instructions are the clock, so that a slow host changes no figure
    timeout "${VM_SECONDS:-400}" qemu-system-x86_64 -accel tcg -smp 1 -m 1024M -nodefaults -display none -serial stdio \
        -no-reboot -icount shift=1,sleep=off -rtc base=2026-01-01T00:00:00,clock=vm -seed 1 \
        -cpu max,-rdrand,-rdseed -kernel "$vmlinuz" -initrd "$scratch/$kernel.img" \
        -drive "file=$scratch/$kernel.disk,format=raw,if=virtio" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr backends=${backends// /,}" \
        </dev/null | tr -d '\r' >"$out/$kernel.log" || true
    rm -rf "${out:?}/$kernel"
    mkdir -p "$out/$kernel"
    tar xf "$scratch/$kernel.disk" -C "$out/$kernel" 2>/dev/null || true
    # QEMU ends well whatever happened inside
    if ! grep -q '^scenario ended: 0' "$out/$kernel.log"; then
        echo "vm: $kernel did not run to its end; its last words, from $out/$kernel.log:" >&2
        tail -n 5 "$out/$kernel.log" >&2
        status=1
    fi
done

for kernel in "${kernels[@]}"; do
    sed -n "s/^RESULT /$kernel|/p" "$out/$kernel.log"
done | awk -F'|' '
    BEGIN { printf "%-7s %-11s %-8s %8s %9s %9s %6s %s\n", "kernel", "backend", "works", "packets", "exact", "+within", "retr.", "verify" }
    { printf "%-7s %-11s %-8s %8s %9s %9s %6s %s\n", $1, $2, $3, $4, $5, $6, $7, $8 }'
exit "$status"
