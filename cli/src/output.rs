//! Where a command writes: standard output, or a new file that is whole or not there.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;

/// Hands `write` the output that `path` names; - is standard output. An existing file is never overwritten, and none is
/// left half-written.
///
/// # Errors
/// The file exists or cannot be made, or writing fails.
pub(crate) fn write<T>(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>) -> anyhow::Result<T> {
    if path.as_os_str() == "-" {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let written = write(&mut out)?;
        out.flush()?;
        return Ok(written);
    }
    let file = File::create_new(path)
        .with_context(|| format!("cannot make {}; an existing file is never overwritten", path.display()))?;
    let mut out = BufWriter::new(file);
    let written = write(&mut out).and_then(|written| {
        out.flush().with_context(|| path.display().to_string())?;
        Ok(written)
    });
    if written.is_err() {
        // made a moment ago, and not whole
        let _ = std::fs::remove_file(path);
    }
    written
}
