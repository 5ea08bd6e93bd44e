# Inside a machine of scripts/vm.sh: connections that begin, or go on, in another way than usual.

# exchange CONNECTIONS OPTION…: so many connections one after the other, with data both ways, on a fresh lossy path.
exchange() {
    connections=$1
    shift
    # that data may come with a SYN is a setting of the host, not of the server
    served=$(echo "$*" | sed 's/--fastopen//')
    fresh_path
    # shellcheck disable=SC2086
    ip netns exec b traffic serve --bind 10.77.0.2:5202 --reply 200000 --connections "$connections" $served \
        >"$folder/server.txt" 2>&1 &
    await "traffic listens" listens 5202 || return 1
    # shellcheck disable=SC2016
    ip netns exec a tcpprobe record -w "$folder/trace.db" -i va --port 5202 -- dash -c '
        for i in $(seq '"$connections"'); do
            traffic send --connect 10.77.0.2:5202 --bytes 1000000 --reply 200000 "$@" || exit 1
        done' dash "$@" >"$folder/record.txt" 2>&1
    echo $? >"$folder/status"
    path_figures
    # where it was not reached, nothing will come any more
    kill $! 2>/dev/null
    wait $! 2>/dev/null
    for end in a b; do ip netns exec $end cat /proc/net/netstat; done >"$folder/netstat.txt"
}

both() { for end in a b; do ip netns exec $end sysctl -q -w "$1" || return 1; done; }

run_mptcp() {
    [ -e /proc/sys/net/mptcp/enabled ] || { echo "this kernel has no MPTCP" >"$folder/lacking.txt"; return; }
    both net.mptcp.enabled=1
    ip -n a addr add 10.77.1.1/24 dev va && ip -n b addr add 10.77.1.2/24 dev vb
    for end in a b; do ip -n $end mptcp limits set subflows 2 add_addr_accepted 2; done
    ip -n a mptcp endpoint add 10.77.1.1 dev va subflow
    # the path may lose the only SYN of a connection's second subflow
    exchange 3 --mptcp
    ip -n a mptcp endpoint flush
    ip -n a addr del 10.77.1.1/24 dev va && ip -n b addr del 10.77.1.2/24 dev vb
}

# the first connection gets the cookie, at times another one too; those behind it send data with their SYN
run_fastopen() {
    # client, server, and every listening socket a server
    both net.ipv4.tcp_fastopen=0x403
    exchange 4 --fastopen
    both net.ipv4.tcp_fastopen=1
}

run_syncookies() {
    ip netns exec b sysctl -q -w net.ipv4.tcp_syncookies=2
    exchange 2
    ip netns exec b sysctl -q -w net.ipv4.tcp_syncookies=1
}

run_accecn() {
    # both ends ask for it and accept it
    # older kernels accept the value too, and mean something else by it
    case $(uname -r) in
    [1-5].* | 6.[0-9].* | 6.1[0-7].*) echo "AccECN is there since Linux 6.18" >"$folder/lacking.txt"; return ;;
    esac
    both net.ipv4.tcp_ecn=3
    exchange 1
    both net.ipv4.tcp_ecn=2
}
