"""The join with its rows stored, and nothing but inserts of the same rows into the same tables."""

import shutil
import subprocess


def stored_and_bare(bulk, tcpprobe, work, run):
    """Wall seconds of both, one after the other."""
    copy = work / "stored.db"
    shutil.copyfile(bulk / "trace.db", copy)
    stored = run([tcpprobe, "join", copy, bulk / "trace.pcap"]).wall
    bare = work / "bare.db"
    shutil.copyfile(bulk / "trace.db", bare)
    done = subprocess.run(
        ["cargo", "run", "--release", "-q", "-p", "tcpprobe-tests", "--example", "inserts", copy, bare],
        check=True, stdout=subprocess.PIPE, cwd=tcpprobe.parent.parent.parent,
    )
    copy.unlink()
    bare.unlink()
    return stored, float(done.stdout)
