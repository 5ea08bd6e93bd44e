#!/bin/dash
# Inside a machine of scripts/vm.sh: records a lossy transfer with each backend that is named, joins it and verifies
# it. Prints a RESULT line per backend: backend|works|data packets|exact %|exact+within %|retransmissions matched|verify.
set -u
uname -r
head -c 0 /sys/kernel/btf/vmlinux || echo "no BTF"
grep -E ' (__tcp_transmit_skb|tcp_rcv_established|tcp_rcv_state_process)(\..*)?$' /proc/kallsyms
ip netns add a && ip netns add b || exit 1
ip link add va netns a type veth peer name vb netns b || exit 1
ip -n a addr add 10.77.0.1/24 dev va && ip -n b addr add 10.77.0.2/24 dev vb || exit 1
ip -n a link set va up && ip -n b link set vb up || exit 1
ip -n a link set lo up && ip -n b link set lo up || exit 1
tc -n a qdisc add dev va root netem delay 20ms loss 1% rate 20mbit limit 60 || exit 1
ip netns exec a ping -c 3 -q 10.77.0.2

tcpprobe check
ask() { tcpprobe sql "$trace" "$1" --format csv | tail -n +2; }
sent="packet_state WHERE dir = 'out' AND len > 0 AND flow_id = (SELECT flow_id FROM packet_state WHERE dir = 'out' GROUP BY 1 ORDER BY sum(len) DESC LIMIT 1)"

for backend; do
    echo "== $backend"
    trace=/tmp/$backend.db
    ip netns exec b iperf3 --server --daemon --one-off >/dev/null
    sleep 1
    if ! ip netns exec a tcpprobe record -w "$trace" --backend "$backend" -i va --port 5201 -- \
        iperf3 --client 10.77.0.2 --time "${SECONDS_EACH:-3}" --congestion cubic >/tmp/$backend.out 2>&1; then
        cat /tmp/$backend.out
        echo "RESULT $backend|$(tail -n 1 /tmp/$backend.out | cut -c 1-200 | tr '|' ' ')|||||"
        ip netns pids b | xargs kill 2>/dev/null
        continue
    fi
    cat /tmp/$backend.out
    echo "-- join"
    tcpprobe join "$trace" "/tmp/$backend.pcap" 2>&1
    echo "-- verify"
    tcpprobe verify "$trace" >/tmp/$backend.verify 2>&1
    verified=$?
    cat /tmp/$backend.verify
    echo "-- packets by match"
    tcpprobe sql "$trace" "SELECT dir, match, reason, count(*) AS packets, sum(retransmission) AS retransmissions FROM packet_state GROUP BY 1, 2, 3"
    tcpprobe sql "$trace" "SELECT kind, phase, count(*) FROM samples GROUP BY 1, 2"
    tcpprobe sql "$trace" "SELECT cause, sum(count) FROM losses GROUP BY 1" 2>&1
    counted=$(ask "SELECT count(*) AS n, round(100.0 * sum(match = 'exact') / count(*), 2) AS exact,
        round(100.0 * sum(match IN ('exact', 'within')) / count(*), 2) AS well, sum(retransmission) AS again FROM $sent")
    again=$(ask "SELECT count(*) AS n FROM samples WHERE kind = 'retransmit' AND phase = 'transmit' AND len > 0")
    figures=$(echo "$counted" | tr , '|')/$again
    [ "$verified" = 0 ] && word=ok || word="exit $verified: $(grep -c . /tmp/$backend.verify) lines"
    echo "RESULT $backend|yes|$figures|$word"
done
exit 0
