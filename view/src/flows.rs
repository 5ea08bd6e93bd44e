//! Which flows a trace has, and what they are called.

use tcpprobe_trace::query::{Query, Value};

use crate::Error;
use crate::points::Flow;

/// Characters that are kept of a text from a trace.
const TEXT_CHARS: usize = 80;

/// Text of a trace may be anyone's: without control characters, and not longer than fits.
pub(crate) fn plain(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String =
        chars.by_ref().take(TEXT_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

pub(crate) fn int(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(&Value::Integer(n)) => Some(n),
        _ => None,
    }
}

pub(crate) fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::Text(t)) => plain(t),
        Some(Value::Integer(n)) => n.to_string(),
        _ => String::new(),
    }
}

fn endpoint(address: Option<&Value>, port: Option<&Value>) -> String {
    let (address, port) = (text(address), text(port));
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The columns that [`from_row`] takes.
pub(crate) const COLUMNS: &str = "id, session_id, local_addr, local_port, remote_addr, remote_port, congestion,
  first_ns, last_ns, snd_wscale, rcv_wscale";

pub(crate) fn from_row(row: &[Value]) -> Flow {
    Flow {
        id: int(row.first()).unwrap_or(0),
        session_id: int(row.get(1)).unwrap_or(0),
        local: endpoint(row.get(2), row.get(3)),
        remote: endpoint(row.get(4), row.get(5)),
        congestion: text(row.get(6)),
        first_ns: int(row.get(7)).unwrap_or(0),
        last_ns: int(row.get(8)).unwrap_or(0),
        // RFC 7323 §2.3: no shift is above 14
        snd_wscale: int(row.get(9)).filter(|w| (0..=14).contains(w)),
        rcv_wscale: int(row.get(10)).filter(|w| (0..=14).contains(w)),
    }
}

/// One flow.
///
/// # Errors
/// The trace has none of this id, or cannot be read.
pub fn flow(query: &Query, id: i64) -> Result<Flow, Error> {
    let rows = query.all(&format!("SELECT {COLUMNS} FROM flows WHERE id = {id}"))?;
    rows.first().map(|row| from_row(row)).ok_or_else(|| Error::NoFlow { trace: query.path().to_owned(), flow: id })
}
