#!/usr/bin/env python3
"""Compares tcpprobe with its peers on captures and transfers that this script makes, and prints a table of ratios.

Usage: scripts/compare.py [--packets N] [--work FOLDER] [join|memory|record]...

  join     the join against tshark, tcptrace and DuckDB's ASOF JOIN, one thread against two, one flow and many flows
           against 50, the stored join against bare inserts of the same rows
  memory   the join's memory at N and at 4 N packets
  record   recording a transfer over loopback against perf record and tcpdump, in turns (needs root)

All of them if none is named. A peer that is not installed is named, not left out in silence. DuckDB is looked for in
the Python that runs this (pip install duckdb numpy). Figures are medians; times are of the whole process.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "scripts"))
from compare import duck, inserts, recording  # noqa: E402

TCPPROBE = HERE / "target/release/tcpprobe"
BULK = HERE / "target/release/bulk"
# tshark follows every segment of every stream: its rate does not depend on how many there are, its patience does
FOR_TSHARK = 300_000


class Run:
    """What a command took: wall and CPU seconds, and the most memory in bytes."""

    def __init__(self, command, **options):
        began = time.monotonic()
        child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
        said = child.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"compare: {command[0]} failed:\n{said}")
        self.wall, self.cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
        self.memory = used.ru_maxrss * 1024


def median_of(times, run):
    return median([run() for _ in range(times)])


def median(runs):
    return sorted(runs, key=lambda r: r.wall)[len(runs) // 2]


rows = []


def row(what, measured, wanted, met):
    rows.append((what, measured, wanted, "yes" if met else "NO"))
    print(f"  {what}: {measured} (wanted: {wanted})", flush=True)


def missing(peer, why):
    rows.append((peer, "not measured: " + why, "", ""))
    print(f"  {peer}: not measured: {why}", flush=True)


def made(work, name, packets, *options):
    """A capture and its trace, made once."""
    folder = work / f"{name}-{packets}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"  making {folder}", flush=True)
        subprocess.run([BULK, folder, "--packets", str(packets), *options], check=True, stdout=subprocess.DEVNULL)
        (folder / "done").touch()
    return folder


def dry(folder, *options):
    return Run([TCPPROBE, "join", "--dry-run", *options, folder / "trace.db", folder / "trace.pcap"])


def join(work, packets, rounds):
    bulk = made(work, "bulk", packets)
    # in turns: the machine's own speed drifts
    runs = [[dry(bulk, "--threads", threads) for threads in ("2", "1")] for _ in range(rounds)]
    two = median([of_a_round[0] for of_a_round in runs])
    print(f"  join --dry-run of {packets:,} packets: {two.wall:.2f} s, {packets / two.wall:,.0f} packets/s, "
          f"{two.memory >> 20} MB", flush=True)
    faster = statistics.median(one.wall / two.wall for two, one in runs)
    row("join, one thread / two threads", f"{faster:.2f}", "≥ 1.7", faster >= 1.7)

    asof = duck.asof_seconds(bulk / "trace.db", TCPPROBE, work, rounds)
    if isinstance(asof, str):
        missing("DuckDB", asof)
    else:
        row("join / DuckDB's ASOF JOIN, loaded already", f"{two.wall / asof:.2f}", "< 1", two.wall < asof)

    few = made(work, "bulk", min(packets, FOR_TSHARK))
    share = min(packets, FOR_TSHARK) / packets
    for peer, command, wanted in [
        ("tcptrace", ["tcptrace", "-n", bulk / "trace.pcap"], 3),
        ("tshark", ["tshark", "-n", "-r", few / "trace.pcap", "-T", "fields", "-e", "tcp.analysis.flags"], 150),
    ]:
        if not shutil.which(command[0]):
            missing(peer, "not installed")
            continue
        cpu = median_of(rounds, lambda c=command: Run(c, cwd=work)).cpu / (share if peer == "tshark" else 1)
        ratio = cpu / two.cpu
        row(f"packets per CPU second, join / {peer}", f"{ratio:.2f}", f"≥ {wanted}", ratio >= wanted)

    giant = made(work, "giant", packets, "--flows", "1", "--window", "1000")
    slower = median_of(rounds, lambda: dry(giant)).wall / two.wall
    row("time a packet, one flow / 50 flows", f"{slower:.2f}", "≤ 1.5", slower <= 1.5)
    many = made(work, "many", packets, "--flows", "200", "--packets-a-flow", "10")
    faster = two.wall / median_of(1, lambda: dry(many)).wall
    row(f"throughput, {packets // 10:,} flows of 10 packets / 50 flows", f"{faster:.2f}", "≥ 0.33", faster >= 1 / 3)

    stored = inserts.stored_and_bare(bulk, TCPPROBE, work, Run, rounds)
    row("join, stored / bare inserts of the same rows", f"{stored:.2f}", "≤ 1.3", stored <= 1.3)


def memory(work, packets, _rounds):
    of = {}
    for n in [packets, 4 * packets]:
        of[n] = dry(made(work, "bulk", n), "--threads", "2").memory
    most = of[4 * packets]
    row(f"memory, {4 * packets:,} / {packets:,} packets", f"{most / of[packets]:.2f}", "≤ 1.2", most <= 1.2 * of[packets])
    row(f"memory at {4 * packets:,} packets", f"{most >> 20} MB", "< 512 MB", most < 512 << 20)


def record(work, _packets, rounds):
    for result in recording.in_turns(TCPPROBE, work, max(10, rounds)):
        row(*result) if len(result) == 4 else missing(*result)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["join", "memory", "record", []], default=[])
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=HERE / "target/compare")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "tcpprobe", "-p", "tcpprobe-fixtures"], cwd=HERE, check=True)
    for name in args.what or ["join", "memory", "record"]:
        print(f"== {name}", flush=True)
        {"join": join, "memory": memory, "record": record}[name](args.work, args.packets, args.rounds)
    print(f"\n{platform.system()} {platform.release()}, {os.cpu_count()} processors, Python {platform.python_version()}\n")
    print("| what | measured | wanted | met |\n|---|---|---|---|")
    for r in rows:
        print("| " + " | ".join(r) + " |")


if __name__ == "__main__":
    main()
