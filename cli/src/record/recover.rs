//! Writes into a trace what a recorder that was killed had not written: the records in the backlog beside it.
//!
//! Every command that opens a trace comes by here first. One that only reads goes on where this fails.

use std::path::Path;

use anyhow::{Context as _, bail};
use nix::unistd::{AccessFlags, access};
use tcpprobe_probes::{Decoder, Records};
use tcpprobe_trace::Error;
use tcpprobe_trace::backlog::{Owner, Standing, standing};
use tcpprobe_trace::writer::SessionWriter;

use super::backlog_file::{Found, Leftover, beside};
use super::claim::{Claim, in_use};
use super::sink::Sink;
use crate::words::{counted, error, say};

/// What is recovered is committed after so many bytes of records.
const COMMIT_BYTES: usize = 16 << 20;
/// What takes some seconds to write.
const WORTH_A_WORD_BYTES: u64 = 64 << 20;

/// What there is beside a trace.
enum Beside {
    /// Nothing any more.
    Nothing,
    /// The backlog of a recorder that is at work, or of which another process writes down what it holds: so many bytes
    /// wait.
    InUse(u64),
}

/// Before a trace is read or joined: recovers what there is. Whatever is wrong with a backlog is said, and
/// no reason not to go on. Returns how many bytes of records a recorder at work has not written yet.
pub(crate) fn before_reading(trace: &Path) -> u64 {
    // what is not there has its own error
    if !trace.exists() {
        return 0;
    }
    match recover(trace) {
        Ok(Beside::Nothing) => 0,
        Ok(Beside::InUse(bytes)) => bytes,
        Err(e) => {
            error(&e);
            0
        }
    }
}

/// Before a recording or an import: recovers what there is, and keeps others that write samples away from the trace.
pub(crate) fn before_writing(trace: &Path) -> anyhow::Result<Claim> {
    match recover(trace)? {
        Beside::Nothing => Claim::of(trace),
        Beside::InUse(_) => bail!(in_use(trace)),
    }
}

fn recover(trace: &Path) -> anyhow::Result<Beside> {
    let (left, is_live) = match Leftover::find(trace)? {
        Found::Nothing => return Ok(Beside::Nothing),
        Found::InUse(left) => (left, true),
        Found::Left(left) => (left, false),
    };
    let owner = match left.owner {
        Some(owner) if is_live || !left.is_empty() => owner,
        _ if is_live => return Ok(Beside::InUse(0)),
        _ => {
            left.remove();
            return Ok(Beside::Nothing);
        }
    };
    let unusable = || format!("{}: records that a recorder left behind stay there", left.path().display());
    let stands = standing_now(trace, &owner).with_context(unusable)?;
    match (stands, is_live) {
        (Standing::Open { taken }, true) => Ok(Beside::InUse(left.waiting_bytes(taken))),
        (_, true) => Ok(Beside::InUse(0)),
        (Standing::Written, false) => {
            left.remove();
            Ok(Beside::Nothing)
        }
        (Standing::Unknown, false) => bail!(
            "{}: holds records of a session that {} does not have; move it beside its own trace, or away",
            left.path().display(),
            trace.display()
        ),
        (Standing::Open { taken }, false) => {
            let waiting_bytes = left.waiting_bytes(taken);
            if let Err(cause) = writable(trace) {
                bail!(
                    "{}: {} of records wait to be written, but {} cannot be written here ({cause}); `tcpprobe show {}` by a user who may write it gets them in",
                    left.path().display(),
                    counted(waiting_bytes, "byte"),
                    trace.display(),
                    trace.display()
                );
            }
            if waiting_bytes >= WORTH_A_WORD_BYTES {
                say!("{}: writing what a killed recorder left, {} MiB", trace.display(), waiting_bytes >> 20);
            }
            write_down(trace, &left, &owner).with_context(unusable)?;
            Ok(Beside::Nothing)
        }
    }
}

fn standing_now(trace: &Path, owner: &Owner) -> Result<Standing, Error> {
    match standing(trace, owner) {
        Err(Error::OldVersion { .. }) => {
            tcpprobe_trace::upgrade(trace)?;
            standing(trace, owner)
        }
        other => other,
    }
}

/// Can the trace be written, and files beside it be made and removed?
fn writable(trace: &Path) -> nix::Result<()> {
    let folder = trace.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    access(trace, AccessFlags::W_OK)?;
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
}

/// Decodes the records and writes them.
fn write_down(trace: &Path, left: &Leftover, owner: &Owner) -> anyhow::Result<()> {
    let (writer, taken) = SessionWriter::resume(trace, owner)?;
    let samples_before = writer.totals().samples;
    let mut sink = Sink::new(Some(writer), None);
    let mut decoder: Option<(Vec<u8>, Decoder)> = None;
    let (mut unreadable, mut since_commit) = (0_u64, 0);
    let (mut context, mut bytes) = (Vec::new(), Vec::new());
    let mut batches = left.batches();
    let mut last = None;
    while let Some(extent) = batches.next()? {
        if extent.number < taken || !batches.read(&extent, &mut context, &mut bytes)? {
            continue;
        }
        if decoder.as_ref().is_none_or(|(of, _)| *of != context) {
            unreadable = unreadable.saturating_add(decoder.take().map_or(0, |(_, d)| d.bad_records()));
            decoder = Decoder::from_context(&context).map(|d| (context.clone(), d));
        }
        let Some((_, decoder)) = &mut decoder else {
            batches.damaged(&extent);
            continue;
        };
        let records = Records::from_bytes(std::mem::take(&mut bytes));
        unreadable = unreadable.saturating_add(sink.take(decoder.events(&records), extent.after)?);
        bytes = records.into_bytes();
        sink.taken(extent.number + 1);
        since_commit += bytes.len();
        let due = since_commit >= COMMIT_BYTES;
        sink.batch_end(extent.after, due)?;
        if due {
            since_commit = 0;
        }
        last = Some(extent.after);
    }
    if let Some(anchor) = last {
        // the session's clocks are known up to its last sample
        sink.batch_end(anchor, true)?;
    }
    unreadable = unreadable.saturating_add(decoder.map_or(0, |(_, d)| d.bad_records()));
    let samples = sink.totals().samples.saturating_sub(samples_before);
    let damaged_bytes = batches.damaged_bytes;
    let mut kept = None;
    sink.finish_resumed(unreadable, || {
        if damaged_bytes > 0 {
            kept = Some(left.set_aside());
        } else {
            left.remove();
        }
    })?;
    if samples > 0 {
        say!(
            "{}: recovered {} of session {}, that a recorder which was killed had not written yet",
            trace.display(),
            counted(samples, "sample"),
            owner.session_id
        );
    }
    if unreadable > 0 {
        say!("{}: {} not understood", beside(trace).display(), counted(unreadable, "record"));
    }
    match kept {
        Some(Ok(path)) => say!(
            "{}: {} of it are damaged, and their samples lost; the file is kept as {}, and may be removed",
            beside(trace).display(),
            counted(damaged_bytes, "byte"),
            path.display()
        ),
        Some(Err(cause)) => say!(
            "{}: {} of it are damaged, and their samples lost; the file cannot get another name ({cause}): move it away",
            beside(trace).display(),
            counted(damaged_bytes, "byte"),
        ),
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
