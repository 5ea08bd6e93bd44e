"""What came in: the sample is taken after the tap, and in the same order."""

import bisect
import collections

from capture import are_copies
from ranges import FIN, RST, SYN

# What came in passed the tap before TCP had it: only the clocks' own error may turn that round. A retransmission can
# follow within the tolerance of what is sent.
RECEIVED_TOLERANCE_NS = 2_000
# Two packets that arrive within this time may be taken up by TCP in the other order: each has its own processor, and a
# virtual one can be gone for milliseconds (4 ms were seen, for a segment whose TSval leaves no doubt).
REORDERING_NS = 20_000_000
# A segment may wait so long between tap and TCP while its processor is busy with others (0.4 ms were seen).
WAITING_NS = 1_000_000


def check_received(check, flow_id, rows):
    last = None
    by_key = collections.defaultdict(list)
    for row in rows:
        packet = check.packets[row["number"]]
        by_key[packet.seq, packet.len, packet.ack, packet.flags & (SYN | FIN | RST)].append(row)
        # Each interface has its own order: what was seen on one may be held up before the next (see copies).
        if row["match"] != "exact" or row["sample_id"] not in check.samples or row["copy"]:
            continue
        sample = check.samples[row["sample_id"]]
        if last is not None and sample["serial"] < last[0]["serial"] and packet.ts_ns - last[1].ts_ns > REORDERING_NS:
            check.wrong(row["number"], f"sample {sample['id']} is older than {last[0]['id']}, that of an earlier packet")
        if last is None or sample["serial"] > last[0]["serial"]:
            last = sample, packet
    samples_by_key = collections.defaultdict(list)
    for sample in check.segments[flow_id, "before"]:
        key = (sample["seq"], sample["len"], sample["ack"], sample["flags"] & (SYN | FIN | RST))
        samples_by_key[key].append(sample)
    for key, same in by_key.items():
        samples = samples_by_key[key]
        if len(samples) == len(same):
            same, samples = by_stamp(check, same, samples)
            # As many packets as samples of one kind: the first is the first's, and so on, unless their headers say that
            # one overtook the other between tap and TCP.
            for row, sample in zip(same, samples):
                if row["match"] != "exact" or row["sample_id"] == sample["id"] or has_its_header(check, row):
                    continue
                if overtook(check, flow_id, row, same):
                    check.compared["ACKs in another order than captured"] += 1
                    continue
                # ACKs that were merged have the first one's header and the last one's number: what came after them may
                # still have been taken up before
                if not any(has_header_of(check, sample, other) for other in same if other is not row):
                    check.wrong(row["number"], f"sample {row['sample_id']} instead of {sample['id']}")
        elif key[1]:
            check_received_data(check, same, samples)


def by_stamp(check, rows, samples):
    """Both in groups of one TSval, each in its order: one that overtook another on the way to TCP has its own."""
    stamp = {id(row): check.packets[row["number"]].tsval or 0 for row in rows}
    if sorted(stamp.values()) != sorted(sample["tsval"] or 0 for sample in samples):
        return rows, samples
    return sorted(rows, key=lambda row: stamp[id(row)]), sorted(samples, key=lambda sample: sample["tsval"] or 0)


def overtook(check, flow_id, row, same):
    """Several processors had ACKs that differ in their SACK option alone: the kernel's count says which came first."""
    packet = check.packets[row["number"]]
    others = [check.packets[other["number"]] for other in same if other is not row]
    close = any(abs(other.ts_ns - packet.ts_ns) <= REORDERING_NS and other.sack != packet.sack for other in others)
    return not packet.len and close and (flow_id, packet.number) in check.taken_up_in_turn


def has_its_header(check, row):
    return has_header_of(check, check.samples[row["sample_id"]], row)


def has_header_of(check, sample, row):
    return bool(sample["ip_id"]) and sample["ip_id"] == check.packets[row["number"]].ip_id


def check_received_data(check, rows, samples):
    """Of several sendings of the same data with one TSval, a sample is of the latest that was captured before it, unless
    they came so close to each other that the earlier one may still have waited for TCP when the later one came. (Where
    the capture is not the receiver's own, the later one may have been sent while the earlier one was under way.)"""
    def is_same(one, other):
        return one is other or are_copies([check.packets[row["number"]] for row in (one, other)])

    for sample in samples:
        # What cannot be told by its stamp can be told by time.
        stamped = [row for row in rows if same_stamp(check.packets[row["number"]], sample)] or rows
        times = [check.packets[row["number"]].ts_ns for row in stamped]
        true_row = stamped[max(bisect.bisect_right(times, sample["ts_ns"] + RECEIVED_TOLERANCE_NS) - 1, 0)]
        for row in rows:
            if row["match"] != "exact" or row["sample_id"] != sample["id"] or is_same(row, true_row):
                continue
            if row in stamped and sample["ts_ns"] - check.packets[row["number"]].ts_ns <= WAITING_NS:
                check.undecided += 1
            else:
                check.wrong(row["number"], f"sample {sample['id']} is that of packet {true_row['number']}")


def same_stamp(packet, sample):
    return packet.tsval is None or sample["tsval"] is None or packet.tsval == sample["tsval"]
