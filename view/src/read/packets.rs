//! A flow's packets as one capture has them, on the recording's clock and in the socket's numbers.

use tcpprobe_trace::query::{Query, Value};

use super::samples::{brief_of, numbers};
use super::{Bases, Points, Unwrapped};
use crate::Error;
use crate::flows::{int, text};
use crate::points::{Ack, Direction, Flow, Matched, Segment};

/// A capture that shows the flow.
pub(super) struct Capture {
    id: i64,
    pub(super) path: String,
    first_ns: i64,
    /// Its clock minus the recording's: at `first_ns`, and what it gains from there, 10⁻⁹.
    offset_ns: i64,
    drift_ppb: i64,
    /// Its numbers minus the socket's.
    seq_shift: i64,
    peer_seq_shift: i64,
}

impl Capture {
    /// A time of the capture by the recording's clock.
    fn recorded_ns(&self, ts_ns: i64) -> i64 {
        let since = i128::from(ts_ns.saturating_sub(self.first_ns));
        let drift = i64::try_from(since * i128::from(self.drift_ppb) / 1_000_000_000).unwrap_or(0);
        ts_ns.saturating_sub(self.offset_ns).saturating_sub(drift)
    }
}

/// The capture with most of a flow's packets.
pub(super) fn capture(query: &Query, flow: i64, left_out: &mut Vec<String>) -> Result<Option<Capture>, Error> {
    let found = query.all(&format!(
        "SELECT p.capture_id, count(*) FROM packets p WHERE p.flow_id = {flow} AND p.copy = 0 GROUP BY 1 ORDER BY 2 DESC, 1"
    ))?;
    let Some(id) = found.first().and_then(|row| int(row.first())) else { return Ok(None) };
    let others: i64 = found.iter().skip(1).filter_map(|row| int(row.get(1))).sum();
    let rows = query.all(&format!(
        "SELECT c.path, c.clock_offset_ns, c.clock_drift_ppb,
  (SELECT ts_ns FROM packets p WHERE p.capture_id = c.id ORDER BY p.number LIMIT 1),
  (SELECT t.seq_shift FROM translations t WHERE t.capture_id = c.id AND t.flow_id = {flow}),
  (SELECT t.peer_seq_shift FROM translations t WHERE t.capture_id = c.id AND t.flow_id = {flow})
FROM captures c WHERE c.id = {id}"
    ))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let number = |i: usize| int(row.get(i)).unwrap_or(0);
    let path = text(row.first());
    if others > 0 {
        left_out.push(format!("{others} packets of other captures than {path}"));
    }
    Ok(Some(Capture {
        id,
        path,
        first_ns: number(3),
        offset_ns: number(1),
        drift_ppb: number(2),
        seq_shift: number(4),
        peer_seq_shift: number(5),
    }))
}

fn matched(value: Option<&Value>) -> Matched {
    let named = |m: &&Matched| matches!(value, Some(Value::Text(t)) if t == m.name());
    Matched::ALL.iter().find(named).copied().unwrap_or(Matched::None)
}

/// Reads the capture's packets of the flow; those without a time are counted.
pub(super) fn read(
    query: &Query,
    flow: &Flow,
    direction: Direction,
    capture: &Capture,
    bases: Bases,
    points: &mut Points,
    left_out: &mut Vec<String>,
) -> Result<(), Error> {
    let (base, data, acks, shift, wscale) = match direction {
        Direction::Sent => (bases.sent, "out", "in", capture.seq_shift, flow.snd_wscale),
        Direction::Received => (bases.received, "in", "out", capture.peer_seq_shift, flow.rcv_wscale),
    };
    let mut at = base.map(Unwrapped::new);
    let mut highest = i64::MIN;
    let mut timeless = 0_u64;
    let sql = format!(
        "SELECT number, ts_ns, dir, seq, ack, len, flags, window, retransmission, match, sacked_bytes,
  snd_cwnd, snd_ssthresh, bytes_in_flight, srtt_us, ca_state, snd_una
FROM packet_state WHERE flow_id = {} AND capture_id = {} AND copy = 0 ORDER BY number",
        flow.id, capture.id
    );
    query.rows(&sql, |row| {
        let get = |i: usize| int(row.get(i));
        let Some(ts_ns) = get(1) else {
            timeless += 1;
            return Ok(());
        };
        let t_ns = capture.recorded_ns(ts_ns).saturating_sub(flow.first_ns);
        let (number, flags, matched) = (get(0).unwrap_or(0), get(6).unwrap_or(0), matched(row.get(9)));
        let is = |name: &str| matches!(row.get(2), Some(Value::Text(t)) if t == name);
        let state = brief_of(row, 11);
        let length = numbers(get(5).unwrap_or(0), flags);
        if is(data)
            && length > 0
            && let Some(seq) = get(3)
        {
            let seq = seq.wrapping_sub(shift);
            let at = at.get_or_insert_with(|| Unwrapped::new(seq));
            let start = at.at(seq);
            let end = start.saturating_add(length);
            let again = get(8).map_or(start < highest, |r| r != 0);
            highest = highest.max(end);
            points.segment(Segment { t_ns, start, end, packets: 1, again, number, matched, state });
        }
        let (acknowledges, reset, syn) = (flags & 16 != 0, flags & 4 != 0, flags & 2 != 0);
        if is(acks)
            && acknowledges
            && !reset
            && let Some(ack) = get(4)
        {
            let ack = ack.wrapping_sub(shift);
            let at = at.get_or_insert_with(|| Unwrapped::new(ack));
            // the window of a SYN is not scaled (RFC 7323 §2.2)
            let scaled = |w: i64| if syn { Some(w) } else { wscale.map(|by| w.saturating_mul(1 << by)) };
            points.ack(Ack {
                t_ns,
                ack: at.at(ack),
                window_bytes: get(7).and_then(scaled),
                // counted from snd_una: an ACK that moves it says nothing of what is left above itself
                sacked_bytes: get(10).filter(|_| direction == Direction::Sent && get(16) == Some(ack & 0xffff_ffff)),
                number,
                matched,
                state,
            });
        }
        Ok(())
    })?;
    if timeless > 0 {
        left_out.push(format!("{timeless} packets without a time"));
    }
    Ok(())
}
