//! What is written beside a packet: `key=value` words, as a comment and as a custom option of pcapng.
//!
//! Knows values and options; of captures and traces it knows nothing.

use std::fmt::Write as _;

use tcpprobe_trace::columns::{Column, Type, View};
use tcpprobe_trace::query::Value;

/// Private Enterprise Number of the custom options: 32473, which RFC 5612 sets aside for documentation. The project has
/// no number of its own, and another organisation's would claim its meaning; readers tell these options by their text.
pub const ENTERPRISE_NUMBER: u32 = 32_473;

/// What the packet itself says, or what only names a row of the trace.
const LEFT_OUT: [&str; 9] = ["id", "capture_id", "number", "ts_ns", "seq", "ack", "len", "flags", "window"];
/// What a reader looks for first.
const FIRST: [&str; 9] =
    ["match", "reason", "dir", "snd_cwnd", "snd_ssthresh", "ca_state", "bytes_in_flight", "srtt_us", "retransmission"];
/// Text of a trace is cut to this, in characters; the longest of the project's own has 40.
const MAX_TEXT_CHARS: usize = 128;

const OPT_COMMENT: u16 = 1;
/// A custom option with text, which a program that rewrites the file may copy.
const OPT_CUSTOM_TEXT: u16 = 2988;

/// The columns of `packet_state` that a packet gets, in the order in which they are written.
pub fn columns() -> Vec<Column> {
    let mut columns: Vec<_> = View::PacketState.columns().into_iter().filter(|c| !LEFT_OUT.contains(&c.name)).collect();
    // the sort is stable: the others keep their order
    columns.sort_by_key(|c| FIRST.iter().position(|f| *f == c.name).unwrap_or(FIRST.len()));
    columns
}

/// The words of a row after `head`; counts values that are not of their column's type, which are left out.
pub(super) fn words(head: &str, columns: &[Column], values: &[Value], left_out: &mut u64) -> String {
    let mut text = String::from(head);
    for (column, value) in columns.iter().zip(values) {
        match (column.values, value) {
            (_, Value::Null) => {}
            (Type::Integer, Value::Integer(n)) => {
                let _ = write!(text, " {}={n}", column.name);
            }
            (Type::Text, Value::Text(said)) => {
                let _ = write!(text, " {}={}", column.name, quoted(said));
            }
            _ => *left_out += 1,
        }
    }
    text
}

/// Text as one word: in quotes where it has blanks; whatever could end the word or act on a terminal as %XX.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(MAX_TEXT_CHARS) {
        match c {
            '"' | '%' | '=' | '\\' => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            ' '..='~' => out.push(c),
            _ => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| {
                let _ = write!(out, "%{byte:02X}");
            }),
        }
    }
    if out.is_empty() || out.contains(' ') { format!("\"{out}\"") } else { out }
}

/// A comment and a custom option with this text.
pub(super) fn options(text: &str, is_big_endian: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let number = if is_big_endian { ENTERPRISE_NUMBER.to_be_bytes() } else { ENTERPRISE_NUMBER.to_le_bytes() };
    option(&mut out, OPT_COMMENT, &[text.as_bytes()], is_big_endian);
    option(&mut out, OPT_CUSTOM_TEXT, &[&number, text.as_bytes()], is_big_endian);
    out
}

/// An option; a value that its length cannot say is cut.
pub(super) fn option(out: &mut Vec<u8>, code: u16, parts: &[&[u8]], is_big_endian: bool) {
    let mut value = parts.concat();
    value.truncate(usize::from(u16::MAX));
    for n in [code, value.len() as u16] {
        out.extend(if is_big_endian { n.to_be_bytes() } else { n.to_le_bytes() });
    }
    value.resize(value.len().next_multiple_of(4), 0);
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_word() {
        assert_eq!(quoted("exact"), "exact");
        assert_eq!(quoted("not sampled"), "\"not sampled\"");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("x\" snd_cwnd=1\n\x1b[2J%é"), "\"x%22 snd_cwnd%3D1%0A%1B[2J%25%C3%A9\"");
        assert_eq!(quoted(&"x".repeat(1000)).len(), MAX_TEXT_CHARS);
    }

    #[test]
    fn options_are_padded_in_both_byte_orders() {
        let mut out = Vec::new();
        option(&mut out, 1, &[b"abcde"], false);
        assert_eq!(out, b"\x01\0\x05\0abcde\0\0\0");
        out.clear();
        option(&mut out, 2988, &[b"ab"], true);
        assert_eq!(out, b"\x0b\xac\0\x02ab\0\0");
    }
}
