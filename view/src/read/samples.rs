//! A flow's samples: its states, and, where there are no packets, its segments and ACKs.

use tcpprobe_trace::query::{Query, Value};

use super::{Bases, Points, Unwrapped};
use crate::Error;
use crate::flows::int;
use crate::points::{Ack, Brief, Direction, Flow, Matched, Segment, State};

/// FIN and SYN take a number each.
pub(super) fn numbers(len: i64, flags: i64) -> i64 {
    len.max(0) + (flags & 1) + (flags >> 1 & 1)
}

/// Above these a slow start threshold is none (`TCP_INFINITE_SSTHRESH`).
const INFINITE: i64 = 0x7fff_ffff;

/// Whose data is to be shown: what the socket sends, but where it sends none and receives some.
pub(super) fn direction(query: &Query, id: i64) -> Result<Direction, Error> {
    let has = |kinds: &str| {
        let sql = format!("SELECT 1 FROM samples WHERE flow_id = {id} AND len > 0 AND kind IN ({kinds}) LIMIT 1");
        query.all(&sql).map(|rows| !rows.is_empty())
    };
    Ok(if !has("'send', 'retransmit'")? && has("'ack'")? { Direction::Received } else { Direction::Sent })
}

struct Row<'a>(&'a [Value]);

impl Row<'_> {
    fn int(&self, column: usize) -> Option<i64> {
        int(self.0.get(column))
    }

    fn is(&self, column: usize, name: &str) -> bool {
        matches!(self.0.get(column), Some(Value::Text(t)) if t == name)
    }
}

const COLUMNS: &str = "id, ts_ns, kind, phase, seq, len, ack, flags, snd_una, snd_cwnd, snd_ssthresh, snd_wnd,
  bytes_in_flight, mss, srtt_us, min_rtt_us, pacing_rate, delivery_rate, ca_state, sacked_out, rcv_nxt, rcv_wnd, error";

/// Reads all samples; `with_segments`: their segments and ACKs too.
pub(super) fn read(
    query: &Query,
    flow: &Flow,
    direction: Direction,
    with_segments: bool,
    points: &mut Points,
) -> Result<Bases, Error> {
    let mut bases = Bases::default();
    let mut una = None;
    let mut data = None;
    let mut last_ack = None;
    let mut highest = i64::MIN;
    query.rows(&format!("SELECT {COLUMNS} FROM samples WHERE flow_id = {} ORDER BY id", flow.id), |row| {
        let row = Row(row);
        let Some(ts_ns) = row.int(1) else { return Ok(()) };
        let t_ns = ts_ns.saturating_sub(flow.first_ns);
        let flags = row.int(7).unwrap_or(0);
        let (received, sent) = (row.is(2, "ack"), row.is(2, "send") || row.is(2, "retransmit"));
        let syn = flags & 2 != 0;
        let seq_of_syn = |is: bool| row.int(4).filter(|_| is && syn);
        bases.sent = bases.sent.or(seq_of_syn(sent)).or(row.int(8));
        bases.received = bases.received.or(seq_of_syn(received)).or(row.int(20).filter(|&n| n != 0));
        if una.is_none() {
            una = bases.sent.map(Unwrapped::new);
        }
        let state = state(&row, t_ns, una.as_mut());
        points.state(state);
        if !with_segments {
            return Ok(());
        }
        let base = if direction == Direction::Sent { bases.sent } else { bases.received };
        if data.is_none() {
            data = base.map(Unwrapped::new);
        }
        let Some(at) = data.as_mut() else { return Ok(()) };
        let brief = brief(&row);
        let number = row.int(0).unwrap_or(0);
        let outward = row.is(3, "transmit") && sent && row.int(22).is_none();
        let wanted = if direction == Direction::Sent { outward } else { received && row.is(3, "before") };
        let length = numbers(row.int(5).unwrap_or(0), flags);
        if wanted
            && length > 0
            && let Some(seq) = row.int(4)
        {
            let start = at.at(seq);
            let again = if direction == Direction::Sent { row.is(2, "retransmit") } else { start < highest };
            let end = start.saturating_add(length);
            highest = highest.max(end);
            points.segment(Segment {
                t_ns,
                start,
                end,
                packets: 1,
                again,
                number,
                matched: Matched::Sample,
                state: brief,
            });
        }
        // what the socket knows to be acknowledged, and the window from there on
        let (edge, window) = if direction == Direction::Sent { (8, 11) } else { (20, 21) };
        if let Some(edge) = row.int(edge).filter(|&n| n != 0 || direction == Direction::Sent) {
            let window = row.int(window);
            let ack = Ack {
                t_ns,
                ack: at.at(edge),
                window_bytes: window,
                sacked_bytes: state.sacked_bytes.filter(|_| direction == Direction::Sent),
                number,
                matched: Matched::Sample,
                state: brief,
            };
            let now = (ack.ack, window, ack.sacked_bytes);
            if last_ack != Some(now) {
                last_ack = Some(now);
                points.ack(ack);
            }
        }
        Ok(())
    })?;
    Ok(bases)
}

fn state(row: &Row<'_>, t_ns: i64, una: Option<&mut Unwrapped>) -> State {
    let mss = row.int(13).filter(|&m| m > 0);
    let bytes = |packets: Option<i64>| Some(packets?.saturating_mul(mss?));
    State {
        t_ns,
        una: row.int(8).and_then(|seq| una.map(|u| u.at(seq))),
        cwnd_bytes: bytes(row.int(9)),
        ssthresh_bytes: bytes(row.int(10).filter(|&s| s < INFINITE)),
        in_flight: row.int(12),
        sacked_bytes: bytes(row.int(19)),
        srtt_us: row.int(14).filter(|&us| us > 0),
        min_rtt_us: row.int(15),
        pacing_rate: row.int(16),
        delivery_rate: row.int(17),
        ca_state: row.int(18),
    }
}

fn brief(row: &Row<'_>) -> Brief {
    Brief {
        cwnd: row.int(9),
        ssthresh: row.int(10).filter(|&s| s < INFINITE),
        in_flight: row.int(12),
        srtt_us: row.int(14),
        ca_state: row.int(18),
    }
}

/// [`Brief`] of a packet's row, whose state columns begin at `first`.
pub(super) fn brief_of(row: &[Value], first: usize) -> Brief {
    let at = |i: usize| int(row.get(first + i));
    Brief { cwnd: at(0), ssthresh: at(1).filter(|&s| s < INFINITE), in_flight: at(2), srtt_us: at(3), ca_state: at(4) }
}
