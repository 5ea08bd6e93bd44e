//! What was taken from the ring and is not written yet: for a moment in memory, then in a file beside the trace.
//!
//! The ring must be emptied as fast as it fills, and writing may wait for better times; what lies in between must not
//! fill the memory, and a recorder that is killed must not take it along. So the file holds what is older, memory what is
//! younger than a moment. Owns the order of the batches and where they are. Must not know what records say.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tcpprobe_probes::{Cost, Losses, Records};
use tcpprobe_trace::clock::{Anchor, Segment};

use super::backlog_file::{BacklogFile, Extent, give_back, read_records, remove};

/// Bytes of records that make a batch.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// Batches in memory at most.
const IN_MEMORY: usize = 64;
/// What is older is in the file, or with the writer.
const IN_MEMORY_FOR: Duration = Duration::from_millis(250);

/// What the writer has not committed by then is in the file; as a rule it has.
const IN_FLIGHT_FOR: Duration = Duration::from_millis(500);

/// Records, and an anchor that was taken after them.
pub(crate) struct Batch {
    pub(crate) records: Records,
    pub(crate) after: Anchor,
    /// When the first of the records came.
    since: Instant,
}

/// A batch that is with the writer.
pub(crate) struct Taken {
    pub(crate) records: Arc<Records>,
    pub(crate) after: Anchor,
}

/// One that was never in the file, and is not committed yet.
struct InFlight {
    records: Arc<Records>,
    after: Anchor,
    since: Instant,
    is_in_file: bool,
}

impl Batch {
    /// Records that came now.
    pub(crate) fn new(records: Records, after: Anchor) -> Batch {
        Batch { records, after, since: Instant::now() }
    }

    /// Adds those of the next one, if both together are one batch. Did it?
    fn takes(&mut self, next: &Batch) -> bool {
        // the anchor before a step of the clock is worth a batch
        let takes = self.records.as_bytes().len() + next.records.as_bytes().len() <= BATCH_BYTES
            && !Segment::new(self.after, next.after).stepped();
        if takes {
            if self.records.is_empty() {
                self.since = next.since;
            }
            self.records.append(&next.records);
            self.after = next.after;
        }
        takes
    }
}

/// What comes behind the last batch.
pub(crate) struct Last {
    /// When the programs were detached.
    pub(crate) ended: Anchor,
    pub(crate) losses: Losses,
    pub(crate) costs: Vec<Cost>,
}

/// What stands first in line.
pub(crate) enum Next {
    Batch(Taken),
    Last(Last),
    /// Nothing yet.
    Waited,
    /// Nothing, and there will be nothing.
    Gone,
}

#[derive(Default)]
struct State {
    /// In the file; all of them older than those in memory.
    spilled: VecDeque<Extent>,
    spilled_bytes: u64,
    memory: VecDeque<Batch>,
    /// With the writer, which may not have committed them yet: still in the file, or nowhere else.
    taken: Vec<Extent>,
    in_flight: Vec<InFlight>,
    last: Option<Last>,
    /// What is here stays here.
    held: bool,
    /// Has whoever takes out heard of that?
    held_is_told: bool,
    /// Memory of batches that are written.
    spare: Vec<Vec<u8>>,
    in_gone: bool,
    out_gone: bool,
}

impl State {
    /// Keeps memory for a batch to come.
    fn keep(&mut self, records: Records) {
        if self.spare.len() < 2 {
            self.spare.push(records.into_bytes());
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|b| b.records.as_bytes().len() as u64).sum()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The backlog's file, and its name.
    file: Option<(Arc<File>, PathBuf)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // nothing is done under the lock that could leave the state half-way
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever takes out that there is something, unless all of it is held back, and that is known there.
    fn tell(&self, state: &State) {
        if !(state.held && state.held_is_told) {
            self.changed.notify_all();
        }
    }
}

/// Tells how much waits.
#[derive(Clone)]
pub(crate) struct Gauge {
    shared: Arc<Shared>,
}

impl Gauge {
    /// Bytes of records that are not taken yet.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let state = self.shared.state();
        state.spilled_bytes + state.memory_bytes()
    }

    /// Bytes in the file of which it is not known that they are in the trace; `None`: there is no file.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        let state = self.shared.state();
        let of = |extents: &mut dyn Iterator<Item = &Extent>| extents.map(|e| e.records_bytes as u64).sum::<u64>();
        self.shared.file.as_ref().map(|_| of(&mut state.spilled.iter().chain(&state.taken)))
    }

    /// Takes the file away, once everything is written and the session says so.
    pub(crate) fn remove_file(&self) {
        if let Some((file, path)) = &self.shared.file {
            remove(file, path);
        }
    }
}

/// The end at which batches come in.
pub(crate) struct In {
    shared: Arc<Shared>,
    /// `None`: what has no room in memory waits.
    file: Option<BacklogFile>,
    /// When the file last refused a batch, and why it did so first.
    refused: Option<Instant>,
    refusal: Option<std::io::Error>,
    in_memory: usize,
    in_memory_for: Duration,
    in_flight_for: Duration,
}

/// The end at which they go out.
pub(crate) struct Out {
    shared: Arc<Shared>,
}

/// An empty backlog, and the file that it has.
pub(crate) fn backlog(file: Option<BacklogFile>) -> (In, Out) {
    let named = file.as_ref().map(|f| (Arc::clone(f.file()), f.path().to_owned()));
    let shared = Arc::new(Shared { file: named, ..Shared::default() });
    let into = In {
        shared: Arc::clone(&shared),
        file,
        refused: None,
        refusal: None,
        in_memory: IN_MEMORY,
        in_memory_for: IN_MEMORY_FOR,
        in_flight_for: IN_FLIGHT_FOR,
    };
    (into, Out { shared })
}

impl In {
    /// Memory for the next batch.
    pub(crate) fn records(&self) -> Records {
        let spare = self.shared.state().spare.pop();
        spare.map_or_else(|| Records::with_capacity(BATCH_BYTES + BATCH_BYTES / 16), Records::from_spare)
    }

    /// Puts a batch at the end. Waits where there is no room; `false`: no one will take it. What it takes to decode the
    /// records is asked for where they go into the file.
    pub(crate) fn push(&mut self, batch: Batch, context: impl FnOnce() -> Vec<u8>) -> bool {
        let mut state = self.shared.state();
        if state.memory.back_mut().is_some_and(|last| last.takes(&batch)) {
            state.keep(batch.records);
        } else {
            if state.memory.len() >= self.in_memory {
                // no file, or no room in it: the ring fills, and the kernel counts what it drops
                state.held = false;
                self.shared.changed.notify_all();
            }
            while !state.out_gone && state.memory.len() >= self.in_memory {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.memory.push_back(batch);
            self.shared.tell(&state);
        }
        let there = !state.out_gone;
        // what the writer has is as easily lost until it has committed it, and may take its time for that
        let is_old = state.memory.iter().any(|b| !b.records.is_empty() && b.since.elapsed() >= self.in_memory_for)
            || state.in_flight.iter().any(|b| !b.is_in_file && b.since.elapsed() >= self.in_flight_for);
        let due = if state.memory.len() >= self.in_memory || is_old {
            Some(0)
        } else {
            // what would go there soon in any case goes at once, so that its memory can be used again
            (state.memory.len() > 1 && (state.held || !state.spilled.is_empty())).then_some(1)
        };
        drop(state);
        if let Some(left) = due {
            self.spill(left, context);
        }
        there
    }

    /// Moves the memory into the file, but for the last so many batches. What the file refuses stays where it is.
    fn spill(&mut self, left: usize, context: impl FnOnce() -> Vec<u8>) {
        if self.refused.is_some_and(|when| when.elapsed() < self.in_memory_for) {
            return;
        }
        if self.file.is_none() {
            return;
        }
        // all at once: what is younger must not be taken before what is on its way into the file
        let mut state = self.shared.state();
        let mut batches = std::mem::take(&mut state.memory);
        let not_yet = state.in_flight.iter_mut().filter(|b| !b.is_in_file);
        let in_flight: Vec<_> = not_yet.map(|b| (Arc::clone(&b.records), b.after)).collect();
        drop(state);
        let last = batches.split_off(batches.len().saturating_sub(left));
        if let Err(error) = self.write(in_flight, &mut batches, context) {
            self.refused = Some(Instant::now());
            self.refusal.get_or_insert(error);
        } else {
            self.refused = None;
        }
        batches.extend(last);
        let mut state = self.shared.state();
        state.held &= self.refused.is_none();
        state.memory = batches;
        self.shared.tell(&state);
    }

    /// Writes batches from the front on, as long as it goes; before them those that the writer has, which are older. If
    /// it commits these meanwhile, they are there twice: by their serials whoever recovers them knows that.
    fn write(
        &mut self,
        in_flight: Vec<(Arc<Records>, Anchor)>,
        batches: &mut VecDeque<Batch>,
        context: impl FnOnce() -> Vec<u8>,
    ) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let is_free = {
            let state = self.shared.state();
            state.spilled.is_empty() && state.taken.is_empty()
        };
        if is_free {
            file.restart();
        }
        let context = context();
        for (records, after) in in_flight {
            let extent = file.append(&context, records.as_bytes(), after)?;
            let mut state = self.shared.state();
            state.taken.push(extent);
            for b in state.in_flight.iter_mut().filter(|b| Arc::ptr_eq(&b.records, &records)) {
                b.is_in_file = true;
            }
        }
        while let Some(batch) = batches.front() {
            let extent = file.append(&context, batch.records.as_bytes(), batch.after)?;
            let mut state = self.shared.state();
            state.spilled.push_back(extent);
            state.spilled_bytes += extent.records_bytes as u64;
            if let Some(batch) = batches.pop_front() {
                state.keep(batch.records);
            }
        }
        Ok(())
    }

    /// Why the file takes no more, told once: from here on a recorder that is killed would lose what waits.
    pub(crate) fn refusal(&mut self) -> Option<anyhow::Error> {
        let path = self.file.as_ref()?.path().display().to_string();
        self.refusal.take().map(|error| anyhow::Error::from(error).context(path))
    }

    /// For whoever wants to know.
    pub(crate) fn gauge(&self) -> Gauge {
        Gauge { shared: Arc::clone(&self.shared) }
    }

    /// Bytes in the file that are not taken yet.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        self.shared.state().spilled_bytes
    }

    /// Keeps what is here from being taken, or lets it go again. What the file does not take is not kept.
    pub(crate) fn hold(&self, held: bool) {
        let mut state = self.shared.state();
        let held = held && self.refused.is_none();
        state.held_is_told &= state.held == held;
        state.held = held;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Says that there will be no more batches. Where many wait, so do the last ones in the file.
    pub(crate) fn finish(mut self, last: Last, context: impl FnOnce() -> Vec<u8>) -> bool {
        if self.spilled_bytes() > 0 {
            self.spill(0, context);
        }
        let mut state = self.shared.state();
        (state.last, state.held) = (Some(last), false);
        !state.out_gone
    }
}

impl Drop for In {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        (state.in_gone, state.held) = (true, false);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Out {
    /// Takes what stands first, if it comes in time. Says at once where it is held from here on: what waits in the file
    /// may tell of flows that were taken before, so these had better be committed.
    ///
    /// # Errors
    /// The file cannot be read back.
    pub(crate) fn next(&self, timeout: Duration) -> anyhow::Result<Next> {
        let waits = |s: &mut State| {
            if s.held { s.held_is_told } else { s.memory.is_empty() && s.spilled.is_empty() && !s.in_gone }
        };
        let waited = self.shared.changed.wait_timeout_while(self.shared.state(), timeout, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.held {
            state.held_is_told = true;
            return Ok(Next::Waited);
        }
        if let Some(extent) = state.spilled.pop_front() {
            state.spilled_bytes -= extent.records_bytes as u64;
            state.taken.push(extent);
            let spare = state.spare.pop().unwrap_or_default();
            drop(state);
            return self.read(&extent, spare).map(Next::Batch);
        }
        if let Some(Batch { records, after, since }) = state.memory.pop_front() {
            // wakes a drain that waits for room
            self.shared.changed.notify_all();
            let records = Arc::new(records);
            if !records.is_empty() {
                state.in_flight.push(InFlight { records: Arc::clone(&records), after, since, is_in_file: false });
            }
            return Ok(Next::Batch(Taken { records, after }));
        }
        Ok(match (state.last.take(), state.in_gone) {
            (Some(last), _) => Next::Last(last),
            (None, true) => Next::Gone,
            (None, false) => Next::Waited,
        })
    }

    fn read(&self, extent: &Extent, mut bytes: Vec<u8>) -> anyhow::Result<Taken> {
        let (file, _) = self.shared.file.as_ref().context("samples were kept in no file")?;
        read_records(file, extent, &mut bytes).context("cannot read back samples that waited to be written")?;
        Ok(Taken { records: Arc::new(Records::from_bytes(bytes)), after: extent.after })
    }

    /// Gives the memory of a batch back.
    pub(crate) fn done(&self, records: Arc<Records>) {
        // what is in flight is kept until it is committed
        if let Some(records) = Arc::into_inner(records) {
            self.shared.state().keep(records);
        }
    }

    /// How many batches of the file have been taken: to be stored with what is committed next. `None`: none since
    /// [`Out::committed`].
    pub(crate) fn taken(&self) -> Option<u64> {
        self.shared.state().taken.iter().map(|extent| extent.number + 1).max()
    }

    /// Says that all that was taken is in the trace for good: its room in the file is given back. `taken`: what
    /// [`Out::taken`] gave before.
    pub(crate) fn committed(&self, taken: Option<u64>) {
        let mut state = self.shared.state();
        for batch in std::mem::take(&mut state.in_flight) {
            if let Some(records) = Arc::into_inner(batch.records) {
                state.keep(records);
            }
        }
        let (Some((file, _)), Some(taken)) = (&self.shared.file, taken) else { return };
        // a batch that came into the file since is told of with the next commit
        let written: Vec<Extent> = state.taken.iter().filter(|extent| extent.number < taken).copied().collect();
        drop(state);
        written.iter().for_each(|extent| give_back(file, extent));
        self.shared.state().taken.retain(|extent| extent.number >= taken);
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.shared.state().out_gone = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::backlog_file::beside;
    use tcpprobe_trace::backlog::Owner;

    const SECOND: Duration = Duration::from_secs(1);

    fn batch(number: u8, offset_ns: i64) -> Batch {
        let mono_ns = i64::from(number) * 1_000_000;
        let after = Anchor { mono_before_ns: mono_ns, real_ns: mono_ns + offset_ns, mono_after_ns: mono_ns };
        let mut records = Records::default();
        records.push(&[number; BATCH_BYTES / 2]);
        Batch::new(records, after)
    }

    /// One whose memory holds so many batches, and so long.
    fn backlog_of(file: Option<BacklogFile>, in_memory: usize, in_memory_for: Duration) -> (In, Out) {
        let (mut into, out) = backlog(file);
        (into.in_memory, into.in_memory_for) = (in_memory, in_memory_for);
        (into, out)
    }

    fn file(folder: &tempfile::TempDir) -> Option<BacklogFile> {
        let mut file = BacklogFile::create(&beside(&folder.path().join("trace.db"))).unwrap();
        file.begin(&Owner { session_id: 1, started_ns: 2, mono_base_ns: 3, real_base_ns: 4 }).unwrap();
        Some(file)
    }

    fn push(into: &mut In, number: u8) -> bool {
        into.push(batch(number, 0), Vec::new)
    }

    /// The batches that stand first, by number.
    fn taken(out: &Out, count: usize) -> Vec<u8> {
        let next = || match out.next(SECOND).unwrap() {
            Next::Batch(batch) => {
                assert_eq!(batch.after.mono_after_ns, i64::from(batch.records.as_bytes()[4]) * 1_000_000);
                batch.records.as_bytes()[4]
            }
            _ => panic!("no batch"),
        };
        (0..count).map(|_| next()).collect()
    }

    fn last() -> Last {
        let ended = Anchor { mono_before_ns: 0, real_ns: 0, mono_after_ns: 0 };
        Last { ended, losses: Losses { ring_full: 9, ..Losses::default() }, costs: Vec::new() }
    }

    #[test]
    fn what_has_no_room_in_memory_keeps_its_place_in_line() {
        let folder = tempfile::tempdir().unwrap();
        let (mut into, out) = backlog_of(file(&folder), 3, 60 * SECOND);
        for number in 0..5 {
            assert!(push(&mut into, number));
        }
        assert!(into.gauge().waiting_bytes() > 5 * BATCH_BYTES as u64 / 2);
        assert!(into.spilled_bytes() > 3 * BATCH_BYTES as u64 / 2, "the first three went together");
        assert_eq!(taken(&out, 5), [0, 1, 2, 3, 4]);
        assert_eq!(into.spilled_bytes(), 0);
        assert!(push(&mut into, 5));
        assert_eq!(into.spilled_bytes(), 0, "there is room");
        assert!(into.finish(last(), Vec::new));
        assert_eq!(taken(&out, 1), [5]);
        assert!(matches!(out.next(SECOND).unwrap(), Next::Last(l) if l.losses.ring_full == 9));
        assert!(matches!(out.next(SECOND).unwrap(), Next::Gone));
    }

    #[test]
    fn what_is_old_is_in_the_file_but_no_anchor_without_records() {
        let folder = tempfile::tempdir().unwrap();
        let (mut into, out) = backlog_of(file(&folder), IN_MEMORY, Duration::ZERO);
        assert!(into.push(Batch::new(Records::default(), batch(1, 0).after), Vec::new));
        let length = || std::fs::metadata(folder.path().join("trace.db-backlog")).unwrap().len();
        let empty = length();
        assert_eq!(out.shared.state().memory.len(), 1, "an anchor without records can wait");
        for number in 1..4 {
            assert!(push(&mut into, number));
            assert_eq!(out.shared.state().memory.len(), 0);
        }
        assert!(length() > empty);
        assert_eq!(taken(&out, 3), [1, 2, 3]);
        into.gauge().remove_file();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_file_s_room_is_used_again_only_when_all_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut into, out) = backlog_of(file(&folder), IN_MEMORY, Duration::ZERO);
        let path = beside(&folder.path().join("trace.db"));
        let length = || std::fs::metadata(&path).unwrap().len();
        assert!(push(&mut into, 0));
        let one = length();
        assert_eq!(taken(&out, 1), [0]);
        assert!(push(&mut into, 1));
        let two = length();
        assert!(two > one, "the first one is not committed yet");
        assert_eq!(taken(&out, 1), [1]);
        out.committed(out.taken());
        assert!(push(&mut into, 2));
        assert_eq!(length(), one);
        assert_eq!(taken(&out, 1), [2]);
    }

    #[test]
    fn what_the_file_refuses_stays_in_memory_and_none_waits_for_better_times() {
        let folder = tempfile::tempdir().unwrap();
        let (mut into, out) = backlog_of(file(&folder), IN_MEMORY, Duration::ZERO);
        into.hold(true);
        // no file takes a batch that needs so much to be decoded
        assert!(into.push(batch(0, 0), || vec![0; 1 << 20]));
        into.hold(true);
        assert_eq!(taken(&out, 1), [0]);
        let said = format!("{:#}", into.refusal().unwrap());
        assert!(said.contains("trace.db-backlog: a batch is too large"), "{said}");
        assert!(into.refusal().is_none(), "told once");
    }

    #[test]
    fn only_its_own_file_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let (into, _out) = backlog_of(file(&folder), IN_MEMORY, Duration::ZERO);
        let path = beside(&folder.path().join("trace.db"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "someone else's").unwrap();
        into.gauge().remove_file();
        assert_eq!(std::fs::read(&path).unwrap(), b"someone else's");
    }

    #[test]
    fn without_a_file_the_drain_waits_and_memory_is_bounded() {
        let (mut into, out) = backlog_of(None, 2, SECOND);
        let pushed = std::thread::spawn(move || {
            let all = (0..20).all(|number| push(&mut into, number));
            all && into.finish(last(), Vec::new)
        });
        for number in 0..20 {
            assert_eq!(taken(&out, 1), [number]);
            assert!(out.shared.state().memory.len() <= 2);
        }
        assert!(pushed.join().unwrap());
    }

    #[test]
    fn what_is_held_is_let_go_where_there_is_no_room_for_more() {
        let (mut into, out) = backlog_of(None, 1, SECOND);
        assert!(push(&mut into, 0));
        into.hold(true);
        assert!(matches!(out.next(Duration::ZERO).unwrap(), Next::Waited));
        let pushed = std::thread::spawn(move || push(&mut into, 1));
        assert_eq!(taken(&out, 2), [0, 1]);
        assert!(pushed.join().unwrap());
    }

    #[test]
    fn what_the_writer_has_for_too_long_is_in_the_file_until_it_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut into, out) = backlog_of(file(&folder), IN_MEMORY, 60 * SECOND);
        assert!(push(&mut into, 0));
        assert_eq!(taken(&out, 1), [0]);
        assert!(push(&mut into, 1));
        assert_eq!(out.taken(), None);
        into.in_flight_for = Duration::ZERO;
        assert!(push(&mut into, 2));
        assert_eq!(out.taken(), Some(1), "it stands before those that are younger");
        assert_eq!(taken(&out, 2), [1, 2]);
        assert_eq!(out.taken(), Some(4 - 1));
        out.committed(Some(1));
        assert_eq!(out.taken(), Some(3), "the others came after that was asked");
        out.committed(out.taken());
        assert_eq!(out.taken(), None);
        assert!(out.shared.state().in_flight.is_empty());
    }

    #[test]
    fn that_it_is_held_is_heard_once_and_at_once() {
        let (mut into, out) = backlog_of(None, 3, SECOND);
        assert!(push(&mut into, 0));
        for _ in 0..2 {
            into.hold(true);
            // an hour has not passed when this returns
            assert!(matches!(out.next(3600 * SECOND).unwrap(), Next::Waited));
            into.hold(true);
            assert!(out.shared.state().held_is_told);
            into.hold(false);
        }
        assert_eq!(taken(&out, 1), [0]);
    }

    #[test]
    fn who_puts_in_hears_that_no_one_takes_out() {
        let (mut into, out) = backlog_of(None, 1, SECOND);
        assert!(push(&mut into, 0));
        drop(out);
        assert!(!push(&mut into, 1), "and does not wait");
    }

    #[test]
    fn who_takes_out_hears_that_nothing_comes() {
        let (into, out) = backlog(None);
        assert!(matches!(out.next(Duration::ZERO).unwrap(), Next::Waited));
        drop(into);
        assert!(matches!(out.next(SECOND).unwrap(), Next::Gone));
    }

    #[test]
    fn small_batches_become_one_but_not_across_a_step_of_the_clock() {
        let (mut into, out) = backlog(None);
        let small = |number: u8, offset_ns| {
            let mut records = Records::default();
            records.push(&[number]);
            Batch { records, ..batch(number, offset_ns) }
        };
        for (number, offset_ns) in [(1, 0), (2, 0), (3, 1_000_000_000), (4, 1_000_000_000)] {
            assert!(into.push(small(number, offset_ns), Vec::new));
        }
        let batches: Vec<(i64, usize)> = (0..2)
            .map(|_| match out.next(SECOND).unwrap() {
                Next::Batch(b) => (b.after.mono_after_ns, b.records.as_bytes().len()),
                _ => panic!("no batch"),
            })
            .collect();
        assert_eq!(batches, [(2_000_000, 10), (4_000_000, 10)]);
    }
}
