//! A trace of someone else, read in every way.

use std::path::Path;

use anyhow::Result;
use tcpprobe_fuzz::run::Target;
use tcpprobe_replay::join::{Batching, join};
use tcpprobe_trace::query::Query;
use tcpprobe_trace::reader::TraceReader;
use tcpprobe_trace::verify::verify;
use tcpprobe_trace::{Error, READY};

use crate::seeds;

/// SQLite's pages, unless another size is asked for.
pub(crate) const PAGE_BYTES: usize = 4096;

/// A file that begins as one of SQLite's.
pub(crate) fn trace() -> Result<Target> {
    let folder = seeds::folder()?;
    let (path, capture) = (folder.path().join("fuzzed.db"), folder.path().join("whole.pcap"));
    let joined = seeds::joined()?;
    if let Some((_, whole)) = joined.first() {
        std::fs::write(&capture, whole)?;
    }
    Ok(Target {
        name: "trace",
        block_bytes: PAGE_BYTES,
        seeds: joined.into_iter().map(|(trace, _)| trace).collect(),
        read: Box::new(move |input| {
            let _ = &folder;
            read_trace(input, &path, &capture)
        }),
        // SQLite allocates by itself, and has its own limit
        most_bytes: |input| 32 * input.len() + (64 << 20),
    })
}

fn read_trace(input: &[u8], path: &Path, capture: &Path) -> Result<(), String> {
    for beside in ["-wal", "-journal", "-shm"] {
        let _ = std::fs::remove_file(path.with_extension(format!("db{beside}")));
    }
    std::fs::write(path, input).map_err(|e| e.to_string())?;
    let named = |result: Result<(), Error>| match result {
        Ok(()) => Ok(()),
        Err(e) if e.to_string().contains("fuzzed.db") => Ok(()),
        Err(e) => Err(format!("an error without the file: {e}")),
    };
    named(read_samples(path))?;
    named(verify(path, &mut |_| Ok(())).map(drop))?;
    named(query(path))?;
    match join(path, capture, Batching::default()) {
        Err(e) if !e.to_string().contains("fuzzed.db") => Err(format!("an error without the file: {e}")),
        _ => Ok(()),
    }
}

fn read_samples(path: &Path) -> Result<(), Error> {
    let reader = TraceReader::open(path)?;
    reader.sessions()?;
    for flow in reader.flows()? {
        reader.samples(flow.id)?;
    }
    Ok(())
}

fn query(path: &Path) -> Result<(), Error> {
    let query = Query::open(path)?;
    let views = ["samples", "packets", "packet_state"].into_iter().chain(READY.iter().map(|ready| ready.view));
    for view in views {
        match query.rows(&format!("SELECT * FROM {view} LIMIT 200"), |_| Ok(())) {
            // a view that is not there
            Ok(_) | Err(Error::Sql(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
