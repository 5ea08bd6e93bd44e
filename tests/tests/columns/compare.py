"""Reads exports of a trace and compares every row with what SQLite reads from the trace itself.

usage: compare.py TRACE FORMAT TABLE PATH, FORMAT one of csv, json (by Python's own modules) and duckdb-csv, duckdb-json,
duckdb-parquet. Prints how many rows and values were compared, or the first difference.
"""

import csv
import json
import sqlite3
import sys


def from_csv(path, kinds):
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file, strict=True)
        names = next(rows)
        return names, [
            tuple(None if v == "" else int(v) if kinds[n] == "integer" else v for n, v in zip(names, row, strict=True))
            for row in rows
        ]


def from_json(path, kinds):
    with open(path, newline="\n", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    names = list(rows[0])
    assert all(list(r) == names for r in rows)
    return names, [tuple(r.values()) for r in rows]


def from_duckdb(source):
    import duckdb

    found = duckdb.connect().execute(f"SELECT * FROM {source}")
    names = [d[0] for d in found.description]
    rows = found.fetchall()
    keys = [names.index(n) for n in ("session_id", "flows_from") if n in names]
    for row in rows:
        assert all(isinstance(row[k], int) for k in keys), "partition keys are no integers"
    keep = [i for i in range(len(names)) if i not in keys]
    return [names[i] for i in keep], [tuple(r[i] for i in keep) for r in rows]


def main():
    trace, format, table, path = sys.argv[1:]
    db = sqlite3.connect(f"file:{trace}?mode=ro", uri=True)
    cursor = db.execute(f"SELECT * FROM {table}")
    wanted_names = [c[0] for c in cursor.description]
    wanted = cursor.fetchall()
    # the same rows as of every flow, in an order of our own
    text = {n for i, n in enumerate(wanted_names) if any(isinstance(r[i], str) for r in wanted)}
    kinds = {n: "text" if n in text else "integer" for n in wanted_names}
    if format == "csv":
        names, rows = from_csv(path, kinds)
    elif format == "json":
        names, rows = from_json(path, kinds)
    elif format == "duckdb-parquet":
        names, rows = from_duckdb(f"read_parquet('{path}/**/*.parquet', hive_partitioning = true)")
    elif format == "duckdb-csv":
        names, rows = from_duckdb(f"read_csv('{path}', sample_size = -1, parallel = false)")
    else:
        names, rows = from_duckdb(f"read_json('{path}', sample_size = -1)")
    assert names == wanted_names, f"columns {names}, not {wanted_names}"
    at = names.index("id")
    rows.sort(key=lambda r: r[at])
    wanted.sort(key=lambda r: r[at])
    assert len(rows) == len(wanted), f"{len(rows)} rows, not {len(wanted)}"
    for i, name in enumerate(names):
        found, right = [r[i] for r in rows], [r[i] for r in wanted]
        nulls = (found.count(None), right.count(None))
        assert nulls[0] == nulls[1], f"{name}: NULLs {nulls}"
        for f, r in zip(found, right):
            # a column without a value has no type in CSV and JSON
            assert f == r and type(f) is type(r), f"{name}: {f!r}, not {r!r}"
    print(len(rows), len(rows) * len(names), sum(r.count(None) for r in wanted), len(text))


main()
