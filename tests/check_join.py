#!/usr/bin/env python3
"""Checks a join on its own terms: reads the capture and the trace itself, and shares no code with the join.

    check_join.py trace.db capture.pcap [--sender ADDR] [--port N] [--tap sender|receiver] [--min-matched 0.999]

It takes for granted what holds in the tests' networks, and only there: samples and capture are from one machine and
one clock, the path keeps packets in order, and a byte range is sent again only after the last sending of it has left
the sender's queue. So the true sample of a captured transmission can be found by time: the latest one before it.
TSval, a millisecond clock that each packet carries, must agree.

Exit code 1 when anything is wrong; 3 when the join is right but the recording lacks samples of packets that were sent.
"""

import argparse
import bisect
import collections
import ipaddress
import os
import sqlite3
import struct
import sys

FIN, SYN, RST = 0x01, 0x02, 0x04
# What is sent is sampled before it is captured, what comes in after: but for a clock that is read in microseconds.
TOLERANCE_NS = 5_000
# What came in passed the tap before TCP had it: only the clocks' own error may turn that round. A retransmission can
# follow within the other tolerance.
RECEIVED_TOLERANCE_NS = 2_000
# Two packets that arrive within this time may be taken up by TCP in the other order: each has its own processor, and a
# virtual one can be gone for milliseconds (4 ms were seen, for a segment whose TSval leaves no doubt).
REORDERING_NS = 20_000_000
# TSval is stamped when TCP builds a burst of segments, the sample when each leaves: the two may differ by some ticks.
TSVAL_TOLERANCE_MS = 3
# A segment may wait so long between tap and TCP while its processor is busy with others (0.4 ms were seen).
WAITING_NS = 1_000_000
BUCKET_BYTES = 16_384
SHOWN_VIOLATIONS = 20


def seq_diff(a, b):
    """a - b, modulo 2^32, nearest to zero."""
    return (a - b + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000


def text_address(text):
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


# --- the capture ------------------------------------------------------------------------------------------------------


class Packet:
    """A TCP segment as captured."""

    __slots__ = ("number", "ts_ns", "source", "target", "seq", "ack", "len", "flags", "window",
                 "tsval", "ip_id", "sighting", "start", "end")

    def identity(self):
        """What two sightings of one packet on several interfaces have in common."""
        return (self.source, self.target, self.seq, self.ack, self.len, self.flags, self.window, self.tsval, self.ip_id)


def read_capture(path):
    """All frames' count, and the TCP packets among them."""
    with open(path, "rb") as file:
        data = file.read()
    magic = data[:4]
    orders = {b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
              b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1)}
    if magic not in orders:
        raise SystemExit(f"{path}: not a classic pcap file")
    order, fraction_ns = orders[magic]
    link_type = struct.unpack(order + "I", data[20:24])[0] & 0xFFFF
    offset, number, packets = 24, 0, []
    while offset + 16 <= len(data):
        seconds, fraction, captured, original = struct.unpack(order + "IIII", data[offset:offset + 16])
        frame = data[offset + 16:offset + 16 + captured]
        if len(frame) < captured:
            break
        offset += 16 + captured
        number += 1
        packet = parse_frame(frame, original, link_type)
        if packet:
            packet.number, packet.ts_ns = number, seconds * 1_000_000_000 + fraction * fraction_ns
            packets.append(packet)
    return number, link_type, packets


def parse_frame(frame, original, link_type):
    protocol, sighting = None, None
    if link_type == 1:  # EN10MB
        protocol, at = struct.unpack_from(">H", frame, 12)[0], 14
    elif link_type == 113:  # LINUX_SLL
        protocol, at, sighting = struct.unpack_from(">H", frame, 14)[0], 16, frame[0:2]
    elif link_type == 276:  # LINUX_SLL2
        protocol, at, sighting = struct.unpack_from(">H", frame, 0)[0], 20, frame[4:8] + frame[10:11]
    elif link_type == 0:  # NULL
        at = 4
    elif link_type in (12, 14, 101, 228, 229):  # RAW, IPV4, IPV6
        at = 0
    else:
        raise SystemExit(f"link type {link_type} is none that this check reads")
    while protocol in (0x8100, 0x88A8):
        protocol, at = struct.unpack_from(">H", frame, at + 2)[0], at + 4
    if protocol not in (None, 0x0800, 0x86DD) or at >= len(frame):
        return None
    return parse_ip(frame, at, original, sighting)


def parse_ip(frame, at, original, sighting):
    version, rest = frame[at] >> 4, original - at
    ip_id = None
    if version == 4:
        header = (frame[at] & 15) * 4
        length, ip_id, fragment = struct.unpack_from(">HHH", frame, at + 2)
        protocol = frame[at + 9]
        addresses = frame[at + 12:at + 16], frame[at + 16:at + 20]
        # A super-packet of more than 64 KiB has no length that fits.
        total = length or rest
        first_fragment = fragment & 0x1FFF == 0
    elif version == 6:
        length, protocol = struct.unpack_from(">HB", frame, at + 4)
        addresses = frame[at + 8:at + 24], frame[at + 24:at + 40]
        header, first_fragment = 40, True
        total = 40 + length if length else rest
        while protocol in (0, 43, 44, 60):
            if protocol == 44:
                first_fragment = struct.unpack_from(">H", frame, at + header + 2)[0] >> 3 == 0
                protocol, header = frame[at + header], header + 8
            else:
                protocol, header = frame[at + header], header + 8 + frame[at + header + 1] * 8
    else:
        return None
    if protocol != 6 or not first_fragment:
        return None
    return parse_tcp(frame, at + header, total - header, addresses, ip_id, sighting)


def parse_tcp(frame, at, length, addresses, ip_id, sighting):
    if len(frame) < at + 20:
        return None
    packet = Packet()
    source, target, packet.seq, packet.ack, bits, packet.window = struct.unpack_from(">HHIIHH", frame, at)
    header = (bits >> 12) * 4
    packet.source = (ipaddress.ip_address(addresses[0]), source)
    packet.target = (ipaddress.ip_address(addresses[1]), target)
    packet.flags, packet.len = bits & 0x1FF, length - header
    packet.ip_id, packet.sighting = ip_id, sighting
    packet.tsval = tsval_of(frame[at + 20:at + header])
    packet.start = packet.end = None
    return packet


def tsval_of(options):
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2:
            return None
        if options[at] == 8 and at + 6 <= len(options):
            return struct.unpack_from(">I", options, at + 2)[0]
        at += options[at + 1]
    return None


def span(segment_len, flags):
    """Sequence numbers that a segment takes: its bytes, SYN and FIN."""
    return segment_len + (flags & SYN != 0) + (flags & FIN != 0)


# --- byte ranges ------------------------------------------------------------------------------------------------------


class Unwrapper:
    """Continues 32-bit sequence numbers beyond 2^32, each near the last."""

    def __init__(self, anchor):
        self.anchor = anchor

    def __call__(self, seq):
        self.anchor += seq_diff(seq, self.anchor)
        return self.anchor


class Ranges:
    """Finds the items that cover a byte, in the order in which they were added."""

    def __init__(self):
        self.buckets = collections.defaultdict(list)

    def add(self, start, end, item):
        for bucket in range(start // BUCKET_BYTES, (end - 1) // BUCKET_BYTES + 1):
            self.buckets[bucket].append((start, end, item))

    def covering(self, byte):
        return [item for start, end, item in self.buckets[byte // BUCKET_BYTES] if start <= byte < end]


# --- the check --------------------------------------------------------------------------------------------------------


class Check:
    """Reads one capture's rows and collects what is wrong with them."""

    def __init__(self, database, path, options):
        self.options = options
        self.violations = []
        self.undecided = 0
        self.unsampled = set()
        self.database = database
        self.frames, self.link_type, self.capture = read_capture(path)
        rows = [row for row in self.query("SELECT * FROM captures")
                if os.path.basename(row["path"]) == os.path.basename(path)]
        if len(rows) != 1:
            raise SystemExit(f"{len(rows)} rows in captures for {path}, not 1")
        self.row = rows[0]
        self.flows = {row["id"]: row for row in
                      self.query("SELECT * FROM flows WHERE session_id = ?", self.row["session_id"])}
        if options.port:
            self.flows = {key: flow for key, flow in self.flows.items()
                          if options.port in (flow["local_port"], flow["remote_port"])}
        self.samples = {row["id"]: row for row in self.query(
            "SELECT s.* FROM samples s JOIN flows f ON f.id = s.flow_id WHERE f.session_id = ?",
            self.row["session_id"])}
        # Changes of state that no segment made have no sequence number.
        self.segments = collections.defaultdict(list)
        for sample in sorted(self.samples.values(), key=lambda sample: sample["serial"]):
            if sample["seq"] is not None:
                self.segments[sample["flow_id"], sample["phase"]].append(sample)
        self.retransmissions = 0
        self.rows = self.query("SELECT * FROM packets WHERE capture_id = ? ORDER BY number, dir", self.row["id"])
        self.states = self.query("SELECT * FROM packet_state WHERE capture_id = ?", self.row["id"])
        self.packets = {packet.number: packet for packet in self.capture}

    def query(self, sql, *parameters):
        return self.database.execute(sql, parameters).fetchall()

    def wrong(self, number, text):
        self.violations.append((number, text))

    def run(self):
        self.check_totals()
        self.check_rows()
        self.check_samples()
        for flow_id in self.flows:
            out = [row for row in self.rows if row["flow_id"] == flow_id and row["dir"] == "out"]
            into = [row for row in self.rows if row["flow_id"] == flow_id and row["dir"] == "in"]
            self.check_transmissions(flow_id, out)
            self.check_received(flow_id, into)
        self.check_states()

    def check_totals(self):
        if self.row["packets"] != self.frames:
            self.wrong(0, f"captures.packets is {self.row['packets']}, the file has {self.frames} frames")
        if self.row["tcp_packets"] != len(self.capture):
            self.wrong(0, f"captures.tcp_packets is {self.row['tcp_packets']}, the file has {len(self.capture)}")
        if self.row["link_type"] != self.link_type:
            self.wrong(0, f"captures.link_type is {self.row['link_type']}, the file has {self.link_type}")

    # Each packet of a recorded socket has a row for it, and no other packet has one.

    def check_rows(self):
        sockets = collections.defaultdict(list)
        for flow in self.flows.values():
            local = (text_address(flow["local_addr"]), flow["local_port"])
            remote = (text_address(flow["remote_addr"]), flow["remote_port"])
            sockets[local, remote].append(flow)
        expected = {}
        for packet in self.capture:
            for direction, ends in (("out", (packet.source, packet.target)), ("in", (packet.target, packet.source))):
                # One socket after the other may have had the same addresses: they share one expected row.
                for netns in {flow["netns"] for flow in sockets[ends]}:
                    same = [flow["id"] for flow in sockets[ends] if flow["netns"] == netns]
                    expected[packet.number, direction, netns] = same
        seen = set()
        for row in self.rows:
            if row["flow_id"] not in self.flows:
                if not self.options.port:
                    self.wrong(row["number"], f"flow {row['flow_id']} is not of this session")
                continue
            key = (row["number"], row["dir"], self.flows[row["flow_id"]]["netns"])
            if row["flow_id"] not in expected.get(key, ()):
                self.wrong(row["number"], f"row of flow {row['flow_id']} {row['dir']}: the packet is not of that flow")
                continue
            if key in seen:
                self.wrong(row["number"], f"two rows for one socket, {row['dir']}")
            seen.add(key)
            packet = self.packets[row["number"]]
            for column in ("ts_ns", "seq", "ack", "len", "flags", "window"):
                if row[column] != getattr(packet, column):
                    self.wrong(row["number"], f"{column} is {row[column]}, captured {getattr(packet, column)}")
        for number, direction, netns in expected.keys() - seen:
            self.wrong(number, f"no row for the socket in netns {netns}, {direction}")
        self.rows = [row for row in self.rows if row["flow_id"] in self.flows and row["number"] in self.packets]

    # The sample of each row fits the packet, whatever the rest of the capture says.

    def check_samples(self):
        users = collections.defaultdict(list)
        for row in self.rows:
            number, match, packet = row["number"], row["match"], self.packets[row["number"]]
            if match not in ("exact", "within", "carried", "none"):
                self.wrong(number, f"match is {match!r}")
            if match == "none" and not row["reason"]:
                self.wrong(number, "none, without a reason")
            if match == "none" and row["sample_id"] is not None:
                self.wrong(number, "none, with a sample")
            if match == "carried":
                self.check_carried(packet, row)
            if match not in ("exact", "within"):
                continue
            sample = self.samples.get(row["sample_id"])
            if sample is None or sample["flow_id"] != row["flow_id"]:
                self.wrong(number, f"sample {row['sample_id']} is not of flow {row['flow_id']}")
                continue
            # A change of state has a segment where a received one made it, as a SYN-ACK does.
            kinds = ("send", "retransmit") if row["dir"] == "out" else ("ack", "state")
            if sample["kind"] not in kinds or sample["seq"] is None:
                self.wrong(number, f"{row['dir']} packet with a sample of kind {sample['kind']}")
                continue
            early_ns = sample["ts_ns"] - packet.ts_ns if row["dir"] == "out" else packet.ts_ns - sample["ts_ns"]
            if early_ns > TOLERANCE_NS:
                order = "captured before" if row["dir"] == "out" else "captured after"
                self.wrong(number, f"{row['dir']}, {match}: {order} its sample {sample['id']}, by {early_ns / 1e3} µs")
            if match == "exact":
                users[sample["id"]].append(packet)
                self.check_exact(packet, sample)
            else:
                self.check_within(packet, sample)
        for sample_id, packets in users.items():
            if len(packets) > 1 and not are_copies(packets):
                numbers = [packet.number for packet in packets]
                self.wrong(numbers[1], f"sample {sample_id} is the exact one of packets {numbers[:5]}")

    def check_carried(self, packet, row):
        sample = self.samples.get(row["sample_id"])
        if sample is None or sample["flow_id"] != row["flow_id"]:
            self.wrong(packet.number, f"carried: sample {row['sample_id']} is not of flow {row['flow_id']}")
        elif row["dir"] == "out" and sample["ts_ns"] > packet.ts_ns + TOLERANCE_NS:
            # What comes in may wait between tap and TCP, and then meets a state that is younger than its capture.
            late_us = (sample["ts_ns"] - packet.ts_ns) / 1e3
            self.wrong(packet.number, f"out, carried: from sample {sample['id']}, {late_us} µs after the packet")

    def check_exact(self, packet, sample):
        for column in ("seq", "len", "ack"):
            # Without the ACK flag the header's ack number means nothing.
            if column == "ack" and not packet.flags & 0x10:
                continue
            if sample[column] != getattr(packet, column):
                self.wrong(packet.number,
                           f"exact: {column} is {getattr(packet, column)}, sample {sample['id']} has {sample[column]}")
        if (sample["flags"] ^ packet.flags) & (SYN | FIN | RST):
            self.wrong(packet.number, f"exact: flags are {packet.flags:#x}, sample {sample['id']} has {sample['flags']:#x}")

    def check_within(self, packet, sample):
        start = seq_diff(packet.seq, sample["seq"])
        end = start + span(packet.len, packet.flags)
        sample_end = span(sample["len"], sample["flags"])
        inside = 0 <= start and end <= sample_end
        made_of = start <= 0 and sample_end <= end
        # Where both sides were cut anew, the sample must at least be the one that sent the packet's first byte.
        covers_start = 0 <= start < sample_end
        if not (inside or made_of or covers_start):
            self.wrong(packet.number, f"within: [{start}, {end}) is not in sample {sample['id']} of length {sample_end}")

    # Which transmission of a byte range each packet is.

    def check_transmissions(self, flow_id, rows):
        flow_samples = [sample for sample in self.segments[flow_id, "transmit"] if sample["kind"] != "state"]
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
            packet = self.packets[row["number"]]
            packet.start = unwrap(packet.seq)
            packet.end = packet.start + span(packet.len, packet.flags)
        clock = self.tsval_clock(rows, transmissions)
        sent, sightings = Ranges(), {}
        for row in rows:
            packet = self.packets[row["number"]]
            if packet.start == packet.end:
                continue
            # Seen on one interface and then, the same, on another: not sent again.
            is_copy = packet.sighting not in sightings.setdefault(packet.identity(), {packet.sighting})
            sightings[packet.identity()].add(packet.sighting)
            if packet.len and not is_copy and self.lacks_sample(packet, transmissions, sent):
                self.unsampled.add(packet.number)
            truth = self.true_sample(packet, transmissions, clock)
            sample = self.samples.get(row["sample_id"]) if row["match"] in ("exact", "within") else None
            if sample is not None and truth is not None and sample["id"] != truth["id"]:
                if not self.is_also_true(packet, sample, transmissions, clock):
                    self.wrong(row["number"], f"sample {sample['id']} ({sample['kind']}, ts {sample['ts_ns']}) instead of "
                                              f"{truth['id']} ({truth['kind']}, ts {truth['ts_ns']}); packet ts {packet.ts_ns}")
            # Not whether it lies below what was sent last: packets can overtake each other on the way to a receiver.
            again = bool(sent.covering(packet.start))
            said_so = truth is not None and truth["kind"] == "retransmit"
            if packet.len and (again or said_so) and not is_copy:
                self.check_retransmission(row, packet, sample, sent)
            if not is_copy:
                sent.add(packet.start, packet.end, (packet, sample))

    def check_retransmission(self, row, packet, sample, sent):
        self.retransmissions += 1
        if sample is None and (packet.number in self.unsampled or self.options.tap == "receiver"):
            # Of a range that was sent twice and captured once, a join knows which only where TSval tells: elsewhere
            # the packet is ambiguous to one that must do without a common clock.
            return
        if sample is None:
            self.wrong(row["number"], f"a retransmission without its sample: {row['match']} {row['reason']}")
            return
        if sample["kind"] != "retransmit":
            self.wrong(row["number"], f"a retransmission, but sample {sample['id']} is of kind {sample['kind']}")
        earlier = [other for _, other in sent.covering(packet.start) if other is not None]
        for other in earlier[-1:]:
            if other["id"] == sample["id"]:
                self.wrong(row["number"], f"sample {sample['id']} is also that of an earlier sending of these bytes")
            elif other["serial"] > sample["serial"]:
                self.wrong(row["number"], f"sample {sample['id']} is older than that of an earlier sending of these bytes")

    def lacks_sample(self, packet, transmissions, sent):
        """Whether these bytes came by more often than they were sampled: the recorder missed a sending, not the join."""
        sampled = [sample for sample in transmissions.covering(packet.start)
                   if sample["ts_ns"] <= packet.ts_ns + TOLERANCE_NS]
        return len(sent.covering(packet.start)) + 1 > len(sampled)

    def true_sample(self, packet, transmissions, clock, byte=None):
        """The sample of this very sending, or None when this check cannot tell."""
        covering = transmissions.covering(packet.start if byte is None else byte)
        before = [sample for sample in covering if sample["ts_ns"] <= packet.ts_ns + TOLERANCE_NS]
        if not before:
            return None
        latest = before[-1]
        if len(before) == 1:
            return latest
        agreeing = [sample for sample in before if clock is None or clock(sample, packet)]
        if self.options.tap == "receiver" and clock is not None and len(agreeing) == 1:
            return agreeing[0]
        close = [sample for sample in before if latest["ts_ns"] - sample["ts_ns"] < 2 * TOLERANCE_NS]
        if latest not in agreeing or len(close) > 1 or (self.options.tap == "receiver" and len(agreeing) > 1):
            self.undecided += 1
            return None
        return latest

    def is_also_true(self, packet, sample, transmissions, clock):
        """A packet made of several samples may name any of them that is true for its own first byte."""
        start = packet.start + seq_diff(sample["seq"], packet.seq)
        if not packet.start < start < packet.end:
            return False
        truth = self.true_sample(packet, transmissions, clock, start)
        return truth is not None and truth["id"] == sample["id"]

    def tsval_clock(self, rows, transmissions):
        """A test whether a sample's time fits a packet's TSval: by the offset seen on bytes that were sent once."""
        if any("tsval" in sample.keys() and sample["tsval"] is not None for sample in self.samples.values()):
            return lambda sample, packet: packet.tsval is None or sample["tsval"] in (None, packet.tsval)
        offsets = []
        for row in rows:
            packet = self.packets[row["number"]]
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

    # What came in: the sample is taken after the tap, and in the same order.

    def check_received(self, flow_id, rows):
        last = None
        by_key = collections.defaultdict(list)
        for row in rows:
            packet = self.packets[row["number"]]
            by_key[packet.seq, packet.len, packet.ack, packet.flags & (SYN | FIN | RST)].append(row)
            if row["match"] != "exact" or row["sample_id"] not in self.samples:
                continue
            sample = self.samples[row["sample_id"]]
            if last is not None and sample["serial"] < last[0]["serial"] and packet.ts_ns - last[1].ts_ns > REORDERING_NS:
                self.wrong(row["number"], f"sample {sample['id']} is older than {last[0]['id']}, that of an earlier packet")
            if last is None or sample["serial"] > last[0]["serial"]:
                last = sample, packet
        samples_by_key = collections.defaultdict(list)
        for sample in self.segments[flow_id, "before"]:
            key = (sample["seq"], sample["len"], sample["ack"], sample["flags"] & (SYN | FIN | RST))
            samples_by_key[key].append(sample)
        for key, same in by_key.items():
            samples = samples_by_key[key]
            if len(samples) == len(same):
                # As many packets as samples of one kind: the first is the first's, and so on.
                for row, sample in zip(same, samples):
                    if row["match"] == "exact" and row["sample_id"] != sample["id"]:
                        self.wrong(row["number"], f"sample {row['sample_id']} instead of {sample['id']}")
            elif key[1]:
                self.check_received_data(same, samples)

    def check_received_data(self, rows, samples):
        """Of several sendings of the same data, a sample is of the latest that was captured before it, unless they came
        so close to each other that the earlier one may still have waited for TCP when the later one came."""
        times = [self.packets[row["number"]].ts_ns for row in rows]
        for sample in samples:
            true_row = rows[max(bisect.bisect_right(times, sample["ts_ns"] + RECEIVED_TOLERANCE_NS) - 1, 0)]
            for row in rows:
                if row["match"] != "exact" or row["sample_id"] != sample["id"] or row is true_row:
                    continue
                if sample["ts_ns"] - self.packets[row["number"]].ts_ns <= WAITING_NS:
                    self.undecided += 1
                else:
                    self.wrong(row["number"], f"sample {sample['id']} is that of packet {true_row['number']}")

    # The state that users read.

    def check_states(self):
        ids = sorted(row["id"] for row in self.states)
        if ids != sorted(row["id"] for row in self.query("SELECT id FROM packets WHERE capture_id = ?", self.row["id"])):
            self.wrong(0, f"packet_state has {len(ids)} rows, or not the ids of packets")
        if not self.states or not self.samples:
            return
        state_columns = set(self.states[0].keys())
        own_columns = {"id", "flow_id", "seq", "ack", "len", "flags", "ts_ns", "serial", "kind", "phase", "mono_ns"}
        shared = (set(next(iter(self.samples.values())).keys()) & state_columns) - own_columns
        if "snd_cwnd" not in shared:
            self.wrong(0, "packet_state has no snd_cwnd")
        for row in self.states:
            if row["flow_id"] not in self.flows or row["match"] == "none":
                continue
            sample = self.samples.get(row["sample_id"])
            if row["match"] in ("exact", "within"):
                if not row["snd_cwnd"]:
                    self.wrong(row["number"], f"{row['match']}: snd_cwnd is {row['snd_cwnd']}")
                if sample is not None and row["sample_ts_ns"] != sample["ts_ns"]:
                    self.wrong(row["number"], f"sample_ts_ns is {row['sample_ts_ns']}, not {sample['ts_ns']}")
            if row["match"] == "exact" and sample is not None:
                for column in shared:
                    if row[column] != sample[column]:
                        self.wrong(row["number"], f"{column} is {row[column]}, its sample has {sample[column]}")
            if row["dir"] == "out" and row["len"] and row["snd_una"] is not None:
                if seq_diff(row["seq"], row["snd_una"]) < 0:
                    self.wrong(row["number"], f"{row['match']}: sends {row['seq']}, below snd_una {row['snd_una']}")
                if row["match"] in ("exact", "within") and sample is not None and sample["kind"] == "retransmit" \
                        and seq_diff((row["seq"] + row["len"]), row["snd_nxt"]) > 0:
                    self.wrong(row["number"], f"a retransmission ends beyond snd_nxt {row['snd_nxt']}")

    # What is printed.

    def report(self):
        print(f"frames {self.frames}, TCP {len(self.capture)}, rows {len(self.rows)}, flows {len(self.flows)}, "
              f"samples {len(self.samples)}, retransmissions {self.retransmissions}, "
              f"undecided by this check {self.undecided}")
        matched = total = 0
        groups = collections.Counter()
        for row in self.rows:
            groups[row["dir"], "data" if row["len"] else "no data", row["match"]] += 1
            local = text_address(self.flows[row["flow_id"]]["local_addr"])
            if row["dir"] == "out" and row["len"] and self.options.sender in (None, local):
                if row["number"] in self.unsampled and row["match"] not in ("exact", "within"):
                    continue
                total += 1
                matched += row["match"] in ("exact", "within")
        for (direction, data, match), count in sorted(groups.items()):
            print(f"  {direction:3} {data:7} {match:7} {count}")
        share = matched / total if total else 0.0
        print(f"sender's data packets that were sampled: {total}, matched: {matched} ({share:.4%})")
        if share < self.options.min_matched:
            reasons = collections.Counter(
                (row["match"], row["reason"]) for row in self.rows
                if row["dir"] == "out" and row["len"] and row["match"] not in ("exact", "within"))
            self.wrong(0, f"only {share:.4%} of the sender's data packets are matched; the rest: {dict(reasons)}")
        for number, text in sorted(self.violations)[:SHOWN_VIOLATIONS]:
            print(f"WRONG packet {number}: {text}")
        print(f"{len(self.violations)} violations")
        if self.unsampled:
            print(f"{len(self.unsampled)} data packets were sent without a sample, the first is {min(self.unsampled)}")
        return 1 if self.violations else 3 if self.unsampled else 0


def are_copies(packets):
    """Whether these are sightings of one packet on different interfaces."""
    first = packets[0]
    return first.sighting is not None and len({packet.sighting for packet in packets}) == len(packets) and all(
        packet.identity() == first.identity() for packet in packets)


def main():
    parser = argparse.ArgumentParser(description="Checks the join of a capture, independently of the join's code.")
    parser.add_argument("trace")
    parser.add_argument("capture")
    parser.add_argument("--sender", type=text_address, help="count only this address's data packets as the sender's")
    parser.add_argument("--port", type=int, help="look only at flows of this port")
    parser.add_argument("--tap", choices=("sender", "receiver"), default="sender", help="where the capture was made")
    parser.add_argument("--min-matched", type=float, default=0.999)
    options = parser.parse_args()
    database = sqlite3.connect(f"file:{options.trace}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    check = Check(database, options.capture, options)
    check.run()
    return check.report()


if __name__ == "__main__":
    sys.exit(main())
