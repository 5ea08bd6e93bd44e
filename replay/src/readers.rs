//! Connections to a trace, for threads to take and to give back: SQLite's are not shared, and each keeps pages that
//! the next flow's samples are likely to be on.

use std::path::Path;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use tcpprobe_trace::Result;
use tcpprobe_trace::join::JoinWriter;
use tcpprobe_trace::reader::TraceReader;

use crate::hash::HashMap;

/// As many connections as are in use at once.
pub struct Readers<'a> {
    /// Where more are opened; `None`: there are no others.
    trace: Option<&'a Path>,
    idle: Mutex<Vec<TraceReader>>,
    given_back: Condvar,
}

impl<'a> Readers<'a> {
    /// Those of a trace that no one writes, or that everyone can read meanwhile.
    pub fn new(trace: &'a Path) -> Readers<'a> {
        Readers { trace: Some(trace), idle: Mutex::default(), given_back: Condvar::new() }
    }

    /// Those of a trace that a join writes to, which has not started yet.
    ///
    /// # Errors
    /// The trace cannot be opened.
    pub fn beside(writer: &JoinWriter, trace: &'a Path) -> Result<Readers<'a>> {
        // one for each thread that joins, for that which reads the capture, and for that which puts rows together
        let idle = writer.readers(rayon::current_num_threads() + 2)?;
        let trace = idle.is_empty().then_some(trace);
        Ok(Readers { trace, idle: Mutex::new(idle), given_back: Condvar::new() })
    }

    /// Lends a connection. Who has one must not ask for a second one.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&TraceReader) -> Result<T>) -> Result<T> {
        let reader = self.take()?;
        let result = read(&reader);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        self.given_back.notify_one();
        result
    }

    fn take(&self) -> Result<TraceReader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match (idle.pop(), self.trace) {
                (Some(reader), _) => return Ok(reader),
                (None, Some(trace)) => {
                    drop(idle);
                    return TraceReader::open(trace);
                }
                (None, None) => idle = self.given_back.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// How many samples each flow has: read when it is asked for first.
#[derive(Default)]
pub(crate) struct Counts {
    segments: OnceLock<HashMap<i64, u64>>,
    all: OnceLock<HashMap<i64, u64>>,
}

impl Counts {
    /// Samples of segments, of a flow by its id. All of a trace must be read for it.
    pub(crate) fn of(&self, readers: &Readers<'_>, flow_id: i64) -> Result<u64> {
        known(&self.segments, readers, TraceReader::samples_by_flow, flow_id)
    }

    /// Samples of any kind.
    pub(crate) fn most(&self, readers: &Readers<'_>, flow_id: i64) -> Result<u64> {
        known(&self.all, readers, TraceReader::most_samples_by_flow, flow_id)
    }
}

fn known(
    counts: &OnceLock<HashMap<i64, u64>>,
    readers: &Readers<'_>,
    read: impl FnOnce(&TraceReader) -> Result<Vec<(i64, u64)>>,
    flow_id: i64,
) -> Result<u64> {
    let known = match counts.get() {
        Some(known) => known,
        None => {
            let read = readers.read(read)?.into_iter().collect();
            counts.get_or_init(|| read)
        }
    };
    Ok(known.get(&flow_id).copied().unwrap_or(0))
}
