//! Captures: the figures of each, its packets one by one, and what became of the samples.

use std::collections::HashMap;

use super::columns::{number, read, text};
use super::packet::Packets;
use super::session::{Parent, orphans};
use super::{Place, Run, packet, shared};
use crate::Result;
use crate::join::Unjoined;

/// A joined capture.
pub(super) struct Capture {
    pub(super) id: i64,
    pub(super) path: String,
    /// Frames in the file, as far as it is said.
    pub(super) packets: Option<i64>,
    /// How far a flow's numbers are shifted in this capture: what its socket sends, and what it receives.
    pub(super) shifts: HashMap<i64, (u32, u32)>,
}

impl Capture {
    pub(super) fn place(&self) -> Place {
        Place { capture: Some(self.path.clone()), ..Place::default() }
    }
}

const JOIN_PARENTS: [Parent; 8] = [
    ("captures", "session_id", "sessions", false),
    ("unjoined", "capture_id", "captures", true),
    ("packet_rows", "capture_id", "captures", true),
    ("translations", "capture_id", "captures", true),
    ("translations", "flow_id", "flows", true),
    ("sample_counts", "capture_id", "captures", true),
    ("sample_counts", "flow_id", "flows", true),
    ("packetless_rows", "capture_id", "captures", true),
];

/// Checks every capture.
pub(super) fn check(run: &mut Run<'_>) -> Result<()> {
    const NAMES: [&str; 4] = ["id", "packets", "tcp_packets", "joined"];
    orphans(run, &JOIN_PARENTS)?;
    let err = run.failed();
    let mut packets = Packets::prepare(run)?;
    let sql = format!("SELECT {}, path FROM captures ORDER BY id", NAMES.join(", "));
    let mut statement = run.db.prepare(&sql).map_err(&err)?;
    let mut rows = statement.query([]).map_err(&err)?;
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; NAMES.len()];
        let fault = read(row, &mut values).map_err(&err)?;
        let [id, in_file, tcp_packets, joined] = values;
        let id = id.unwrap_or(0);
        let path = text(row, NAMES.len()).map_err(&err)?;
        let capture = Capture { id, path, packets: in_file, shifts: shifts(run, id)? };
        if let Some((column, what)) = fault {
            run.violated("values", capture.place(), format!("{} is {what}", NAMES[column]))?;
        }
        run.report.captures += 1;
        let seen = packet::check(run, &mut packets, &capture)?;
        figures(run, &capture, (in_file, tcp_packets, joined), seen)?;
        shared::check(run, &capture)?;
    }
    Ok(())
}

fn shifts(run: &mut Run<'_>, capture: i64) -> Result<HashMap<i64, (u32, u32)>> {
    let err = run.failed();
    let sql = "SELECT flow_id, seq_shift, peer_seq_shift FROM translations WHERE capture_id = ?1";
    let mut statement = run.db.prepare_cached(sql).map_err(&err)?;
    let mut rows = statement.query([capture]).map_err(&err)?;
    let mut shifts = HashMap::new();
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; 3];
        read(row, &mut values).map_err(&err)?;
        if let ([Some(flow), ..], Some(own), Some(peer)) = (values, number(values[1]), number(values[2])) {
            shifts.insert(flow, (own, peer));
        } else {
            let text = "a row of translations holds something else than numbers";
            run.violated("values", Place { flow_id: values[0], ..Place::default() }, text.into())?;
        }
    }
    Ok(shifts)
}

/// What the rows of a capture come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Frames with a row.
    pub(super) frames: i64,
    /// Those with a state.
    pub(super) joined: i64,
}

fn figures(
    run: &mut Run<'_>,
    capture: &Capture,
    (packets, tcp_packets, joined): (Option<i64>, Option<i64>, Option<i64>),
    seen: Seen,
) -> Result<()> {
    let err = run.failed();
    let sql = "SELECT reason, count FROM unjoined WHERE capture_id = ?1";
    let mut statement = run.db.prepare_cached(sql).map_err(&err)?;
    let mut rows = statement.query([capture.id]).map_err(&err)?;
    let (mut tcp, mut all) = (seen.frames, seen.frames);
    while let Some(row) = rows.next().map_err(&err)? {
        let count = row.get_ref(1).map_err(&err)?.as_i64().unwrap_or(0);
        all = all.saturating_add(count);
        let reason = text(row, 0).map_err(&err)?;
        if Unjoined::ALL.iter().any(|r| r.name() == reason) {
            tcp = tcp.saturating_add(count);
        }
    }
    for (column, said, found, of) in [
        ("packets", packets, all, "frames with a row and those not joined"),
        ("tcp_packets", tcp_packets, tcp, "frames with a row and those of no recorded flow, or none that can be told,"),
        ("joined", joined, seen.joined, "frames with a state"),
    ] {
        if said != Some(found) {
            let said = said.map_or("NULL".into(), |n| n.to_string());
            run.violated("capture_counts", capture.place(), format!("{column} is {said}, {of} are {found}"))?;
        }
    }
    Ok(())
}
