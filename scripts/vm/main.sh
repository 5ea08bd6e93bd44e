#!/bin/dash
# Inside a machine of scripts/vm.sh: the network, then each run that is named, or all of them. Each leaves its files in
# /tmp/runs/NAME; what they show is judged outside.
set -u
# shellcheck source=lib.sh
. /runs/lib.sh
. /runs/transfers.sh
. /runs/nested.sh
. /runs/user.sh
. /runs/protocols.sh

runs="fentry_cubic fentry_bbr kprobe_cubic kprobe_bbr tracepoint_cubic tracepoint_bbr fentry_dctcp failing fentry_stepped fentry_suspended
    nested_ipv4 nested_ipv6 nested_no_timestamps
    user_fentry user_kprobe user_tracepoint user_without_capabilities user_without_perfmon
    mptcp fastopen syncookies accecn"
[ $# = 0 ] || runs=$*

mkdir -p /tmp/runs
uname -r | tee /tmp/runs/release
network || exit 1
for run in $runs; do
    folder=/tmp/runs/$run
    mkdir -p "$folder"
    began=$(cut -d . -f 1 /proc/uptime)
    "run_$run"
    echo "run $run: $(($(cut -d . -f 1 /proc/uptime) - began)) s"
done
exit 0
