"""What became of the samples: each sample of a segment is counted once."""

import errno


def check_counts(check, flow_id):
    counted = {row["outcome"]: row["samples"] for row in check.query(
        "SELECT outcome, samples FROM sample_counts WHERE capture_id = ? AND flow_id = ?", check.row["id"], flow_id)}
    if counted.keys() == {"flow not in the capture"}:
        return
    sent = [sample for sample in check.segments[flow_id, "transmit"] if sample["kind"] in ("send", "retransmit")]
    came = received(check, flow_id)
    # the kernel's own word on a retransmission counts where that failed and never came to be sent: what was has a sample
    # right before it
    attempts = {(sample["serial"], sample["seq"]) for sample in sent if sample["kind"] == "retransmit"}
    failed = [sample for sample in check.segments[flow_id, "after"] if sample["kind"] == "retransmit"
              and sample["error"] and not is_of_attempt(sample, attempts)]
    check.compared["sample counts"] += 1
    if sum(counted.values()) != len(sent) + len(came) + len(failed):
        check.wrong(0, f"flow {flow_id}: sample_counts {counted}, but {len(sent)} segments were sent, {len(came)} "
                       f"received, and {len(failed)} failed")
    used = {row["sample_id"] for row in check.rows
            if row["flow_id"] == flow_id and row["match"] in ("exact", "within")}
    # A packet made of several samples names the first.
    merged = [row for row in check.rows if row["flow_id"] == flow_id and row["match"] == "within"
              and row["sample_id"] in check.samples and row["len"] > check.samples[row["sample_id"]]["len"]]
    if counted.get("joined", 0) < len(used) or (counted.get("joined", 0) > len(used) and not merged):
        check.wrong(0, f"flow {flow_id}: {counted.get('joined', 0)} samples are joined, packets name {len(used)}")
    unused = {row["sample_id"] for row in check.query(
        "SELECT sample_id FROM samples_without_packet WHERE capture_id = ? AND flow_id = ?", check.row["id"], flow_id)}
    for sample_id in sorted(unused & used):
        check.wrong(0, f"sample {sample_id} is without a packet, and a packet names it")


def received(check, flow_id):
    """One sample of each received segment: it may have been sampled before and after it was processed, or made a change
    of state besides."""
    segments, last = [], None
    before_and_after = [sample for phase in ("before", "after") for sample in check.segments[flow_id, phase]
                        if sample["kind"] in ("ack", "state")]
    for sample in sorted(before_and_after, key=lambda sample: sample["serial"]):
        key = tuple(sample[column] for column in ("seq", "len", "ack", "flags"))
        if sample["phase"] == "before" or key != last:
            segments.append(sample)
        if sample["phase"] == "before":
            last = key
    return segments


def is_of_attempt(word, attempts):
    """A segment that still waits in a queue (EBUSY) is not tried again: then the word is not of what was sent before."""
    return word["error"] != errno.EBUSY and (word["serial"] - 1, word["seq"]) in attempts
