#!/usr/bin/env bash
# Runs tcpprobe on other kernels: boots Debian's 5.10, 6.1, 6.12 and newest backport in QEMU (emulated: needs no KVM, no
# root) and makes the recordings of scripts/vm/ there. tests/tests/kernels judges them; by hand:
#     scripts/vm.sh [KERNEL…]      # 5.10 6.1 6.12 newest; all of them by default
# Kernels are cached in ${XDG_CACHE_HOME:-~/.cache}/tcpprobe/kernels. target/vm/KERNEL/ gets each run's files,
# target/vm/KERNEL.log what the machine said.
#     VM_RUNS="fentry_bbr mptcp"   # only these runs, of those in scripts/vm/main.sh
#     VM_PROGRAMS=FOLDER           # the folder of tcpprobe and traffic; else target/debug, built anew
#     VM_OUT=FOLDER                # instead of target/vm
#     VM_PADDING=BYTES             # in the initramfs: another size makes another run; else they differ little
# Exit code 1: a machine did not get to its end; 3: what is needed is not here, or a kernel cannot be fetched.
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
    "tc iproute2" "iperf3 iperf3" "xz xz-utils" "zstd zstd" "setcap libcap2-bin" "setpriv util-linux")
missing=()
for need in "${needs[@]}"; do
    read -r command package <<<"$need"
    command -v "$command" >/dev/null || missing+=("$package")
done
if ((${#missing[@]})); then
    echo "vm: lacks programs: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 3
fi

out=${VM_OUT:-$PWD/target/vm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tcpprobe/kernels
mkdir -p "$out" "$cache"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# fetch KERNEL: has the kernel and its modules in $cache/KERNEL. One process at a time fetches one; what a killed one has
# left is another folder than the one that counts.
fetch() {
    local lock
    [[ ! -d "$cache/$1" ]] || return 0
    exec {lock}>"$cache/$1.lock"
    flock "$lock"
    if [[ ! -d "$cache/$1" ]]; then
        echo "vm: fetches the kernel of ${suites[$1]}" >&2
        rm -rf "$cache/$1.part"
        # not `if`: bash would then go on after a failure inside
        (set -e; unpack "${suites[$1]}" "$cache/$1.part") &
        wait $! || {
            echo "vm: kernel $1 cannot be had: Debian's ${suites[$1]} cannot be fetched (DEBIAN_MIRROR names another mirror)" >&2
            exit 3
        }
        mv -T "$cache/$1.part" "$cache/$1"
    fi
    exec {lock}>&-
}

# unpack SUITE FOLDER: fetches a suite's kernel and its modules, through a package state of its own.
unpack() {
    local suite=$1 root=$2 state mirror uri image packages package apt modules
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
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3
        -o APT::Update::Error-Mode=any)
    apt-get "${apt[@]}" update
    # the metapackage names the suite's image; newer suites split that into several packages
    image=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
    [[ -n "$image" ]]
    mapfile -t packages < <(apt-cache "${apt[@]}" depends "$image" |
        awk '/Depends: linux-(binary|modules|base)-[0-9]/ {print $2}')
    (cd "$state/packages" && apt-get "${apt[@]}" download "$image" "${packages[@]}")
    for package in "$state"/packages/*.deb; do
        dpkg -x "$package" "$root"
    done
    rm -rf "$state"
    modules=$(find "$root" -type d -path '*lib/modules/*' -prune | head -1)
    depmod -b "${modules%/lib/modules/*}" "$(basename "$modules")"
}

# pack FOLDER: an initramfs of a folder, on standard output. Several of them, one after the other, are one.
pack() {
    (cd "$1" && find . | cpio --create --format=newc --owner=0:0 --quiet | gzip -1)
}

# modules KERNEL: the kernel modules that the runs need and those that these need, in their order of loading.
modules() {
    local modules version base into=$scratch/modules-$1/modules file name
    modules=$(find "$cache/$1" -type d -path '*lib/modules/*' -prune | head -1)
    version=$(basename "$modules") base=${modules%/lib/modules/*}
    mkdir -p "$into"
    for name in veth sch_netem tcp_bbr tcp_dctcp virtio_pci virtio_blk; do
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

# The root of every machine: programs, the libraries that they are linked to, the runs.
built=${VM_PROGRAMS:-}
if [[ -z "$built" ]]; then
    cargo build --locked -p tcpprobe -p tcpprobe-fixtures
    built=${CARGO_TARGET_DIR:-target}/debug
fi
root=$scratch/root
mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,etc,var/run}
programs=()
for program in dash ip tc iperf3 setcap setpriv; do
    programs+=("$(command -v "$program")")
done
cp "$(command -v busybox)" "${programs[@]}" "$root/bin/"
for program in tcpprobe traffic; do
    strip -o "$root/bin/$program" "$built/$program"
done
for library in $(ldd "${programs[@]}" "$root"/bin/{tcpprobe,traffic} | grep -o '/[^ :]*\.so[^ :]*' | sort -u); do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
done
cp -r scripts/vm "$root/runs"
mv "$root/runs/init" "$root/init"
chmod +x "$root/init"
printf '%s\n' root:x:0:0:root:/:/bin/dash user:x:1000:1000:user:/:/bin/dash >"$root/etc/passwd"
head -c "${VM_PADDING:-0}" /dev/zero >"$root/etc/padding"
# busybox brings an ip and a tc of its own, which lack most of what these can: they must not replace them
pack "$root" >"$scratch/root.img"

runs=${VM_RUNS:-}
status=0
for kernel in "${kernels[@]}"; do
    fetch "$kernel"
    { cat "$scratch/root.img"; modules "$kernel"; } >"$scratch/$kernel.img"
    vmlinuz=$(find "$cache/$kernel/" -name 'vmlinuz*' -type f | head -1)
    rm -f "$scratch/$kernel.disk"
    truncate -s 256M "$scratch/$kernel.disk"
    echo "vm: boots ${vmlinuz#"$cache/"}" >&2
    # instructions are the clock, so that a slow host changes no figure; but for the clock on the board, which has to go on
    # while the machine sleeps, and to wake it, which the kernel leaves to the HPET where there is one
    timeout "${VM_SECONDS:-900}" qemu-system-x86_64 -accel tcg -smp 1 -m 1024M -nodefaults -display none -serial stdio \
        -no-reboot -icount shift=1,sleep=off -rtc base=2026-01-01T00:00:00,clock=host -seed 1 \
        -cpu max,-rdrand,-rdseed -kernel "$vmlinuz" -initrd "$scratch/$kernel.img" \
        -drive "file=$scratch/$kernel.disk,format=raw,if=virtio" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr hpet=disable runs=${runs// /,}" \
        </dev/null | sed -u 's|\r||g' >"$out/$kernel.log" || true
    rm -rf "${out:?}/$kernel"
    mkdir -p "$out/$kernel"
    tar xf "$scratch/$kernel.disk" -C "$out/$kernel" 2>/dev/null || true
    # QEMU ends well whatever happened inside
    if ! grep -q '^runs ended: 0' "$out/$kernel.log"; then
        echo "vm: $kernel did not run to its end; its last words, from $out/$kernel.log:" >&2
        tail -n 5 "$out/$kernel.log" >&2
        status=1
    fi
done

exit "$status"
