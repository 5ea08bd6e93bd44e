#!/usr/bin/env bash
# Makes the recording of docs/tutorial.md: a transfer that stalls, between two network namespaces with a slow router
# in the middle. Needs root; writes stall.db and stall.pcap into the current folder.
# Usage: record.sh [TCPPROBE]
set -euo pipefail
tcpprobe=$(realpath "$(command -v "${1:-tcpprobe}")")
name=tcpprobe-tutorial-$$
# the folder is root's: so is the recording, under sudo as well
unset SUDO_UID SUDO_GID
work=$(mktemp -d)

cleanup() {
    for end in a r b; do ip netns del "$name-$end" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

for end in a r b; do ip netns add "$name-$end"; done
ip link add va netns "$name-a" type veth peer name ra netns "$name-r"
ip link add vb netns "$name-b" type veth peer name rb netns "$name-r"
ip -n "$name-a" addr add 192.0.2.1/24 dev va
ip -n "$name-r" addr add 192.0.2.254/24 dev ra
ip -n "$name-b" addr add 198.51.100.7/24 dev vb
ip -n "$name-r" addr add 198.51.100.254/24 dev rb
ip -n "$name-a" link set va up
ip -n "$name-r" link set ra up
ip -n "$name-r" link set rb up
ip -n "$name-b" link set vb up
ip -n "$name-a" route add default via 192.0.2.254
ip -n "$name-b" route add default via 198.51.100.254
ip netns exec "$name-r" sysctl -qw net.ipv4.ip_forward=1
ip netns exec "$name-r" ethtool -K rb tso off gso off
# 20 Mbit/s, and room for some 50 segments
tc -n "$name-r" qdisc add dev rb root tbf rate 20mbit burst 16kb limit 80000

# Stops reading for a while when it has got 600,000 bytes.
cat >"$work/server.py" <<'PYTHON'
import socket, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 150_000)
listener.bind(("198.51.100.7", 8080))
listener.listen()
print("listening", flush=True)
client, _ = listener.accept()
received, paused = 0, False
while data := client.recv(65536):
    received += len(data)
    if received > 600_000 and not paused:
        paused = True
        time.sleep(1.5)
PYTHON
# Has nothing to say for a while in the middle.
cat >"$work/client.py" <<'PYTHON'
import socket, time
server = socket.socket()
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
server.connect(("198.51.100.7", 8080))
server.sendall(bytes(1_500_000))
time.sleep(0.7)
server.sendall(bytes(1_500_000))
server.shutdown(socket.SHUT_WR)
server.recv(1)
PYTHON

mkfifo "$work/ready"
ip netns exec "$name-b" python3 "$work/server.py" >"$work/ready" &
read -r _ <"$work/ready"
ip netns exec "$name-a" "$tcpprobe" record -w stall.db -i va --netns current --port 8080 -- \
    python3 "$work/client.py"
