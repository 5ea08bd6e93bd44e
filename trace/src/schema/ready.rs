//! Queries that people need, each a view over the others: for `tcpprobe sql --query`, and for any SQLite client.

use super::waiting;

/// A query that is ready to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its name on the command line.
    pub name: &'static str,
    /// The view.
    pub view: &'static str,
    /// What a row of it is.
    pub doc: &'static str,
    sql: Sql,
}

/// Where the statement of a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sql {
    /// Here.
    Here(&'static str),
    /// In a module of its own, which makes the view.
    Elsewhere,
}

use Sql::{Elsewhere, Here};

/// All of them; each has a column `flow_id`.
pub const READY: [Ready; 12] = [
    Ready {
        name: "flow-summary",
        view: "flow_summary",
        doc: "A flow in one row: how long it was watched, what it sent, acknowledged and retransmitted, its RTTs and its largest cwnd",
        sql: Here(
            "SELECT f.id AS flow_id, f.session_id AS session_id, f.local_addr AS local_addr, f.local_port AS local_port,
  f.remote_addr AS remote_addr, f.remote_port AS remote_port, f.congestion AS congestion,
  f.last_ns - f.first_ns AS duration_ns, count(*) AS samples, max(s.bytes_acked) AS bytes_acked,
  max(s.bytes_sent) AS bytes_sent, max(s.bytes_retrans) AS bytes_retrans,
  sum(s.kind = 'retransmit' AND s.phase = 'transmit') AS retransmissions, min(s.min_rtt_us) AS min_rtt_us,
  avg(nullif(s.srtt_us, 0)) AS mean_srtt_us, max(s.srtt_us) AS max_srtt_us, max(s.snd_cwnd) AS max_snd_cwnd
FROM flows f JOIN samples s ON s.flow_id = f.id GROUP BY f.id",
        ),
    },
    Ready {
        name: "cwnd",
        view: "cwnd",
        doc: "What limits the sender, at each sample: cwnd and ssthresh, what is in flight, the peer's window, ca_state",
        sql: Here(
            "SELECT flow_id, ts_ns, kind, snd_cwnd, snd_ssthresh, packets_out, bytes_in_flight, snd_wnd, mss, ca_state,
  cwnd_limited
FROM samples",
        ),
    },
    Ready {
        name: "rtt",
        view: "rtt",
        doc: "The kernel's measure of the round-trip time after each received segment, and the timeout that follows from it",
        sql: Here(
            "SELECT flow_id, ts_ns, srtt_us, mdev_us, rttvar_us, min_rtt_us, rto_us FROM samples WHERE phase = 'after'",
        ),
    },
    Ready {
        name: "throughput",
        view: "throughput",
        doc: "What a flow sent in each 100 ms, retransmissions counted in and by themselves, and its rate in bits a second",
        sql: Here(
            "SELECT flow_id, ts_ns / 100000000 * 100000000 AS ts_ns, sum(len) AS sent_bytes,
  sum(CASE WHEN kind = 'retransmit' THEN len ELSE 0 END) AS retransmitted_bytes, sum(len) * 80 AS sent_bits_per_s
FROM samples WHERE phase = 'transmit' AND error IS NULL GROUP BY flow_id, ts_ns / 100000000",
        ),
    },
    Ready {
        name: "retransmissions",
        view: "retransmissions",
        doc: "A segment that the sender sent again, and its state then",
        sql: Here(
            "SELECT flow_id, id AS sample_id, ts_ns, seq, len, snd_una, snd_cwnd, snd_ssthresh, ca_state, packets_out, lost_out,
  retrans_out, sacked_out, retransmits, srtt_us, rto_us, error
FROM samples WHERE kind = 'retransmit' AND phase = 'transmit'",
        ),
    },
    Ready {
        name: "retransmitted-packets",
        view: "retransmitted_packets",
        doc: "A packet of a joined capture that is a retransmission by the kernel's word, with its number in the capture",
        sql: Here(
            "SELECT flow_id, capture_id, number, ts_ns, seq, len, match, snd_una, snd_cwnd, snd_ssthresh, ca_state, packets_out,
  lost_out, retrans_out, sacked_out, srtt_us, rto_us
FROM packet_state WHERE retransmission = 1",
        ),
    },
    Ready {
        name: "ack-effects",
        view: "ack_effects",
        doc: "What TCP did on a received segment: state before and after, what it acknowledged, and what was sent on it",
        sql: Elsewhere,
    },
    Ready {
        name: "state-changes",
        view: "state_changes",
        doc: "A received segment that moved the sender between Open, Disorder, CWR, Recovery and Loss, and what it did to cwnd",
        sql: Here(
            "SELECT flow_id, ts_ns, before_id, after_id, ca_state_before, ca_state_after, snd_cwnd_before, snd_cwnd_after,
  snd_ssthresh_before, snd_ssthresh_after, acked_bytes, lost, retransmitted
FROM ack_effects WHERE ca_state_before <> ca_state_after",
        ),
    },
    Ready {
        name: "why-waiting",
        view: "why_waiting",
        doc: "The time between two segments with data, and what the sender waited for",
        sql: Elsewhere,
    },
    Ready {
        name: "waiting-totals",
        view: "waiting_totals",
        doc: "These times added up, for each flow and what it waited for",
        sql: Here(
            "SELECT flow_id, reason, count(*) AS gaps, sum(gap_ns) AS total_ns, max(gap_ns) AS longest_ns
FROM why_waiting GROUP BY flow_id, reason",
        ),
    },
    Ready {
        name: "match-quality",
        view: "match_quality",
        doc: "How the packets of a capture got their state, for each flow and direction: packets by match and reason",
        sql: Here(
            "SELECT flow_id, capture_id, dir, match, reason, count(*) AS packets
FROM packets GROUP BY flow_id, capture_id, dir, match, reason",
        ),
    },
    Ready {
        name: "delays",
        view: "delays",
        doc: "From sample to packet, for each flow and direction: the smallest, mean and largest delay of packets with a sample of their own",
        sql: Here(
            "SELECT flow_id, capture_id, dir, count(*) AS packets, min(delay_ns) AS min_delay_ns, avg(delay_ns) AS mean_delay_ns,
  max(delay_ns) AS max_delay_ns, avg(delay_variation_ns) AS mean_delay_variation_ns,
  max(delay_variation_ns) AS max_delay_variation_ns
FROM packets WHERE match IN ('exact', 'within') GROUP BY flow_id, capture_id, dir",
        ),
    },
];

pub(super) fn views() -> String {
    let mut sql = waiting::view();
    for Ready { view, sql: here, .. } in READY {
        if let Here(select) = here {
            sql.push_str(&format!("CREATE VIEW {view} AS {select};\n"));
        }
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_view_with_the_flow_in_it() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch(&crate::schema::create()).unwrap();
        for ready in READY {
            assert_eq!(ready.name.replace('-', "_"), ready.view);
            let statement = db.prepare(&format!("SELECT * FROM {}", ready.view)).unwrap();
            assert!(statement.column_names().any(|column| column == "flow_id"), "{}", ready.view);
        }
    }
}
