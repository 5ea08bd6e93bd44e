# Inside a machine of scripts/vm.sh: the three backends record one and the same transfer, each within the other.

nested() {
    fresh_path
    each="ip netns exec a tcpprobe record --port 5201 -w $folder"
    # shellcheck disable=SC2086
    $each/fentry.db --backend fentry -i va --pcap "$folder/trace.pcap" -- \
        tcpprobe record --port 5201 -w "$folder/kprobe.db" --no-pcap --backend kprobe -- \
        tcpprobe record --port 5201 -w "$folder/tracepoint.db" --no-pcap --backend tracepoint -- \
        iperf3 --client "$1" --time 2 --congestion "$2" >"$folder/record.txt" 2>&1
    echo $? >"$folder/status"
    path_figures
}

run_nested_ipv4() { nested 10.77.0.2 cubic; }
run_nested_ipv6() { nested fd77::2 bbr; }
run_nested_no_timestamps() {
    for end in a b; do ip netns exec $end sysctl -q -w net.ipv4.tcp_timestamps=0; done
    nested 10.77.0.2 cubic
    for end in a b; do ip netns exec $end sysctl -q -w net.ipv4.tcp_timestamps=1; done
}
