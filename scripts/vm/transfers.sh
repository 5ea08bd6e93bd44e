# Inside a machine of scripts/vm.sh: each backend records a lossy transfer with cubic and one with bbr.

transfer() {
    record "$1" -- iperf3 --client 10.77.0.2 --time 3 --congestion "$2"
}

run_fentry_cubic() {
    transfer fentry cubic
    # once here, to see that the program's own join and check work on this kernel
    cp "$folder/trace.db" "$folder/joined.db"
    { tcpprobe join "$folder/joined.db" "$folder/trace.pcap" && tcpprobe verify "$folder/joined.db"; } \
        >"$folder/joined.txt" 2>&1
    echo $? >"$folder/joined.status"
}
run_fentry_bbr() { transfer fentry bbr; }

# What the path would lose it marks instead. iperf3 chooses dctcp when the SYNs are over, in which ECN is agreed on: the
# routes choose it before.
run_fentry_dctcp() {
    lossy=$path
    ip -n a route add 10.77.0.2 dev va congctl dctcp && ip -n b route add 10.77.0.1 dev vb congctl dctcp
    path="delay 20ms loss 5% ecn rate 20mbit limit 200"
    transfer fentry dctcp
    path=$lossy
    ip -n a route del 10.77.0.2 && ip -n b route del 10.77.0.1
}

run_kprobe_cubic() { transfer kprobe cubic; }
run_kprobe_bbr() { transfer kprobe bbr; }
run_tracepoint_cubic() { transfer tracepoint cubic; }
run_tracepoint_bbr() { transfer tracepoint bbr; }

# Retransmissions that fail in the sender itself: the path goes down, then there is no route, then both are back.
run_failing() {
    fresh_path "delay 20ms rate 20mbit limit 200"
    ip netns exec a tcpprobe record -w "$folder/trace.db" -i va --port 5201 -- \
        iperf3 --client 10.77.0.2 --time 1 --congestion cubic >"$folder/record.txt" 2>&1 &
    await "data is sent" connection '$5 > "00001000"'
    tc -n a qdisc change dev va root netem loss 100%
    await "a timeout" connection '$7 > "00000000"'
    ip -n a route add unreachable 10.77.0.2
    so_far=$(ip netns exec a cat /proc/net/tcp | awk '$3 ~ /:1451$/ && $7 > most { most = $7 } END { print most }')
    await "a timeout without a route" connection '$7 > "'"$so_far"'"'
    ip -n a route del unreachable 10.77.0.2
    tc -n a qdisc change dev va root netem loss 0% delay 20ms rate 20mbit limit 200
    wait $!
    echo $? >"$folder/status"
    path_figures
}

# Is there a connection of a to port 5201 of which this condition of awk holds? (5: bytes in its queues, 7: timeouts in a
# row; hexadecimal)
connection() {
    ip netns exec a cat /proc/net/tcp | awk '$3 ~ /:1451$/ && '"$1"' { found = 1 } END { exit !found }'
}

# The wall clock is set forward by an hour and back by two while data is on its way.
run_fentry_stepped() {
    transfer fentry cubic &
    await "data is sent" connection '$5 > "00001000"'
    set_clock 3600
    sleep 1
    set_clock -7200
    wait $!
}

# The machine sleeps while data is on its way, until the clock on its board wakes it: the monotonic clock stands still,
# and the wall clock does not.
run_fentry_suspended() {
    transfer fentry cubic &
    await "data is sent" connection '$5 > "00001000"'
    echo +4 >/sys/class/rtc/rtc0/wakealarm
    echo mem >/sys/power/state
    echo $? >"$folder/suspended.status"
    wait $!
}

# set_clock SECONDS: sets the wall clock that much forward, or back.
set_clock() { date -s "@$(($(date +%s) + $1))" >/dev/null; }
