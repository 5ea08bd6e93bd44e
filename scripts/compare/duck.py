"""DuckDB's ASOF JOIN of the same packets with the same samples, both loaded before the clock starts."""

import shutil
import sqlite3
import statistics
import subprocess
import time

QUERY = """SELECT count(*), sum(s.snd_cwnd), sum(p.ts_ns - s.ts_ns)
FROM packets p ASOF JOIN samples s ON p.flow_id = s.flow_id AND p.ts_ns >= s.ts_ns"""


def loaded(db, trace, table, statement, columns, numpy):
    """Reads a statement's columns into a table, a million rows at a time."""
    source = sqlite3.connect(f"file:{trace}?mode=ro", uri=True)
    cursor = source.execute(statement)
    first = True
    while rows := cursor.fetchmany(1_000_000):
        chunk = {name: numpy.array(values, dtype="int64") for name, values in zip(columns, zip(*rows))}
        db.register("chunk", chunk)
        db.execute(f"CREATE TABLE {table} AS SELECT * FROM chunk" if first else f"INSERT INTO {table} SELECT * FROM chunk")
        db.unregister("chunk")
        first = False


def asof_seconds(trace, tcpprobe, work, rounds):
    """Seconds, or why it cannot be said."""
    try:
        import duckdb
        import numpy
    except ImportError as error:
        return f"{error}"
    joined = work / "duckdb.db"
    shutil.copyfile(trace, joined)
    subprocess.run([tcpprobe, "join", joined, trace.with_name("trace.pcap")], check=True, stderr=subprocess.DEVNULL)
    db = duckdb.connect()
    loaded(db, joined, "packets", "SELECT flow_id, ts_ns, seq FROM packets", ["flow_id", "ts_ns", "seq"], numpy)
    samples = "SELECT flow_id, ts_ns, snd_cwnd FROM samples"
    loaded(db, joined, "samples", samples, ["flow_id", "ts_ns", "snd_cwnd"], numpy)
    joined.unlink()
    times = []
    for _ in range(rounds + 1):
        began = time.monotonic()
        db.execute(QUERY).fetchall()
        times.append(time.monotonic() - began)
    return statistics.median(times[1:])
