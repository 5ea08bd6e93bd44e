"""The state that users read."""

from ranges import ACK, RST, seq_diff


def check_states(check):
    ids = sorted(row["id"] for row in check.states)
    if ids != sorted(row["id"] for row in check.query("SELECT id FROM packets WHERE capture_id = ?", check.row["id"])):
        check.wrong(0, f"packet_state has {len(ids)} rows, or not the ids of packets")
    if not check.states or not check.samples:
        return
    state_columns = set(check.states[0].keys())
    own_columns = {"id", "flow_id", "seq", "ack", "len", "flags", "ts_ns", "serial", "kind", "phase", "mono_ns"}
    shared = (set(next(iter(check.samples.values())).keys()) & state_columns) - own_columns
    if "snd_cwnd" not in shared:
        check.wrong(0, "packet_state has no snd_cwnd")
    for row in check.states:
        if row["flow_id"] not in check.flows or row["match"] == "none":
            continue
        sample = check.samples.get(row["sample_id"])
        if row["match"] in ("exact", "within"):
            if not row["snd_cwnd"]:
                check.wrong(row["number"], f"{row['match']}: snd_cwnd is {row['snd_cwnd']}")
            # around a setting of the wall clock the trace's own time may be another
            ts_ns = sample and sample["ts_ns"] - (sample["jump_ns"] if "jump_ns" in sample.keys() else 0)
            if sample is not None and row["sample_ts_ns"] != ts_ns:
                check.wrong(row["number"], f"sample_ts_ns is {row['sample_ts_ns']}, not {ts_ns}")
        if row["match"] == "exact" and sample is not None:
            for column in shared:
                if row[column] != sample[column]:
                    check.wrong(row["number"], f"{column} is {row[column]}, its sample has {sample[column]}")
        if row["dir"] == "out" and row["len"] and row["snd_una"] is not None:
            if seq_diff(row["seq"], row["snd_una"]) < 0:
                check.wrong(row["number"], f"{row['match']}: sends {row['seq']}, below snd_una {row['snd_una']}")
            if row["match"] in ("exact", "within") and sample is not None and sample["kind"] == "retransmit" \
                    and seq_diff((row["seq"] + row["len"]), row["snd_nxt"]) > 0:
                check.wrong(row["number"], f"a retransmission ends beyond snd_nxt {row['snd_nxt']}")
        if row["match"] == "carried" and row["snd_nxt"] is not None and not row["flags"] & RST:
            # which sample is the last one before it may be open; that nothing is sent or acknowledged beyond it is not
            if row["dir"] == "out" and seq_diff(row["seq"], row["snd_nxt"]) > 0:
                check.wrong(row["number"], f"carried: begins at {row['seq']}, beyond snd_nxt {row['snd_nxt']}")
            if row["dir"] == "in" and row["flags"] & ACK and seq_diff(row["ack"], row["snd_nxt"]) > 0:
                check.wrong(row["number"], f"carried: acknowledges {row['ack']}, beyond snd_nxt {row['snd_nxt']}")
