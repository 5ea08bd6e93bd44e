#!/usr/bin/env bash
# Records a saturated transfer over loopback, while something reads the trace, and prints how memory, files and samples go.
# Usage: scripts/load.sh [SECONDS] [FOLDER]     600 seconds, and a new folder in the temporary one, unless told otherwise
#
# Needs root, iperf3, and room for some 15 MB a second. Nothing is judged: the figures are for reading.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
folder=${2:-$(mktemp -d)}
port=5298

cargo build --release --locked -q -p tcpprobe
tcpprobe=$PWD/target/release/tcpprobe
trace=$folder/load.db
mkdir -p "$folder"

iperf3 -s -1 -p "$port" >/dev/null &
server=$!
"$tcpprobe" record -w "$trace" --port "$port" --no-pcap 2>"$folder/said" &
recorder=$!
trap 'kill "$server" "$recorder" 2>/dev/null || true' EXIT
until grep -q '^recording' "$folder/said"; do
    kill -0 "$recorder" || { cat "$folder/said"; exit 1; }
    sleep 0.1
done

# both ends stay where they are, and the sender does not pace itself: the most segments that there can be
iperf3 -c 127.0.0.1 -p "$port" -t "$seconds" -C cubic -A 0,1 >"$folder/iperf3" &
sender=$!

# each reading begins a transaction of its own, reads and ends
(while kill -0 "$sender" 2>/dev/null; do
    sqlite3 "$trace" "SELECT count(*), max(id) FROM flows" >/dev/null && echo
    sleep 0.05
done) >"$folder/readings" 2>"$folder/refused" &

printf '%8s %12s %12s %12s %14s\n' seconds "memory MB" "trace MB" "waiting MB" "samples there"
began=$SECONDS
# what is on the disk: the backlog gives back what is written, and its file's length stays
mb() { stat -c %b "$@" 2>/dev/null | awk '{ n += $1 } END { printf "%.0f", n * 512 / 1e6 }'; }
line() {
    local memory
    memory=$(awk '/^VmRSS:/ { printf "%.0f", $2 / 1e3 }' "/proc/$recorder/status")
    printf '%8s %12s %12s %12s %14s\n' $((SECONDS - began)) "$memory" "$(mb "$trace" "$trace-wal")" \
        "$(mb "$trace-backlog")" "$(sqlite3 "$trace" "SELECT coalesce(max(id), 0) FROM sample_rows" 2>/dev/null || echo -)"
}
while kill -0 "$sender" 2>/dev/null; do
    sleep $((seconds > 100 ? seconds / 20 : 5))
    kill -0 "$recorder"
    line
done
peak=$(awk '/^VmHWM:/ { printf "%.0f", $2 / 1e3 }' "/proc/$recorder/status")
stopped=$SECONDS
kill -INT "$recorder"
wait "$recorder"
trap - EXIT
echo
cat "$folder/said"
echo "written $((SECONDS - stopped)) s after the end; memory at most $peak MB"
echo "$(wc -l <"$folder/readings") readings meanwhile, $(wc -l <"$folder/refused") refused"
grep -E 'sender|receiver' "$folder/iperf3"
ls -l "$folder"
