"""What recording costs a transfer over loopback: iperf3's throughput alone and under each recorder, in turns."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

SECONDS = 3
PORT = 5299


def throughput():
    """Bits per second of one transfer."""
    done = subprocess.run(
        ["iperf3", "-c", "127.0.0.1", "-p", str(PORT), "-t", str(SECONDS), "-J"], check=True, stdout=subprocess.PIPE
    )
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
        "tcpprobe with packets": ([*sample, "-i", "lo"], "recording"),
    }
    if shutil.which("perf"):
        recorders["perf"] = (["perf", "record", "-q", "-e", "tcp:tcp_probe", "-a", "-o", folder / "perf.data"], "")
    if shutil.which("tcpdump"):
        capture = ["tcpdump", "-i", "lo", "-s", "128", "-w", folder / "dump.pcap", "port", str(PORT)]
        recorders["tcpdump"] = (capture, "listening on")
    server = subprocess.Popen(["iperf3", "-s", "-p", str(PORT)], stdout=subprocess.DEVNULL)
    shares = {name: [] for name in recorders}
    lost = []
    try:
        time.sleep(1)
        for _ in range(rounds):
            of = {}
            for name, (command, ready) in recorders.items():
                of[name], said = under(command, ready)
                if name.startswith("tcpprobe"):
                    lost.append(lost_in(said))
                for left in folder.glob("*"):
                    left.unlink()
            for name, bits in of.items():
                shares[name].append(bits / of["alone"])
    finally:
        server.terminate()
        server.wait()
    kept = {name: statistics.median(share) for name, share in shares.items()}
    rows = []
    for peer, ours in [("perf", "tcpprobe"), ("tcpdump", "tcpprobe with packets")]:
        if peer not in kept:
            rows.append((peer, "not installed"))
            continue
        measured = f"{kept[ours]:.2f} / {kept[peer]:.2f}"
        rows.append((f"throughput kept, {ours} / {peer}", measured, "≥ 1", kept[ours] >= kept[peer]))
    rows.append(("samples lost in all these runs", f"{sum(lost):,}", "0", sum(lost) == 0))
    return rows


def lost_in(said):
    """Samples lost, as the recorder's own summary counts them."""
    for line in said.splitlines():
        words = line.split()
        if words[:1] == ["lost"]:
            return int(words[1].replace(",", ""))
    return 0
