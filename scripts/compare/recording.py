"""What recording costs a transfer over loopback: iperf3's throughput alone and under each recorder, in turns."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

SECONDS = 3
PORT = 5299
SNAPLEN = "128"


def throughput():
    """Bits per second of one transfer."""
    # a sender that paces itself, as BBR does, would leave room for recorders; unless both ends stay where they are, it is
    # the scheduler that is measured
    command = ["iperf3", "-c", "127.0.0.1", "-p", str(PORT), "-t", str(SECONDS), "-C", "cubic", "-J"]
    if os.cpu_count() > 1:
        command += ["-A", "0,1"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]


def under(command, ready):
    """Throughput while a recorder runs; what it says of itself."""
    if command is None:
        return throughput(), ""
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = ""
    if ready:
        for line in recorder.stderr:
            said += line
            if ready in line:
                break
    else:
        time.sleep(1)
    bits = throughput()
    recorder.send_signal(signal.SIGINT)
    said += recorder.communicate(timeout=120)[1]
    return bits, said


def in_turns(tcpprobe, work, rounds):
    """Rows of the table: what, measured, wanted, met; or the name of a peer and why it was not measured."""
    if os.geteuid() != 0:
        return [("recording", "needs root")]
    if not shutil.which("iperf3"):
        return [("recording", "iperf3 is not installed")]
    folder = Path(work) / "record"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    trace = folder / "trace.db"
    sample = [tcpprobe, "record", "-w", trace, "--port", str(PORT)]
    recorders = {
        "alone": (None, ""),
        "tcpprobe": ([*sample, "--no-pcap"], "recording"),
        "tcpprobe with packets": ([*sample, "-i", "lo", "--snaplen", SNAPLEN], "recording"),
    }
    if shutil.which("perf"):
        recorders["perf"] = (["perf", "record", "-q", "-e", "tcp:tcp_probe", "-a", "-o", folder / "perf.data"], "")
    if shutil.which("tcpdump"):
        capture = ["tcpdump", "-i", "lo", "-s", SNAPLEN, "-w", folder / "dump.pcap", "port", str(PORT)]
        recorders["tcpdump"] = (capture, "listening on")
        # as it is called by default it copies 64 KiB a packet: more than a disk takes
        whole = ["tcpdump", "-i", "lo", "-w", "/dev/null", "port", str(PORT)]
        recorders["tcpdump of whole packets"] = (whole, "listening on")
    server = subprocess.Popen(["iperf3", "-s", "-p", str(PORT)], stdout=subprocess.DEVNULL)
    shares = {name: [] for name in recorders}
    lost, costs = [], []
    try:
        time.sleep(1)
        for turn in range(rounds):
            of = {}
            # what ran before leaves its traces, in the page cache for instance: none is always behind the same one
            names = list(recorders) if turn % 2 == 0 else list(reversed(recorders))
            for name in names:
                command, ready = recorders[name]
                of[name], said = under(command, ready)
                if name.startswith("tcpprobe"):
                    lost.append(lost_in(said))
                    costs.append(cost_in(said))
                for left in folder.glob("*"):
                    left.unlink()
            for name, bits in of.items():
                shares[name].append(bits / of["alone"])
    finally:
        server.terminate()
        server.wait()
    kept = {name: statistics.median(share) for name, share in shares.items()}
    rows = []
    with_packets = "tcpprobe with packets"
    for peer, ours in [
        ("perf", "tcpprobe"),
        ("tcpdump of whole packets", with_packets),
        ("tcpdump", with_packets),
    ]:
        if peer not in kept:
            rows.append((peer, "not installed"))
            continue
        # of one round, for the machine's own speed drifts
        ratio = statistics.median(a / b for a, b in zip(shares[ours], shares[peer]))
        measured = f"{ratio:.3f} ({kept[ours]:.2f} / {kept[peer]:.2f} of it alone)"
        rows.append((f"throughput kept, {ours} / {peer}", measured, "≥ 1", ratio >= 1))
    lost = [sum(of_a_run) for of_a_run in zip(*lost)]
    rows.append(("samples lost in all these runs", f"{lost[0]:,}", "0", lost[0] == 0))
    rows.append(("segments that the kernel showed to no probe", f"{lost[1]:,}", "(docs/limits.md)", True))
    ns = statistics.median(costs)
    rows.append(("a run of the programs for what is sent and received", f"{ns:.0f} ns", "≤ 300 ns", ns <= 300))
    return rows


def lost_in(said):
    """Samples lost, and segments that no probe was shown, as the recorder's own summary counts them."""
    lost = re.search(r"^  lost +(.*)$", said, re.MULTILINE)
    causes = re.findall(r"([0-9,]+) \(([^)]*)\)", lost.group(1) if lost else "")
    not_shown = sum(number(n) for n, why in causes if "not shown to the probe" in why)
    return sum(number(n) for n, _ in causes) - not_shown, not_shown


def cost_in(said):
    """Nanoseconds that a run took on average, of the programs that see what is sent and what is received."""
    costs = re.findall(r"^  cost +\S*/(?:net_dev_queue|tcp_probe) +([0-9,]+) runs, ([0-9,]+) ns", said, re.MULTILINE)
    runs = sum(number(n) for n, _ in costs)
    return sum(number(n) * number(ns) for n, ns in costs) / max(1, runs)


def number(text):
    return int(text.replace(",", ""))
