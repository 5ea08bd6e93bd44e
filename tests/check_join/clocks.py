"""One machine, one clock: what is said of the capture's clock, and of delays, must agree with that."""

# What is sent is sampled before it is captured, what comes in after: but for a clock that is read in microseconds.
TOLERANCE_NS = 5_000

# Nothing waits longer between TCP and the tap.
WAIT_NS = 1_000_000_000

# The wall clock is slewed by less, adjtimex(2).
SLEW_NS = 1_000_000

# Drift is told in whole ppb, delays in whole ns.
ROUNDING_NS = 2_000


def in_doubt(check):
    """Samples around a setting of the wall clock that are nearer to their packets if it was set before them: by how much,
    by id. Those between the two readings may have been taken after it, those before may have waited to be sent."""
    anchors = check.query("SELECT mono_before_ns, real_ns FROM clocks WHERE session_id = ? ORDER BY mono_before_ns",
                          check.row["session_id"])
    doubts = {}
    for before, after in zip(anchors, anchors[1:]):
        jump_ns = (after["real_ns"] - after["mono_before_ns"]) - (before["real_ns"] - before["mono_before_ns"])
        if abs(jump_ns) < SLEW_NS:
            continue
        for row in check.rows:
            sample = check.samples.get(row["sample_id"])
            if sample is None or not before["mono_before_ns"] - WAIT_NS <= sample["mono_ns"] < after["mono_before_ns"]:
                continue
            late_ns = check.packets[row["number"]].ts_ns - sample["ts_ns"]
            if abs(late_ns - jump_ns) < abs(late_ns):
                doubts[sample["id"]] = jump_ns
    return doubts


def check_clock(check):
    row = check.row
    offset_ns, error_ns = row["clock_offset_ns"], row["clock_offset_error_ns"]
    if offset_ns is not None and error_ns is not None:
        check.compared["clock"] += 1
        if abs(offset_ns) > error_ns + TOLERANCE_NS:
            check.wrong(0, f"clock_offset_ns is {offset_ns} ± {error_ns}: this machine has one clock")
    if row["clock_drift_ppb"] is not None and abs(row["clock_drift_ppb"]) > row["clock_drift_error_ppb"]:
        check.wrong(0, f"clock_drift_ppb is {row['clock_drift_ppb']} ± {row['clock_drift_error_ppb']}")
    if row["clock_steps"]:
        check.wrong(0, f"the clock was set {row['clock_steps']} times")


def check_variation(check, rows):
    """Never below 0, 0 at the fastest packet, and as far apart as the delays are."""
    told = [row for row in rows if row["delay_variation_ns"] is not None]
    for row in rows:
        if (row["delay_variation_ns"] is None) != (row["delay_ns"] is None):
            check.wrong(row["number"], f"delay_ns {row['delay_ns']}, delay_variation_ns {row['delay_variation_ns']}")
    if not told:
        return
    fastest = min(told, key=lambda row: row["delay_variation_ns"])
    if fastest["delay_variation_ns"] != 0:
        check.wrong(fastest["number"], f"the smallest delay_variation_ns is {fastest['delay_variation_ns']}")
    # What comes in is captured before it is sampled.
    sign = 1 if fastest["dir"] == "out" else -1
    drift_ppb = check.row["clock_drift_ppb"] or 0
    start_ns = check.samples[fastest["sample_id"]]["ts_ns"]
    for row in told:
        sample = check.samples.get(row["sample_id"])
        if sample is None:
            continue
        check.compared["delay variations"] += 1
        elapsed_ns = sample["ts_ns"] - start_ns
        apart_ns = sign * (row["delay_ns"] - fastest["delay_ns"] - elapsed_ns * drift_ppb // 1_000_000_000)
        if abs(row["delay_variation_ns"] - apart_ns) > ROUNDING_NS + abs(elapsed_ns) // 1_000_000_000:
            check.wrong(row["number"], f"delay_variation_ns is {row['delay_variation_ns']}, the delay {apart_ns} longer "
                                       f"than that of packet {fastest['number']}")
