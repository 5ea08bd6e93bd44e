"""The sample of each row fits the packet, whatever the rest of the capture says."""

import collections

from capture import are_copies
from clocks import TOLERANCE_NS
from ranges import ACK, FIN, RST, SYN, seq_diff, span


def check_samples(check):
    users, ids, pure_acks = collections.defaultdict(list), collections.defaultdict(set), collections.defaultdict(set)
    for row in check.rows:
        packet = check.packets[row["number"]]
        ids[row["flow_id"], row["dir"]].add(packet.ip_id)
        if not span(packet.len, packet.flags):
            pure_acks[row["flow_id"], row["dir"]].add((packet.seq, packet.ip_id))
    for row in check.rows:
        number, match, packet = row["number"], row["match"], check.packets[row["number"]]
        if match not in ("exact", "within", "carried", "none"):
            check.wrong(number, f"match is {match!r}")
        if match == "none" and not row["reason"]:
            check.wrong(number, "none, without a reason")
        if match == "none" and row["sample_id"] is not None:
            check.wrong(number, "none, with a sample")
        if match == "carried":
            check_carried(check, packet, row)
        if match not in ("exact", "within"):
            continue
        sample = check.samples.get(row["sample_id"])
        if sample is None or sample["flow_id"] != row["flow_id"]:
            check.wrong(number, f"sample {row['sample_id']} is not of flow {row['flow_id']}")
            continue
        # A change of state has a segment where a received one made it, as a SYN-ACK does.
        kinds = ("send", "retransmit") if row["dir"] == "out" else ("ack", "state")
        if sample["kind"] not in kinds or sample["seq"] is None:
            check.wrong(number, f"{row['dir']} packet with a sample of kind {sample['kind']}")
            continue
        early_ns = sample["ts_ns"] - packet.ts_ns if row["dir"] == "out" else packet.ts_ns - sample["ts_ns"]
        if early_ns > TOLERANCE_NS:
            order = "captured before" if row["dir"] == "out" else "captured after"
            check.wrong(number, f"{row['dir']}, {match}: {order} its sample {sample['id']}, by {early_ns / 1e3} µs")
        direction = row["flow_id"], row["dir"]
        check_identification(check, packet, row, sample, ids[direction], pure_acks[direction])
        if match == "exact":
            users[sample["id"]].append(packet)
            check_exact(check, packet, sample)
        else:
            check_within(check, packet, sample)
    for sample_id, packets in users.items():
        if len(packets) > 1 and not are_copies(packets):
            numbers = [packet.number for packet in packets]
            check.wrong(numbers[1], f"sample {sample_id} is the exact one of packets {numbers[:5]}")


def check_carried(check, packet, row):
    sample = check.samples.get(row["sample_id"])
    if sample is None or sample["flow_id"] != row["flow_id"]:
        check.wrong(packet.number, f"carried: sample {row['sample_id']} is not of flow {row['flow_id']}")
    elif row["dir"] == "out" and sample["ts_ns"] > packet.ts_ns + TOLERANCE_NS:
        # What comes in may wait between tap and TCP, and then meets a state that is younger than its capture.
        late_us = (sample["ts_ns"] - packet.ts_ns) / 1e3
        check.wrong(packet.number, f"out, carried: from sample {sample['id']}, {late_us} µs after the packet")


def check_exact(check, packet, sample):
    for column in ("seq", "len", "ack"):
        # Without the ACK flag the header's ack number means nothing.
        if column == "ack" and not packet.flags & ACK:
            continue
        if sample[column] != getattr(packet, column):
            check.wrong(packet.number,
                       f"exact: {column} is {getattr(packet, column)}, sample {sample['id']} has {sample[column]}")
    if (sample["flags"] ^ packet.flags) & (SYN | FIN | RST):
        check.wrong(packet.number, f"exact: flags are {packet.flags:#x}, sample {sample['id']} has {sample['flags']:#x}")


def check_within(check, packet, sample):
    start = seq_diff(packet.seq, sample["seq"])
    end = start + span(packet.len, packet.flags)
    sample_end = span(sample["len"], sample["flags"])
    inside = 0 <= start and end <= sample_end
    made_of = start <= 0 and sample_end <= end
    # Where both sides were cut anew, the sample must at least be the one that sent the packet's first byte.
    covers_start = 0 <= start < sample_end
    if not (inside or made_of or covers_start):
        check.wrong(packet.number, f"within: [{start}, {end}) is not in sample {sample['id']} of length {sample_end}")


def check_identification(check, packet, row, sample, all_ids, pure_acks):
    """IPv4's identification, which the kernel counts up with each segment: a sample is of the header that left."""
    if packet.ip_id is None or sample["ip_id"] is None:
        if packet.ip_id is not None and row["dir"] == "out" and sample["phase"] == "transmit":
            check.wrong(packet.number, f"{row['match']}: sample {sample['id']} has no ip_id, the packet {packet.ip_id}")
        return
    check.compared["identifications"] += 1
    ahead = (packet.ip_id - sample["ip_id"]) % 0x1_0000
    if row["dir"] == "in" and packet.len:
        # Data that came while ACKs waited was merged into the first of them, with its header (tcp_add_to_backlog).
        while ahead and sample["len"] and (sample["seq"], (packet.ip_id - ahead) % 0x1_0000) in pure_acks:
            ahead -= 1
    offset = seq_diff(packet.seq, sample["seq"])
    # Pieces of a larger segment are numbered on from its own; none is smaller than 88 bytes but the last (TCP_MIN_SND_MSS).
    pieces = -(-offset // 88) if row["match"] == "within" and offset > 0 else 0
    least = 1 if pieces else 0
    # ACKs that were merged while they waited have the header of the first, which was captured too.
    merged = row["dir"] == "in" and packet.len == 0 and ahead and sample["ip_id"] in all_ids
    if not least <= ahead <= pieces and not merged:
        check.wrong(packet.number, f"{row['match']}: ip_id is {packet.ip_id}, sample {sample['id']} has {sample['ip_id']}")
