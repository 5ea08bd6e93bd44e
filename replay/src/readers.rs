//! Connections to a trace, for threads to take and to give back: SQLite's are not shared, and each keeps pages that
//! the next flow's samples are likely to be on.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use tcpprobe_trace::Result;
use tcpprobe_trace::reader::TraceReader;

use crate::hash::HashMap;

/// As many as are in use at once.
pub(crate) struct Readers<'a> {
    trace: &'a Path,
    idle: Mutex<Vec<TraceReader>>,
}

impl<'a> Readers<'a> {
    pub(crate) fn new(trace: &'a Path) -> Readers<'a> {
        Readers { trace, idle: Mutex::new(Vec::new()) }
    }

    /// Lends a connection.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&TraceReader) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => TraceReader::open(self.trace)?,
        };
        let result = read(&reader);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        result
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
