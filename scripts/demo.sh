#!/usr/bin/env bash
# Shows tcpprobe at work: records an iperf3 transfer between two network namespaces that loses packets, joins the
# capture, and prints the sender's state per packet around a loss. Leaves the trace in ./demo/.
set -euo pipefail
cd "$(dirname "$0")/.."

# Namespaces and BPF need root; building does not.
as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || { echo "demo: needs root: run it as root, or install sudo" >&2; exit 1; }
    as_root=(sudo)
    echo "demo: asks for root through sudo, for network namespaces and BPF" >&2
fi

scripts/setup.sh
PATH="$PATH:/usr/sbin:/sbin"
cargo build --release --locked -p tcpprobe
tcpprobe="${CARGO_TARGET_DIR:-target}/release/tcpprobe"

# where all of this runs under sudo the folder is root's: so is the recording
((EUID)) || unset SUDO_UID SUDO_GID
mkdir -p demo
folder=$(mktemp -d demo/XXXXXX)
trace=$folder/trace.db
sender=tcpprobe-demo-$$-a
receiver=tcpprobe-demo-$$-b

cleanup() {
    # A namespace goes away with its last process.
    "${as_root[@]}" ip netns pids "$receiver" 2>/dev/null | xargs -r "${as_root[@]}" kill 2>/dev/null || true
    "${as_root[@]}" ip netns del "$sender" 2>/dev/null || true
    "${as_root[@]}" ip netns del "$receiver" 2>/dev/null || true
}
trap cleanup EXIT

echo "== a network: sender -- 20 Mbit/s, one packet in 600 lost --> receiver"
"${as_root[@]}" sh -e <<NETWORK
    ip netns add $sender
    ip netns add $receiver
    ip link add va netns $sender type veth peer name vb netns $receiver
    ip -n $sender addr add 10.77.0.1/24 dev va
    ip -n $receiver addr add 10.77.0.2/24 dev vb
    ip -n $sender link set va up
    ip -n $receiver link set vb up
    # Segments as they go over a wire: one loss is one segment.
    ip netns exec $sender ethtool -K va tso off gso off gro off
    tc -n $sender qdisc add dev va root tbf rate 20mbit burst 16kb latency 60ms
    ip netns exec $receiver nft '
        table netdev demo {
            chain loss {
                type filter hook ingress device vb priority 0; policy accept;
                meta l4proto tcp numgen inc mod 600 == 400 drop
            }
        }'
    ip netns exec $receiver iperf3 --server --daemon --one-off
NETWORK

echo "== tcpprobe record -- iperf3"
"${as_root[@]}" ip netns exec "$sender" "$tcpprobe" record -w "$trace" -i va --port 5201 -- \
    iperf3 --client 10.77.0.2 --time 4 --congestion cubic
"${as_root[@]}" chown -R "$(id -u):$(id -g)" "$folder"

echo "== tcpprobe join"
"$tcpprobe" join "$trace" "$folder/trace.pcap"

echo "== tcpprobe verify"
"$tcpprobe" verify "$trace"

echo "== sessions"
"$tcpprobe" sql "$trace" "
    SELECT id, kernel, backend, samples, lost, complete FROM sessions"

echo "== how the packets' state is known"
"$tcpprobe" sql "$trace" "
    SELECT dir, match, count(*) AS packets, sum(retransmission) AS retransmissions
    FROM packet_state GROUP BY dir, match"

echo "== around a loss: the sent packets at which the sender's window or state was another than at the one before"
"$tcpprobe" sql "$trace" "
    WITH sent AS (
        SELECT *, min(ts_ns) OVER () AS start_ns, first_value(seq) OVER sending AS start_seq,
               lag(snd_cwnd) OVER sending AS last_cwnd, lag(ca_state) OVER sending AS last_state
        FROM packet_state
        WHERE dir = 'out' AND flow_id = (SELECT flow_id FROM packets WHERE dir = 'out' GROUP BY 1 ORDER BY sum(len) DESC)
        WINDOW sending AS (ORDER BY number)
    ), turns AS (
        SELECT *, row_number() OVER (ORDER BY number) AS turn FROM sent
        WHERE len > 0 AND (retransmission OR snd_cwnd != last_cwnd OR ca_state != last_state)
    ), loss AS (
        SELECT turn FROM turns WHERE retransmission LIMIT 1 OFFSET 3
    )
    SELECT number AS packet, printf('%.1f', (ts_ns - start_ns) / 1e6) AS ms,
           (seq - start_seq) & 0xffffffff AS seq_offset, len, retransmission, snd_cwnd, snd_ssthresh,
           CASE ca_state WHEN 0 THEN 'Open' WHEN 1 THEN 'Disorder' WHEN 2 THEN 'CWR'
                         WHEN 3 THEN 'Recovery' WHEN 4 THEN 'Loss' END AS ca_state, match
    FROM turns WHERE turn - (SELECT turn FROM loss) BETWEEN -4 AND 13 ORDER BY number"

echo "The trace is $trace, the capture $folder/trace.pcap."
