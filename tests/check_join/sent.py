"""What was sent: which transmission of a byte range each packet is."""

from clocks import TOLERANCE_NS
from ranges import Ranges, Unwrapper, seq_diff, span

# TSval is stamped when TCP builds a burst of segments, the sample when each leaves: the two may differ by some ticks.
TSVAL_TOLERANCE_MS = 3


def check_transmissions(check, flow_id, rows):
    flow_samples = [sample for sample in check.segments[flow_id, "transmit"] if sample["kind"] != "state"]
    if not flow_samples or not rows:
        return
    unwrap = Unwrapper(flow_samples[0]["seq"])
    transmissions = Ranges()
    for sample in flow_samples:
        start = unwrap(sample["seq"])
        if span(sample["len"], sample["flags"]):
            transmissions.add(start, start + span(sample["len"], sample["flags"]), sample)
    unwrap = Unwrapper(flow_samples[0]["seq"])
    for row in rows:
        packet = check.packets[row["number"]]
        packet.start = unwrap(packet.seq)
        packet.end = packet.start + span(packet.len, packet.flags)
    clock = tsval_clock(check, rows, transmissions)
    sent, sightings = Ranges(), {}
    for row in rows:
        packet = check.packets[row["number"]]
        if packet.start == packet.end:
            continue
        # Seen on one interface and then, the same, on another: not sent again.
        is_copy = packet.sighting not in sightings.setdefault(packet.identity(), {packet.sighting})
        sightings[packet.identity()].add(packet.sighting)
        # What a command left unsent goes out after the recording of it.
        # Of a recorder that was killed no one knows when it ended.
        is_last = check.ended_ns is not None and packet.number > check.last_sampled
        if is_last and packet.ts_ns > check.ended_ns:
            check.after_the_end.add(packet.number)
            sent.add(packet.start, packet.end, (packet, None))
            continue
        if packet.len and not is_copy and lacks_sample(check, packet, transmissions, sent):
            check.unsampled.add(packet.number)
        truth = true_sample(check, packet, transmissions, clock)
        sample = check.samples.get(row["sample_id"]) if row["match"] in ("exact", "within") else None
        if sample is not None and truth is not None and sample["id"] != truth["id"]:
            if not is_also_true(check, packet, sample, transmissions, clock):
                check.wrong(row["number"], f"sample {sample['id']} ({sample['kind']}, ts {sample['ts_ns']}) instead of "
                                          f"{truth['id']} ({truth['kind']}, ts {truth['ts_ns']}); packet ts {packet.ts_ns}")
        # Not whether it lies below what was sent last: packets can overtake each other on the way to a receiver.
        again = bool(sent.covering(packet.start)) and not was_overtaken(packet, sent)
        said_so = truth is not None and truth["kind"] == "retransmit"
        if packet.len and (again or said_so) and not is_copy:
            check_retransmission(check, row, packet, sample, sent)
        if not is_copy:
            sent.add(packet.start, packet.end, (packet, sample))


def was_overtaken(packet, sent):
    """Whether these bytes, as they were sent first, came behind those that were sent later, as their stamps tell."""
    stamps = [other.tsval for other, _ in sent.covering(packet.start)]
    return packet.tsval is not None and any(stamp is not None and seq_diff(stamp, packet.tsval) > 0 for stamp in stamps)


def check_retransmission(check, row, packet, sample, sent):
    check.retransmissions += 1
    if sample is None and (packet.number in check.unsampled or check.options.tap == "receiver"):
        # Of a range that was sent twice and captured once, a join knows which only where TSval tells: elsewhere
        # the packet is ambiguous to one that must do without a common clock.
        return
    if sample is None:
        check.wrong(row["number"], f"a retransmission without its sample: {row['match']} {row['reason']}")
        return
    if sample["kind"] != "retransmit":
        check.wrong(row["number"], f"a retransmission, but sample {sample['id']} is of kind {sample['kind']}")
    earlier = [other for _, other in sent.covering(packet.start) if other is not None]
    for other in earlier[-1:]:
        if other["id"] == sample["id"]:
            check.wrong(row["number"], f"sample {sample['id']} is also that of an earlier sending of these bytes")
        elif other["serial"] > sample["serial"]:
            check.wrong(row["number"], f"sample {sample['id']} is older than that of an earlier sending of these bytes")


def lacks_sample(check, packet, transmissions, sent):
    """Whether these bytes came by more often than they were sampled: the recorder missed a sending, not the join."""
    sampled = [sample for sample in transmissions.covering(packet.start)
               if sample["ts_ns"] <= packet.ts_ns + TOLERANCE_NS]
    return len(sent.covering(packet.start)) + 1 > len(sampled)


def true_sample(check, packet, transmissions, clock, byte=None):
    """The sample of this very sending, or None when this check cannot tell."""
    covering = transmissions.covering(packet.start if byte is None else byte)
    before = [sample for sample in covering if sample["ts_ns"] <= packet.ts_ns + TOLERANCE_NS]
    if byte is None:
        before = [sample for sample in before if may_be_numbered(packet, sample)]
    if not before:
        return None
    latest = before[-1]
    if len(before) == 1:
        return latest
    agreeing = [sample for sample in before if clock is None or clock(sample, packet)]
    if check.options.tap == "receiver" and clock is not None and len(agreeing) == 1:
        return agreeing[0]
    close = [sample for sample in before if latest["ts_ns"] - sample["ts_ns"] < 2 * TOLERANCE_NS]
    if latest not in agreeing or len(close) > 1 or (check.options.tap == "receiver" and len(agreeing) > 1):
        check.undecided += 1
        return None
    return latest


def may_be_numbered(packet, sample):
    """IPv4's identification goes on from a segment's own by one for each piece, of which none is smaller than 88 bytes
    (TCP_MIN_SND_MSS); what is sent again has another."""
    if not packet.ip_id or not sample["ip_id"]:
        return True
    offset = seq_diff(packet.seq, sample["seq"])
    return (packet.ip_id - sample["ip_id"]) % 0x1_0000 <= max(-(-offset // 88), 0)


def is_also_true(check, packet, sample, transmissions, clock):
    """A packet made of several samples may name any of them that is true for its own first byte."""
    if sample["seq"] is None:
        return False
    start = packet.start + seq_diff(sample["seq"], packet.seq)
    if not packet.start < start < packet.end:
        return False
    truth = true_sample(check, packet, transmissions, clock, start)
    return truth is not None and truth["id"] == sample["id"]


def tsval_clock(check, rows, transmissions):
    """A test whether a sample's time fits a packet's TSval: by the offset seen on bytes that were sent once."""
    if any("tsval" in sample.keys() and sample["tsval"] is not None for sample in check.samples.values()):
        return lambda sample, packet: packet.tsval is None or sample["tsval"] in (None, packet.tsval)
    offsets = []
    for row in rows:
        packet = check.packets[row["number"]]
        covering = transmissions.covering(packet.start) if packet.tsval is not None and packet.len else ()
        if len(covering) == 1:
            offsets.append((packet.tsval - covering[0]["mono_ns"] // 1_000_000) % 0x1_0000_0000)
    if len(offsets) < 10:
        return None
    offset = sorted(offsets)[len(offsets) // 2]

    def agrees(sample, packet):
        if packet.tsval is None:
            return True
        return abs(seq_diff(packet.tsval, sample["mono_ns"] // 1_000_000 + offset)) <= TSVAL_TOLERANCE_MS
    return agrees
