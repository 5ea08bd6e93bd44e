//! What was taken from the ring and is not written yet: in memory, and what goes beyond that in a file without a name.
//!
//! The ring must be emptied as fast as it fills, and writing may wait for better times; what lies in between must not
//! fill the memory. Owns the order of the batches and where they are. Must not know what records say.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::fcntl::{FallocateFlags, fallocate};
use tcpprobe_probes::{Cost, Losses, Records};
use tcpprobe_trace::clock::{Anchor, Segment};

/// Bytes of records that make a batch.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// Batches in memory at most.
const IN_MEMORY: usize = 64;

/// Records, and an anchor that was taken after them.
pub(crate) struct Batch {
    pub(crate) records: Records,
    pub(crate) after: Anchor,
}

impl Batch {
    /// Adds those of the next one, if both together are one batch. Did it?
    fn takes(&mut self, next: &Batch) -> bool {
        // the anchor before a step of the clock is worth a batch
        let takes = self.records.as_bytes().len() + next.records.as_bytes().len() <= BATCH_BYTES
            && !Segment::new(self.after, next.after).stepped();
        if takes {
            self.records.append(&next.records);
            self.after = next.after;
        }
        takes
    }
}

/// What comes behind the last batch.
pub(crate) struct Last {
    pub(crate) losses: Losses,
    pub(crate) costs: Vec<Cost>,
}

/// What stands first in line.
pub(crate) enum Next {
    Batch(Batch),
    Last(Last),
    /// Nothing yet.
    Waited,
    /// Nothing, and there will be nothing.
    Gone,
}

/// Where a batch lies in the file.
struct Extent {
    at: u64,
    bytes: usize,
    after: Anchor,
}

#[derive(Default)]
struct State {
    memory: VecDeque<Batch>,
    /// All of them younger than those in memory.
    spilled: VecDeque<Extent>,
    spilled_bytes: u64,
    last: Option<Last>,
    /// What is here stays here.
    held: bool,
    /// Memory of batches that are written.
    spare: Vec<Vec<u8>>,
    in_gone: bool,
    out_gone: bool,
}

impl State {
    /// Is the end of the line in memory, and is there room for another batch?
    fn has_room(&self, in_memory: usize) -> bool {
        self.spilled.is_empty() && self.memory.len() < in_memory
    }

    /// Keeps memory for a batch to come.
    fn keep(&mut self, records: Records) {
        if self.spare.len() < 2 {
            self.spare.push(records.into_bytes());
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    file: OnceLock<Option<File>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // nothing is done under the lock that could leave the state half-way
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how much waits.
pub(crate) struct Gauge {
    shared: Arc<Shared>,
}

impl Gauge {
    /// Bytes of records that are not taken yet.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let state = self.shared.state();
        state.spilled_bytes + state.memory.iter().map(|b| b.records.as_bytes().len() as u64).sum::<u64>()
    }
}

/// The end at which batches come in.
pub(crate) struct In {
    shared: Arc<Shared>,
    /// Where the file is made, once it is needed; `None`: what has no room in memory waits.
    folder: Option<PathBuf>,
    /// Where the file ends.
    end: u64,
    in_memory: usize,
}

/// The end at which they go out.
pub(crate) struct Out {
    shared: Arc<Shared>,
}

/// An empty backlog; what goes beyond memory goes into a file in this folder.
pub(crate) fn backlog(folder: Option<PathBuf>) -> (In, Out) {
    let shared = Arc::<Shared>::default();
    (In { shared: Arc::clone(&shared), folder, end: 0, in_memory: IN_MEMORY }, Out { shared })
}

impl In {
    /// Memory for the next batch.
    pub(crate) fn records(&self) -> Records {
        let spare = self.shared.state().spare.pop();
        spare.map_or_else(|| Records::with_capacity(BATCH_BYTES + BATCH_BYTES / 16), Records::from_spare)
    }

    /// Puts a batch at the end. Waits where there is no room; `false`: no one will take it.
    pub(crate) fn push(&mut self, batch: Batch) -> bool {
        let mut state = self.shared.state();
        if state.spilled.is_empty() && state.memory.back_mut().is_some_and(|last| last.takes(&batch)) {
            state.keep(batch.records);
            return !state.out_gone;
        }
        if state.has_room(self.in_memory) {
            state.memory.push_back(batch);
            self.shared.changed.notify_all();
            return !state.out_gone;
        }
        drop(state);
        let Err(batch) = self.spill(batch) else { return !self.shared.state().out_gone };
        // no file, or no room in it: the ring fills, and the kernel counts what it drops
        let mut state = self.shared.state();
        state.held = false;
        self.shared.changed.notify_all();
        while !state.out_gone && !state.has_room(self.in_memory) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.memory.push_back(batch);
        self.shared.changed.notify_all();
        !state.out_gone
    }

    fn spill(&mut self, batch: Batch) -> Result<(), Batch> {
        let Some(folder) = &self.folder else { return Err(batch) };
        let file = self.shared.file.get_or_init(|| tempfile::tempfile_in(folder).ok());
        let bytes = batch.records.as_bytes();
        if file.as_ref().is_none_or(|f| f.write_all_at(bytes, self.end).is_err()) {
            return Err(batch);
        }
        let mut state = self.shared.state();
        state.spilled.push_back(Extent { at: self.end, bytes: bytes.len(), after: batch.after });
        state.spilled_bytes += bytes.len() as u64;
        self.end += bytes.len() as u64;
        state.keep(batch.records);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// For whoever wants to know.
    pub(crate) fn gauge(&self) -> Gauge {
        Gauge { shared: Arc::clone(&self.shared) }
    }

    /// Bytes in the file that are not taken yet.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        self.shared.state().spilled_bytes
    }

    /// Keeps what is here from being taken, or lets it go again.
    pub(crate) fn hold(&self, held: bool) {
        self.shared.state().held = held;
        self.shared.changed.notify_all();
    }

    /// Says that there will be no more batches.
    pub(crate) fn finish(self, last: Last) -> bool {
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
    /// Takes what stands first, if it comes in time.
    ///
    /// # Errors
    /// The file cannot be read back.
    pub(crate) fn next(&self, timeout: Duration) -> anyhow::Result<Next> {
        let waits = |s: &mut State| s.held || (s.memory.is_empty() && s.spilled.is_empty() && !s.in_gone);
        let waited = self.shared.changed.wait_timeout_while(self.shared.state(), timeout, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.held {
            return Ok(Next::Waited);
        }
        if let Some(batch) = state.memory.pop_front() {
            self.shared.changed.notify_all();
            return Ok(Next::Batch(batch));
        }
        if let Some(extent) = state.spilled.pop_front() {
            state.spilled_bytes -= extent.bytes as u64;
            let spare = state.spare.pop().unwrap_or_default();
            // wakes a drain that waits for room
            self.shared.changed.notify_all();
            drop(state);
            return self.read(&extent, spare).map(Next::Batch);
        }
        Ok(match (state.last.take(), state.in_gone) {
            (Some(last), _) => Next::Last(last),
            (None, true) => Next::Gone,
            (None, false) => Next::Waited,
        })
    }

    fn read(&self, extent: &Extent, mut bytes: Vec<u8>) -> anyhow::Result<Batch> {
        let file = self.shared.file.get().and_then(Option::as_ref).context("samples were kept in no file")?;
        bytes.resize(extent.bytes, 0);
        file.read_exact_at(&mut bytes, extent.at).context("cannot read back samples that waited to be written")?;
        // gives the room on the disk back; a file system that cannot do that does when the recording ends
        if let (Ok(at), Ok(len)) = (i64::try_from(extent.at), i64::try_from(extent.bytes)) {
            let _ =
                fallocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len);
        }
        Ok(Batch { records: Records::from_bytes(bytes), after: extent.after })
    }

    /// Gives the memory of a batch back.
    pub(crate) fn done(&self, records: Records) {
        self.shared.state().keep(records);
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

    const SECOND: Duration = Duration::from_secs(1);

    fn batch(number: u8, offset_ns: i64) -> Batch {
        let mono_ns = i64::from(number) * 1_000_000;
        let after = Anchor { mono_before_ns: mono_ns, real_ns: mono_ns + offset_ns, mono_after_ns: mono_ns };
        let mut records = Records::default();
        records.push(&[number; BATCH_BYTES / 2]);
        Batch { records, after }
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
        Last { losses: Losses { ring_full: 9, ..Losses::default() }, costs: Vec::new() }
    }

    #[test]
    fn what_has_no_room_in_memory_keeps_its_place_in_line() {
        let folder = tempfile::tempdir().unwrap();
        let (mut into, out) = backlog(Some(folder.path().to_owned()));
        into.in_memory = 2;
        for number in 0..5 {
            assert!(into.push(batch(number, 0)));
        }
        assert!(into.gauge().waiting_bytes() > 5 * BATCH_BYTES as u64 / 2);
        assert!(into.spilled_bytes() > 2 * BATCH_BYTES as u64 / 2);
        assert_eq!(taken(&out, 3), [0, 1, 2]);
        // memory has room again, but others wait in the file
        assert!(into.push(batch(5, 0)));
        assert_eq!(taken(&out, 3), [3, 4, 5]);
        assert_eq!(into.spilled_bytes(), 0);
        assert!(into.push(batch(6, 0)));
        assert_eq!(into.spilled_bytes(), 0, "the file is behind us");
        assert!(into.finish(last()));
        assert_eq!(taken(&out, 1), [6]);
        assert!(matches!(out.next(SECOND).unwrap(), Next::Last(l) if l.losses.ring_full == 9));
        assert!(matches!(out.next(SECOND).unwrap(), Next::Gone));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn without_a_file_the_drain_waits_and_memory_is_bounded() {
        let (mut into, out) = backlog(None);
        into.in_memory = 2;
        let pushed = std::thread::spawn(move || {
            let all = (0..20).all(|number| into.push(batch(number, 0)));
            all && into.finish(last())
        });
        for number in 0..20 {
            assert_eq!(taken(&out, 1), [number]);
            assert!(out.shared.state().memory.len() <= 2);
        }
        assert!(pushed.join().unwrap());
    }

    #[test]
    fn what_is_held_is_let_go_where_there_is_no_room_for_more() {
        let (mut into, out) = backlog(None);
        into.in_memory = 1;
        assert!(into.push(batch(0, 0)));
        into.hold(true);
        assert!(matches!(out.next(Duration::ZERO).unwrap(), Next::Waited));
        let pushed = std::thread::spawn(move || into.push(batch(1, 0)));
        assert_eq!(taken(&out, 2), [0, 1]);
        assert!(pushed.join().unwrap());
    }

    #[test]
    fn who_puts_in_hears_that_no_one_takes_out() {
        let (mut into, out) = backlog(None);
        into.in_memory = 1;
        assert!(into.push(batch(0, 0)));
        drop(out);
        assert!(!into.push(batch(1, 0)), "and does not wait");
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
            let mut batch = batch(number, offset_ns);
            batch.records = Records::default();
            batch.records.push(&[number]);
            batch
        };
        for (number, offset_ns) in [(1, 0), (2, 0), (3, 1_000_000_000), (4, 1_000_000_000)] {
            assert!(into.push(small(number, offset_ns)));
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
