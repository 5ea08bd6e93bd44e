# Inside a machine of scripts/vm.sh: the network, and the steps that the runs share. A run's files are in $folder:
# trace.db, trace.pcap, what was said (record.txt), its exit code (status), the queue's figures (qdisc.txt), how much of
# what passed it was no TCP (icmpv6.txt), and, where the kernel lacks what the run is about, the reason (lacking.txt).

# Namespaces a and b. Loss is that of a path; what netem's limit drops is lost in the sender's own queue.
path="delay 20ms loss 1% rate 20mbit limit 200"
network() {
    ip netns add a && ip netns add b &&
        ip link add va netns a type veth peer name vb netns b &&
        ip -n a addr add 10.77.0.1/24 dev va && ip -n b addr add 10.77.0.2/24 dev vb &&
        ip -n a addr add fd77::1/64 dev va nodad && ip -n b addr add fd77::2/64 dev vb nodad &&
        ip -n a link set lo up && ip -n b link set lo up &&
        ip -n a link set va up && ip -n b link set vb up || return 1
    # an address that must be asked for first would keep the first SYN waiting below TCP
    macs=$(for end in a b; do ip netns exec $end cat /sys/class/net/v$end/address; done)
    set -- $macs
    ip -n a neigh replace 10.77.0.2 lladdr "$2" dev va && ip -n a neigh replace fd77::2 lladdr "$2" dev va &&
        ip -n b neigh replace 10.77.0.1 lladdr "$1" dev vb && ip -n b neigh replace fd77::1 lladdr "$1" dev vb || return 1
    ip netns exec b iperf3 --server --daemon
    await "iperf3 listens" listens 5201
}

# await WHAT COMMAND…: until the command succeeds, or 60 s have passed.
await() {
    what=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { echo "$folder: not within 60 s: $what"; return 1; }
        sleep 0.1
    done
}

# Does a socket of b listen at this port?
listens() {
    ip netns exec b cat /proc/net/tcp /proc/net/tcp6 | grep -qi ":$(printf %04x "$1") 0\+:0000 0A"
}

# The path between the two as it is at the start of a run, its counters at 0.
fresh_path() {
    tc -n a qdisc del dev va root 2>/dev/null
    # shellcheck disable=SC2086
    tc -n a qdisc add dev va root netem ${1:-$path}
    icmpv6_before=$(icmpv6)
}

# Messages that IPv6 itself has sent through va: they pass the path too.
icmpv6() { ip netns exec a awk '$1 == "Icmp6OutMsgs" { print $2 }' /proc/net/dev_snmp6/va; }

# What the path has dropped since it was fresh, and how many of what passed it may have been no TCP.
path_figures() {
    tc -n a -s qdisc show dev va >"$folder/qdisc.txt"
    echo $(($(icmpv6) - icmpv6_before)) >"$folder/icmpv6.txt"
}

# record BACKEND ARGUMENTS…: a recording in a of what passes port 5201, with its packets, on a fresh path.
record() {
    backend=$1
    shift
    fresh_path
    ip netns exec a tcpprobe record -w "$folder/trace.db" --backend "$backend" -i va --port 5201 "$@" \
        >"$folder/record.txt" 2>&1
    echo $? >"$folder/status"
    path_figures
}
