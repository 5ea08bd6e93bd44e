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
run_kprobe_cubic() { transfer kprobe cubic; }
run_kprobe_bbr() { transfer kprobe bbr; }
run_tracepoint_cubic() { transfer tracepoint cubic; }
run_tracepoint_bbr() { transfer tracepoint bbr; }
