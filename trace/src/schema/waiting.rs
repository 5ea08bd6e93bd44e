//! The view `why_waiting`: the time between two segments with data that a sender sent, and what it waited for.
//!
//! What a sender may do next follows from its state when it has sent: that of the first segment's sample, with this
//! segment counted in, which the sample does not yet. `tcp_write_xmit` asks in turn whether there is something to send,
//! whether the congestion window has room (`tcp_cwnd_test`) and the peer's window (`tcp_snd_wnd_test`), and whether
//! waiting for an ACK makes a larger segment (`tcp_tso_should_defer`). Must not know packets.

use super::effects::{is_without_hole, next_of_flow};
use super::samples::{ROWS, named_rows, state, time_ns, with_session};

/// What a sender waited for, as the view names it, and what that means.
pub const WAITS: [(&str, &str); 5] = [
    (
        "application",
        "all that was written had been sent, or less than a segment was left while others were under way (Nagle, cork)",
    ),
    (
        "receive window",
        "the next segment did not fit in the window that the peer offers, or so little fitted that the kernel waited for more",
    ),
    (
        "cwnd",
        "as many packets were in flight as the congestion window allows, or nearly, and the kernel waited for an ACK",
    ),
    (
        "pacing",
        "nothing of TCP's windows stood in the way: the pacing rate, a full queue of the host (TSQ), or the processor's time",
    ),
    ("recovery", "the wait ended with a retransmission, or the sender was repairing losses (ca_state 3 or 4)"),
];

/// A part of a window that the kernel rather waits for than sends into: `net.ipv4.tcp_tso_win_divisor`, as it is unless
/// set.
const TSO_WIN_DIVISOR: u8 = 3;

/// Codes of kind and phase in `what`: `send` and `retransmit`, at transmission.
const SEND: u8 = 5;
const RETRANSMIT: u8 = 8;

pub(super) fn view() -> String {
    let is_data = |row: &str| {
        format!(
            "{row}.what % 12 IN ({SEND}, {RETRANSMIT}) AND {row}.len > 0
    AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = {row}.id AND o.error IS NOT NULL)"
        )
    };
    let of = |column| format!("({})", state(column, ROWS));
    // this segment is not counted yet, unless it is a retransmission, which is in flight once more
    let new_bytes =
        format!("CASE WHEN r.what % 12 = {SEND} THEN r.len + (r.what / 12 & 1) - coalesce(r.nxt_off, 0) ELSE 0 END");
    let packets = format!("(r.len + {mss} - 1) / {mss}", mss = of("mss"));
    let next = next_of_flow(&is_data("n"));
    format!(
        "CREATE VIEW why_waiting AS SELECT flow_id, from_id, to_id, ts_ns, gap_ns,
  CASE
    WHEN missing OR unsent_bytes IS NULL OR cwnd_left_bytes IS NULL OR window_left_bytes IS NULL THEN NULL
    WHEN before_retransmission OR ca_state >= 3 AND unsent_bytes > 0 THEN 'recovery'
    WHEN unsent_bytes <= 0 THEN 'application'
    WHEN min(cwnd_left_bytes, window_left_bytes) < min(unsent_bytes, mss)
      OR is_after_ack AND min(cwnd_left_bytes, window_left_bytes) < min(unsent_bytes, window_bytes / {TSO_WIN_DIVISOR})
      THEN CASE WHEN window_left_bytes < cwnd_left_bytes THEN 'receive window' ELSE 'cwnd' END
    WHEN unsent_bytes < mss AND packets_in_flight > 0 AND is_after_ack THEN 'application'
    ELSE 'pacing' END AS reason,
  before_retransmission, unsent_bytes, cwnd_left_bytes, window_left_bytes, packets_in_flight, snd_cwnd, ca_state
FROM (SELECT flow_id, from_id, to_id, ts_ns, gap_ns, missing, before_retransmission, is_after_ack, unsent_bytes,
    (snd_cwnd - packets_in_flight) * mss AS cwnd_left_bytes, snd_wnd - bytes_in_flight AS window_left_bytes,
    min(snd_wnd, snd_cwnd * mss) AS window_bytes, packets_in_flight, snd_cwnd, mss, ca_state
  FROM (SELECT u.flow_id AS flow_id, r.id AS from_id, x.id AS to_id,
    {ts_ns} AS ts_ns, xu.mono_off + x.mono_off - (u.mono_off + r.mono_off) AS gap_ns,
    NOT ({whole}) AS missing, x.what % 12 = {RETRANSMIT} AS before_retransmission, x.id <> r.id + 1 AS is_after_ack,
    {notsent} - ({new_bytes}) AS unsent_bytes, {in_flight} + ({new_bytes}) AS bytes_in_flight,
    {packets_out} - {sacked_out} - {lost_out} + {retrans_out} + {packets} AS packets_in_flight,
    {snd_cwnd} AS snd_cwnd, {snd_wnd} AS snd_wnd, {mss} AS mss, {ca_state} AS ca_state
  FROM {samples}
    JOIN sample_rows x ON x.id = {next}
    JOIN sample_runs xu ON xu.first_id = x.id - x.run_off
    {named}
  WHERE {this} AND z.sample_mode = 'all'));\n",
        ts_ns = time_ns(ROWS),
        whole = is_without_hole(),
        notsent = of("notsent_bytes"),
        in_flight = of("bytes_in_flight"),
        packets_out = of("packets_out"),
        sacked_out = of("sacked_out"),
        lost_out = of("lost_out"),
        retrans_out = of("retrans_out"),
        snd_cwnd = of("snd_cwnd"),
        snd_wnd = of("snd_wnd"),
        mss = of("mss"),
        ca_state = of("ca_state"),
        samples = with_session(),
        named = named_rows(ROWS, "JOIN"),
        this = is_data("r"),
    )
}
