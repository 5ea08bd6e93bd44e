"""What the peer had selectively acknowledged when a packet was sent or came in, from the ACKs of the capture.

Samples tell the order in which the sender's TCP took up ACKs and sent packets. An ACK without a sample of its own may
have been taken up at any time after it was captured: then there is a least and a most.
"""

from clocks import TOLERANCE_NS
from ranges import ACK, Unwrapper

# More than any window.
MOST_SENT = 1 << 30


class Board:
    """Selectively acknowledged bytes as disjoint ranges."""

    def __init__(self):
        self.ranges = []

    def add(self, start, end):
        apart = [(left, right) for left, right in self.ranges if right < start or left > end]
        touching = [edge for span in self.ranges if span not in apart for edge in span]
        self.ranges = sorted(apart + [(min([start] + touching), max([end] + touching))])

    def forget_below(self, una):
        self.ranges = [(max(left, una), right) for left, right in self.ranges if right > una]

    def segments(self, mss):
        return sum(-(-(right - left) // mss) for left, right in self.ranges)

    def bytes(self, una, nxt):
        return sum(max(0, min(right, nxt) - max(left, una)) for left, right in self.ranges)


def check_sacked(check, flow_id, out, into):
    acks = [(row, check.packets[row["number"]], check.own_sample(row)) for row in into]
    acks = [(row, packet, sample) for row, packet, sample in acks if packet.flags & ACK]
    if any(packet.sack is None for _, packet, _ in acks):
        return
    # A sample of what came in is of before, unless TCP was done with it when it was seen.
    asked = [(sample["serial"], 0, row, sample) for row in out + into
             for sample in [check.own_sample(row)] if sample is not None and sample["phase"] in ("transmit", "before")]
    taken_up = [(sample["serial"], 1, packet, sample) for _, packet, sample in acks if sample is not None]
    waiting = sorted((packet for _, packet, sample in acks if sample is None and packet.sack),
                     key=lambda packet: packet.ts_ns, reverse=True)
    events = sorted(asked + taken_up, key=lambda event: event[:2])
    if not events:
        return
    by_serial = {sample["serial"]: sample for sample in check.samples.values() if sample["flow_id"] == flow_id}
    least, most = Board(), Board()
    edges = Unwrapper(events[0][3]["snd_una"])
    for _, is_ack, item, sample in events:
        una = edges(sample["snd_una"])
        nxt = una + sample["bytes_in_flight"]
        for board in (least, most):
            board.forget_below(una)
        if is_ack:
            una = max(una, Unwrapper(una)(item.ack))
            for board in (least, most):
                add_blocks(board, item, una, nxt)
                board.forget_below(una)
            after = by_serial.get(sample["serial"] + 1)
            known = after is not None and sample["mss"] and least.ranges == most.ranges
            if known and least.segments(sample["mss"]) == after["sacked_out"]:
                check.taken_up_in_turn.add((flow_id, item.number))
            continue
        while waiting and waiting[-1].ts_ns <= sample["ts_ns"] + TOLERANCE_NS:
            # It may be taken up later, when more was sent.
            add_blocks(most, waiting.pop(), una, nxt + MOST_SENT)
        compare(check, item, sample, least.bytes(una, nxt), most.bytes(una, nxt))


def add_blocks(board, packet, una, nxt):
    """A block below what is acknowledged is of duplicates (RFC 2883), one beyond what was sent is none."""
    floor = max(una, Unwrapper(una)(packet.ack))
    for left, right in packet.sack:
        start = Unwrapper(una)(left)
        end = Unwrapper(start)(right)
        if floor <= start < end <= nxt:
            board.add(start, end)


def compare(check, row, sample, least, most):
    sacked = row["sacked_bytes"]
    check.compared["SACKed bytes"] += 1
    check.compared["SACKed bytes above 0"] += bool(sacked)
    if sacked is None:
        # Nothing is claimed where the capture's blocks are not as many segments as the kernel counts.
        check.compared["SACKed bytes not said"] += bool(sample["sacked_out"])
        if sample["sacked_out"] == 0:
            check.wrong(row["number"], "sacked_bytes is not said, although sacked_out is 0")
    elif not least <= sacked <= most:
        check.wrong(row["number"], f"sacked_bytes is {sacked}, the ACKs before it say {least} to {most}, "
                                   f"sacked_out of its sample {sample['id']} is {sample['sacked_out']}")
    # The kernel counts packets.
    elif (sacked == 0) != (sample["sacked_out"] == 0):
        check.wrong(row["number"], f"sacked_bytes is {sacked}, sacked_out of its sample {sample['sacked_out']}")
