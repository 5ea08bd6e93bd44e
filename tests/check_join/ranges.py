"""Sequence numbers and ranges of bytes."""

import collections

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
BUCKET_BYTES = 16_384


def seq_diff(a, b):
    """a - b, modulo 2^32, nearest to zero."""
    return (a - b + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000


def span(segment_len, flags):
    """Sequence numbers that a segment takes: its bytes, SYN and FIN."""
    return segment_len + (flags & SYN != 0) + (flags & FIN != 0)


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
