//! What the exports of whole views have in common: which flows, how far, why not.
//!
//! Owns the choice of rows and their order; must not know a format.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tcpprobe_trace::columns::View;
use tcpprobe_trace::rows::{FlowOf, Row, RowReader};

pub use super::tcpprobe::Selection;

/// Is told how many rows are done, at times, and says whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Rows between two calls of a [`Watch`].
const STEP: u64 = 1 << 10;

/// Why an export cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The trace cannot be read, or is damaged.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
    /// The output cannot be written.
    #[error("cannot write the rows: {0}")]
    Write(#[from] std::io::Error),
    /// The Parquet library refuses.
    #[error("cannot write Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The Arrow library refuses.
    #[error("cannot make columns: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// There is no such flow, or it is of another session.
    #[error("{}: no flow {flow}{}; there is {known}", trace.display(), of_session(*session))]
    NoFlow {
        /// The trace.
        trace: PathBuf,
        /// The flow asked for.
        flow: i64,
        /// The session asked for.
        session: Option<i64>,
        /// Those that can be asked for.
        known: String,
    },
    /// There is no such session, or it has no flows.
    #[error("{}: no flows in session {session}; there is {known}", trace.display())]
    NoSession {
        /// The trace.
        trace: PathBuf,
        /// The session asked for.
        session: i64,
        /// Those that have flows.
        known: String,
    },
    /// The trace has no flows at all.
    #[error(
        "{trace}: no flows: nothing was recorded or imported; `tcpprobe show {trace}` says what it holds",
        trace = trace.display()
    )]
    NoFlows {
        /// The trace.
        trace: PathBuf,
    },
    /// None of the tables has a row of these flows.
    #[error(
        "{trace}: no rows of these flows in {tables}; packets are there after `tcpprobe join {trace} CAPTURE`",
        trace = trace.display()
    )]
    NoRows {
        /// The trace.
        trace: PathBuf,
        /// The tables.
        tables: String,
    },
    /// The caller wanted no more.
    #[error("interrupted; nothing is left of it")]
    Interrupted,
}

fn of_session(session: Option<i64>) -> String {
    session.map(|s| format!(" in session {s}")).unwrap_or_default()
}

/// Ids in words: `flow 1`, `flow 1 to 5, 9`; sorted ones.
fn known(noun: &str, ids: impl Iterator<Item = i64>) -> String {
    const MOST: usize = 10;
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1).is_some_and(|next| next >= id) => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let shown = ranges.iter().take(MOST).map(|(a, b)| if a == b { a.to_string() } else { format!("{a} to {b}") });
    let mut words = format!("{noun} {}", shown.collect::<Vec<_>>().join(", "));
    if ranges.len() > MOST {
        words.push_str(", …");
    }
    words
}

/// The chosen flows of a trace, opened for reading.
pub struct Source {
    trace: PathBuf,
    reader: RowReader,
    flows: Vec<FlowOf>,
}

impl Source {
    /// Opens a trace and looks up what is asked for.
    ///
    /// # Errors
    /// It cannot be read, or has no such flow or session.
    pub fn open(trace: &Path, selection: &Selection) -> Result<Source, Error> {
        let reader = RowReader::open(trace)?;
        let all = reader.flows()?;
        let trace = trace.to_owned();
        if all.is_empty() {
            return Err(Error::NoFlows { trace });
        }
        let of_session: Vec<FlowOf> =
            all.iter().copied().filter(|f| selection.session.is_none_or(|s| s == f.session_id)).collect();
        if let (Some(session), true) = (selection.session, of_session.is_empty()) {
            let known = known("session", all.iter().map(|f| f.session_id));
            return Err(Error::NoSession { trace, session, known });
        }
        if let Some(&flow) = selection.flows.iter().find(|&&id| of_session.iter().all(|f| f.id != id)) {
            let known = known("flow", of_session.iter().map(|f| f.id));
            return Err(Error::NoFlow { trace, flow, session: selection.session, known });
        }
        let wanted = |f: &FlowOf| selection.flows.is_empty() || selection.flows.contains(&f.id);
        Ok(Source { trace, reader, flows: of_session.into_iter().filter(wanted).collect() })
    }

    /// The trace's file.
    pub fn trace(&self) -> &Path {
        &self.trace
    }

    /// The flows, by session and id.
    pub fn flows(&self) -> &[FlowOf] {
        &self.flows
    }

    /// How many rows a view has of them.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn rows(&self, view: View) -> Result<u64, Error> {
        self.flows.iter().try_fold(0u64, |sum, f| Ok(sum.saturating_add(self.reader.count(view, f.id)?)))
    }

    /// Hands over the rows of a view, flow by flow; `done` counts them on.
    pub(super) fn each(
        &self,
        view: View,
        done: &mut u64,
        watch: Watch<'_>,
        mut each: impl FnMut(FlowOf, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for &flow in &self.flows {
            self.each_of(flow, view, done, watch, &mut each)?;
        }
        // the end of the last rows counts as well
        if watch(*done).is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The same of one flow.
    pub(super) fn each_of(
        &self,
        flow: FlowOf,
        view: View,
        done: &mut u64,
        watch: Watch<'_>,
        mut each: impl FnMut(FlowOf, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.reader.each(view, flow.id, |row| {
            each(flow, row)?;
            *done += 1;
            if done.is_multiple_of(STEP) && watch(*done).is_break() {
                return Err(Error::Interrupted);
            }
            Ok(())
        })
    }

    /// A flow's own address and its peer's, as text with their ports.
    pub(super) fn endpoints(&self, flow: FlowOf) -> Result<(String, String), Error> {
        Ok(self.reader.endpoints(flow.id)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_named_as_ranges_and_not_without_end() {
        assert_eq!(known("flow", [3].into_iter()), "flow 3");
        assert_eq!(known("session", [1, 1, 2, 3, 7].into_iter()), "session 1 to 3, 7");
        assert_eq!(known("flow", (0..100).map(|n| 2 * n)), "flow 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, …");
        assert_eq!(known("flow", [i64::MAX - 1, i64::MAX].into_iter()).split(' ').count(), 4);
    }
}
