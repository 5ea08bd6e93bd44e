//! The one list of a sample's state fields.
//!
//! Everything that needs to know which fields there are is derived from [`FIELDS`]: the C structure that the BPF
//! programs fill (written by `probes/build.rs`), its decoder, the columns of the SQLite tables and of the view
//! `samples`, and the field reference in `docs/fields.md`. This file depends on nothing, so that a build script can
//! include it as it stands; it must not know BPF, SQL or Rust types of samples.

/// Integer type in which the BPF programs hand a field over, without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// One byte.
    U8,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
}

impl Wire {
    /// Size in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Wire::U8 => 1,
            Wire::U32 => 4,
            Wire::U64 => 8,
        }
    }
}

/// How a BPF program reads a field of `struct tcp_sock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A plain member; the path is relative to `struct tcp_sock`.
    Member(&'static str),
    /// A bit field: the member that holds the structure, then the bit field's name.
    Bits(&'static str),
}

/// How the kernel's value becomes the column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    /// The value itself.
    Plain,
    /// Kept by the kernel shifted left by so many bits (fixed point): shifted back.
    ShiftRight(u32),
    /// Jiffies: converted to microseconds with the kernel's tick length.
    JiffiesToUs,
    /// `u32::MAX` means "no measurement yet" and becomes NULL.
    MaxU32IsNull,
    /// All ones (of `unsigned long`, or `u32` before Linux 4.20) means "unlimited" and becomes NULL.
    UnlimitedIsNull,
}

/// When a field's value tends to move; decides which table it is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// With every segment sent or received: stored with each sample.
    Segment,
    /// When an ACK is processed: stored once for all samples between two changes.
    Ack,
    /// Seldom: stored once for all ACK states between two changes.
    Seldom,
}

/// A field that is read from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Column name: the kernel's own name of the value.
    pub name: &'static str,
    /// Unit of the column's value.
    pub unit: &'static str,
    /// Type in the BPF record.
    pub wire: Wire,
    /// Where it is read from.
    pub read: Read,
    /// From the record's value to the column's.
    pub convert: Convert,
    /// How often it moves.
    pub moves: Moves,
    /// Whether the public views show it; a field that only feeds a derived column is not shown.
    pub public: bool,
    /// What it means, in one sentence, with its source in the kernel.
    pub doc: &'static str,
}

/// A public state column that is computed from fields, not stored.
#[derive(Clone, Copy, Debug)]
pub struct Derived {
    /// Column name.
    pub name: &'static str,
    /// Unit of the column's value.
    pub unit: &'static str,
    /// What it means, and from which fields it is computed.
    pub doc: &'static str,
}

const fn field(
    name: &'static str,
    unit: &'static str,
    wire: Wire,
    read: Read,
    convert: Convert,
    moves: Moves,
    doc: &'static str,
) -> Field {
    Field { name, unit, wire, read, convert, moves, public: true, doc }
}

const fn hidden(f: Field) -> Field {
    Field { public: false, ..f }
}

use Convert::{JiffiesToUs, MaxU32IsNull, Plain, ShiftRight, UnlimitedIsNull};
use Moves::{Ack, Segment, Seldom};
use Read::{Bits, Member};
use Wire::{U8, U32, U64};

/// Every field that the sampler reads, in the order of the BPF record: widest first, so that it has no padding.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    field("bytes_sent", "bytes", U64, Member("bytes_sent"), Plain, Segment,
        "Payload bytes handed to the network layer, retransmissions included; at a `transmit` sample it already counts this segment (`tcp_sock.bytes_sent`)."),
    field("bytes_acked", "bytes", U64, Member("bytes_acked"), Plain, Ack,
        "Payload bytes that the peer has acknowledged (`tcp_sock.bytes_acked`, RFC 4898 tcpEStatsAppHCThruOctetsAcked)."),
    field("bytes_retrans", "bytes", U64, Member("bytes_retrans"), Plain, Seldom,
        "Payload bytes retransmitted (`tcp_sock.bytes_retrans`)."),
    field("pacing_rate", "bytes per second", U64, Member("inet_conn.icsk_inet.sk.sk_pacing_rate"), UnlimitedIsNull, Ack,
        "Rate at which the socket is paced; NULL where it is unlimited (`sock.sk_pacing_rate`)."),
    hidden(field("bytes_received", "bytes", U64, Member("bytes_received"), Plain, Segment,
        "Payload bytes received in order: how often `rcv_nxt` has gone round (`tcp_sock.bytes_received`).")),

    field("snd_nxt", "sequence number", U32, Member("snd_nxt"), Plain, Segment,
        "Next sequence number to be sent; in a `transmit` sample of new data it is not yet advanced (`tcp_sock.snd_nxt`, RFC 9293 SND.NXT)."),
    field("snd_una", "sequence number", U32, Member("snd_una"), Plain, Segment,
        "Oldest unacknowledged sequence number (`tcp_sock.snd_una`, RFC 9293 SND.UNA)."),
    field("write_seq", "sequence number", U32, Member("write_seq"), Plain, Segment,
        "End of the data that the application has written (`tcp_sock.write_seq`)."),
    field("snd_cwnd", "packets", U32, Member("snd_cwnd"), Plain, Ack,
        "Congestion window (`tcp_sock.snd_cwnd`)."),
    field("snd_ssthresh", "packets", U32, Member("snd_ssthresh"), Plain, Seldom,
        "Slow start threshold; 2147483647 is the kernel's infinity (`tcp_sock.snd_ssthresh`)."),
    field("snd_wnd", "bytes", U32, Member("snd_wnd"), Plain, Ack,
        "Window that the peer offers, scaled (`tcp_sock.snd_wnd`)."),
    field("rcv_nxt", "sequence number", U32, Member("rcv_nxt"), Plain, Segment,
        "Next sequence number expected from the peer (`tcp_sock.rcv_nxt`)."),
    field("rcv_wnd", "bytes", U32, Member("rcv_wnd"), Plain, Ack,
        "Window last offered to the peer, scaled (`tcp_sock.rcv_wnd`)."),
    field("srtt_us", "µs", U32, Member("srtt_us"), ShiftRight(3), Ack,
        "Smoothed round-trip time; 0 before the first measurement (`tcp_sock.srtt_us >> 3`)."),
    field("mdev_us", "µs", U32, Member("mdev_us"), ShiftRight(2), Ack,
        "Mean deviation of the round-trip time (`tcp_sock.mdev_us >> 2`)."),
    field("rttvar_us", "µs", U32, Member("rttvar_us"), ShiftRight(2), Seldom,
        "Smoothed maximum of the deviation, from which the RTO is made (`tcp_sock.rttvar_us >> 2`)."),
    field("min_rtt_us", "µs", U32, Member("rtt_min.s[0].v"), MaxU32IsNull, Seldom,
        "Minimum round-trip time over the kernel's window; NULL before the first measurement (`tcp_sock.rtt_min`)."),
    field("rto_us", "µs", U32, Member("inet_conn.icsk_rto"), JiffiesToUs, Ack,
        "Retransmission timeout, backed off where it is (`inet_connection_sock.icsk_rto`, whole jiffies)."),
    field("mss", "bytes", U32, Member("mss_cache"), Plain, Seldom,
        "Sending maximum segment size without SACK options (`tcp_sock.mss_cache`)."),
    field("packets_out", "packets", U32, Member("packets_out"), Plain, Segment,
        "Segments sent and not yet acknowledged; in a `transmit` sample of new data without this one (`tcp_sock.packets_out`)."),
    field("retrans_out", "packets", U32, Member("retrans_out"), Plain, Ack,
        "Retransmitted segments not yet acknowledged (`tcp_sock.retrans_out`)."),
    field("lost_out", "packets", U32, Member("lost_out"), Plain, Seldom,
        "Segments that the kernel holds for lost (`tcp_sock.lost_out`)."),
    field("sacked_out", "packets", U32, Member("sacked_out"), Plain, Ack,
        "Segments selectively acknowledged, or duplicate ACKs without SACK (`tcp_sock.sacked_out`)."),
    field("reordering", "packets", U32, Member("reordering"), Plain, Seldom,
        "Reordering that the kernel assumes of the path (`tcp_sock.reordering`)."),
    field("delivered", "packets", U32, Member("delivered"), Plain, Ack,
        "Segments delivered, retransmissions counted once (`tcp_sock.delivered`)."),
    field("lost", "packets", U32, Member("lost"), Plain, Seldom,
        "Segments that were ever marked lost (`tcp_sock.lost`)."),
    field("segs_out", "segments", U32, Member("segs_out"), Plain, Segment,
        "Segments sent, ACKs included; in a `transmit` sample at `net_dev_queue` it already counts this one, at the entry of `__tcp_transmit_skb` not yet (`tcp_sock.segs_out`)."),
    hidden(field("rate_delivered", "packets", U32, Member("rate_delivered"), Plain, Ack,
        "Segments delivered in the last rate sample (`tcp_sock.rate_delivered`).")),
    hidden(field("rate_interval_us", "µs", U32, Member("rate_interval_us"), Plain, Ack,
        "Time that the last rate sample took (`tcp_sock.rate_interval_us`).")),
    field("sk_mark", "", U32, Member("inet_conn.icsk_inet.sk.sk_mark"), Plain, Seldom,
        "The socket's mark, as set by SO_MARK (`sock.sk_mark`)."),

    field("ca_state", "", U8, Bits("inet_conn.icsk_ca_state"), Plain, Seldom,
        "Congestion avoidance state: 0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss (`inet_connection_sock.icsk_ca_state`)."),
    field("retransmits", "", U8, Member("inet_conn.icsk_retransmits"), Plain, Seldom,
        "Timeouts in a row that went unanswered (`inet_connection_sock.icsk_retransmits`)."),
    field("cwnd_limited", "", U8, Bits("is_cwnd_limited"), Plain, Seldom,
        "1 where the congestion window held data back in the last round (`tcp_sock.is_cwnd_limited`)."),
    field("rate_app_limited", "", U8, Bits("rate_app_limited"), Plain, Seldom,
        "1 where the last rate sample was limited by the application (`tcp_sock.rate_app_limited`)."),
    field("sk_state", "", U8, Member("inet_conn.icsk_inet.sk.__sk_common.skc_state"), Plain, Seldom,
        "TCP state: 1 ESTABLISHED, 2 SYN_SENT, 3 SYN_RECV, 4 FIN_WAIT1, 5 FIN_WAIT2, 6 TIME_WAIT, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 10 LISTEN, 11 CLOSING (`sock_common.skc_state`); in a `state` sample the state that is entered."),
];

/// State columns that the views compute.
pub const DERIVED: &[Derived] = &[
    Derived {
        name: "bytes_in_flight",
        unit: "bytes",
        doc: "Sequence space sent and not yet acknowledged: `snd_nxt` - `snd_una`.",
    },
    Derived {
        name: "notsent_bytes",
        unit: "bytes",
        doc: "Data written by the application and not yet sent: `write_seq` - `snd_nxt`.",
    },
    Derived {
        name: "delivery_rate",
        unit: "bytes per second",
        doc: "The last rate sample: `rate_delivered` * `mss` / `rate_interval_us`, as `tcp_info` computes it; NULL before the first.",
    },
];

/// Public state columns in the order in which the views show them.
pub const STATE_COLUMNS: &[&str] = &[
    "snd_nxt",
    "snd_una",
    "write_seq",
    "snd_cwnd",
    "snd_ssthresh",
    "snd_wnd",
    "rcv_nxt",
    "rcv_wnd",
    "srtt_us",
    "mdev_us",
    "rttvar_us",
    "min_rtt_us",
    "rto_us",
    "mss",
    "packets_out",
    "retrans_out",
    "lost_out",
    "sacked_out",
    "bytes_in_flight",
    "ca_state",
    "retransmits",
    "reordering",
    "delivered",
    "lost",
    "bytes_sent",
    "bytes_acked",
    "bytes_retrans",
    "segs_out",
    "delivery_rate",
    "rate_app_limited",
    "pacing_rate",
    "cwnd_limited",
    "notsent_bytes",
    "sk_mark",
    "sk_state",
];

/// Index of a field in [`FIELDS`] by name; fails to compile in a constant if there is none.
#[expect(clippy::panic, reason = "only ever evaluated by the compiler, which has no other way to refuse")]
pub const fn index(name: &str) -> usize {
    let mut i = 0;
    while i < FIELDS.len() {
        if same(FIELDS[i].name.as_bytes(), name.as_bytes()) {
            return i;
        }
        i += 1;
    }
    panic!("no such field")
}

/// `==` of byte strings, for constants.
pub(crate) const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// What a sample was taken for; the code in records and tables is the position here.
pub const KINDS: &[(&str, &str)] = &[
    ("ack", "a segment was received"),
    ("send", "a segment with new data, or without data, was sent"),
    ("retransmit", "a segment was sent again"),
    ("state", "the TCP state changed"),
];

/// Where, relative to the segment's processing, a sample was taken; the code is the position here.
pub const PHASES: &[(&str, &str)] = &[
    ("before", "before TCP processed the received segment"),
    ("after", "after TCP processed the segment, or at the change of state"),
    ("transmit", "while the segment was on its way out: `snd_nxt` and `packets_out` are without it"),
];
