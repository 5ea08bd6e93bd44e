"""The join with its rows stored, and nothing but inserts of the same rows into the same tables."""

import os
import shutil
import statistics
import subprocess


def stored_and_bare(bulk, tcpprobe, work, run, rounds):
    """The median ratio of wall seconds, of both in turns; each with nothing left to be written by what came before."""
    copy, bare = work / "stored.db", work / "bare.db"
    example = ["cargo", "run", "--release", "-q", "-p", "tcpprobe-tests", "--example", "inserts"]
    ratios = []
    for _ in range(rounds):
        shutil.copyfile(bulk / "trace.db", copy)
        os.sync()
        stored = run([tcpprobe, "join", copy, bulk / "trace.pcap"]).wall
        shutil.copyfile(bulk / "trace.db", bare)
        os.sync()
        done = subprocess.run([*example, copy, bare], check=True, stdout=subprocess.PIPE,
                              cwd=tcpprobe.parent.parent.parent)
        ratios.append(stored / float(done.stdout))
    copy.unlink()
    bare.unlink()
    return statistics.median(ratios)
