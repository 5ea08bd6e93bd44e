"""Reads a classic pcap file: its TCP packets with what the check compares."""

import functools
import ipaddress
import struct


@functools.lru_cache
def text_address(text):
    """An address as the bytes that it has on the wire."""
    address = ipaddress.ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).packed


class Packet:
    """A TCP segment as captured."""

    __slots__ = ("number", "ts_ns", "source", "target", "seq", "ack", "len", "flags", "window",
                 "tsval", "sack", "ip_id", "sighting", "start", "end")

    def identity(self):
        """What two sightings of one packet on several interfaces have in common."""
        return (self.source, self.target, self.seq, self.ack, self.len, self.flags, self.window, self.tsval,
                self.sack, self.ip_id)


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
    packet.source = (addresses[0], source)
    packet.target = (addresses[1], target)
    packet.flags, packet.len = bits & 0x1FF, length - header
    packet.ip_id, packet.sighting = ip_id, sighting
    packet.tsval, packet.sack = read_options(frame[at + 20:at + header], header - 20)
    packet.start = packet.end = None
    return packet


def read_options(options, length):
    """TSval, and the blocks of SACK: None where the capture may have cut one off."""
    at, tsval, sack = 0, None, ()
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2:
            break
        end = at + options[at + 1]
        if options[at] == 8 and end <= len(options):
            tsval = struct.unpack_from(">I", options, at + 2)[0]
        elif options[at] == 5 and end <= len(options):
            sack = tuple(struct.iter_unpack(">II", options[at + 2:end]))
        at = end
    return tsval, sack if len(options) == length else None


def are_copies(packets):
    """Whether these are sightings of one packet on different interfaces."""
    first = packets[0]
    return first.sighting is not None and len({packet.sighting for packet in packets}) == len(packets) and all(
        packet.identity() == first.identity() for packet in packets)
