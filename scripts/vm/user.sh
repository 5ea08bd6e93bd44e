# Inside a machine of scripts/vm.sh: recordings of a user who is not root, with a program that has file capabilities.

# as_user CAPABILITIES BACKEND: records a transfer as a user, with just these on the program (none where empty).
as_user() {
    rm -rf /tmp/user
    mkdir /tmp/user
    cp /bin/tcpprobe /tmp/user/tcpprobe
    [ -z "$1" ] || setcap "$1+ep" /tmp/user/tcpprobe || return 1
    echo "$1" >"$folder/capabilities.txt"
    chown 1000:1000 "$folder"
    fresh_path
    ip netns exec a setpriv --reuid=1000 --regid=1000 --clear-groups /tmp/user/tcpprobe record -w "$folder/trace.db" \
        --backend "$2" -i va --port 5201 -- iperf3 --client 10.77.0.2 --time 2 --congestion cubic \
        >"$folder/record.txt" 2>&1
    echo $? >"$folder/status"
    path_figures
}

# What `tcpprobe check` says to the user of the last run.
checked() {
    ip netns exec a setpriv --reuid=1000 --regid=1000 --clear-groups /tmp/user/tcpprobe check >"$folder/check.txt" 2>&1
    echo $? >"$folder/check.status"
}

# BPF maps are locked memory before 5.11, and a user's limit of it is 64 KiB
case $(uname -r) in
5.10.*) enough=cap_bpf,cap_perfmon,cap_net_raw,cap_sys_resource ;;
*) enough=cap_bpf,cap_perfmon,cap_net_raw ;;
esac

run_user_fentry() { as_user "$enough" fentry; }
run_user_kprobe() {
    # Debian's 3 keeps perf events, and with them kprobes, from all but root
    sysctl -q -w kernel.perf_event_paranoid=2
    as_user "$enough" kprobe
    # once for all backends: trying every way takes an emulated machine a quarter of a minute
    checked
    sysctl -q -w kernel.perf_event_paranoid=3
}
run_user_tracepoint() { as_user "$enough" tracepoint; }
run_user_without_capabilities() { as_user "" auto; checked; }
run_user_without_perfmon() { as_user cap_bpf,cap_net_raw auto; checked; }
