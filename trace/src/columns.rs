//! What the columns of the views of samples and packets mean: names, units and types, for whoever hands them on.
//!
//! State columns follow from [`crate::fields`]; the columns before them are listed here. The views themselves are made by
//! the schema; a test holds both together.

use Type::{Integer, Text};

use crate::schema::column_docs;

/// What a column's values are, where they are not NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Integers of 64 bits with sign.
    Integer,
    /// Text.
    Text,
}

/// A column of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its unit; empty where it has none.
    pub unit: &'static str,
    /// Its meaning, in Markdown.
    pub doc: &'static str,
    /// Its type.
    pub values: Type,
    /// Is it part of the sender's state at a sample?
    pub is_state: bool,
}

/// The views whose columns are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// `samples`.
    Samples,
    /// `packets`.
    Packets,
    /// `packet_state`.
    PacketState,
}

impl View {
    /// All.
    pub const ALL: [View; 3] = [View::Samples, View::Packets, View::PacketState];

    /// The name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            View::Samples => "samples",
            View::Packets => "packets",
            View::PacketState => "packet_state",
        }
    }

    /// Its columns, in order.
    pub fn columns(self) -> Vec<Column> {
        let state =
            column_docs().map(|(name, unit, doc)| Column { name, unit, doc, values: Type::Integer, is_state: true });
        match self {
            View::Samples => OF_SAMPLES.iter().map(Listed::column).chain(state).collect(),
            View::Packets => OF_PACKETS.iter().map(Listed::column).collect(),
            View::PacketState => {
                let (before, after) = OF_STATE;
                let listed = |columns: &'static [Listed]| columns.iter().map(Listed::column);
                listed(&OF_PACKETS).chain(listed(before)).chain(state).chain(listed(after)).collect()
            }
        }
    }
}

/// Name, unit, meaning, type.
struct Listed(&'static str, &'static str, &'static str, Type);

impl Listed {
    fn column(&self) -> Column {
        let Listed(name, unit, doc, values) = *self;
        Column { name, unit, doc, values, is_state: false }
    }
}

const OF_SAMPLES: [Listed; 14] = [
    Listed("id", "", "Names the sample; rises with the flow's serials.", Integer),
    Listed("flow_id", "", "Its flow, a row of `flows`.", Integer),
    Listed("serial", "", "Position among the flow's samples, from 1; a gap is a hole, which `losses` counts.", Integer),
    Listed("ts_ns", "ns", "When it was taken, Unix epoch.", Integer),
    Listed("mono_ns", "ns", "The same by CLOCK_MONOTONIC.", Integer),
    Listed("kind", "", "What it was taken for: `ack`, `send`, `retransmit`, `state`.", Text),
    Listed(
        "phase",
        "",
        "When it was taken: `before` or `after` a received segment was processed, or at `transmit`.",
        Text,
    ),
    Listed("seq", "sequence number", "Of its segment (RFC 9293 SEG.SEQ).", Integer),
    Listed("len", "bytes", "Payload of its segment, before segmentation or after merging by the host.", Integer),
    Listed("ack", "sequence number", "Acknowledgment number of its segment (SEG.ACK).", Integer),
    Listed(
        "flags",
        "",
        "The nine flag bits of its segment: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128, AE 256.",
        Integer,
    ),
    Listed("tsval", "", "TSval of its segment (RFC 7323).", Integer),
    Listed("ip_id", "", "IPv4 identification of its segment.", Integer),
    Listed("error", "", "errno where the host could not send it.", Integer),
];

const OF_PACKETS: [Listed; 20] = [
    Listed("id", "", "Names the row.", Integer),
    Listed("capture_id", "", "The capture, a row of `captures`.", Integer),
    Listed("number", "", "Frame number in the capture, from 1, as Wireshark shows it.", Integer),
    Listed("ts_ns", "ns", "When it was captured, Unix epoch, by the capture's clock.", Integer),
    Listed("flow_id", "", "The recorded socket that sees it, a row of `flows`.", Integer),
    Listed("dir", "", "`out`: that socket sent it; `in`: it received it.", Text),
    Listed("seq", "sequence number", "SEG.SEQ as captured.", Integer),
    Listed("ack", "sequence number", "SEG.ACK as captured.", Integer),
    Listed("len", "bytes", "Payload.", Integer),
    Listed(
        "flags",
        "",
        "The nine flag bits: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128, AE 256.",
        Integer,
    ),
    Listed("window", "", "Window field as captured, unscaled.", Integer),
    Listed("sample_id", "", "The sample that its state is from, a row of `samples`.", Integer),
    Listed("copy", "", "0 for the first sighting of this packet in the capture, 1 for the second, ….", Integer),
    Listed(
        "interface",
        "",
        "Interface that it was captured on, where the capture says so: LINUX_SLL2's index, or pcapng's number.",
        Integer,
    ),
    Listed("tunnel", "", "What it was wrapped in.", Text),
    Listed("match", "", "How its state is known: `exact`, `within`, `carried`, `none`.", Text),
    Listed("reason", "", "Why not better.", Text),
    Listed(
        "delay_ns",
        "ns",
        "When it was captured less when its sample was taken, by both clocks as they are.",
        Integer,
    ),
    Listed(
        "delay_variation_ns",
        "ns",
        "That delay less the difference of the clocks and the flow's smallest one in this direction (RFC 5481 §4.2).",
        Integer,
    ),
    Listed(
        "sacked_bytes",
        "bytes",
        "Of `snd_una` to `snd_nxt`, what the packets before this one have selectively acknowledged.",
        Integer,
    ),
];

/// Before the state, and behind it.
const OF_STATE: (&[Listed], &[Listed]) = (
    &[
        Listed(
            "retransmission",
            "",
            "1: it is a retransmission by the kernel's word; 0: it is none; NULL: received, or not known.",
            Integer,
        ),
        Listed("sample_ts_ns", "ns", "When its sample was taken, Unix epoch, by the recording's clock.", Integer),
        Listed("sample_kind", "", "What its sample was taken for.", Text),
        Listed("sample_phase", "", "When its sample was taken.", Text),
    ],
    &[Listed(
        "bytes_in_flight_with_packet",
        "bytes",
        "`bytes_in_flight` with this packet, which the state when it was sent does not count yet.",
        Integer,
    )],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_views_have_these_columns_in_this_order() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch(&crate::schema::create()).unwrap();
        for view in View::ALL {
            let statement = db.prepare(&format!("SELECT * FROM {}", view.name())).unwrap();
            let found: Vec<_> = statement.column_names().collect();
            let listed: Vec<_> = view.columns().iter().map(|c| c.name).collect();
            assert_eq!(listed, found, "{}", view.name());
        }
    }
}
