//! Where a command writes: standard output, or new files and folders that are there whole or not at all: made beside
//! their place under another name, then renamed.

use std::fs::File;
use std::io::{BufWriter, Stdout, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tempfile::{Builder, NamedTempFile};

/// Standard output, which says in errors that it is that.
pub(crate) struct Standard(Stdout);

pub(crate) fn standard() -> Standard {
    Standard(std::io::stdout())
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(of_standard_output)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(of_standard_output)
    }
}

/// Of the same kind: a reader that is gone is no error.
fn of_standard_output(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("standard output: {error}"))
}

/// Hands `write` the output that `path` names; - is standard output. An existing file is never overwritten, and none is
/// left half-written.
///
/// # Errors
/// The file exists or cannot be made, or writing fails.
pub(crate) fn write<T>(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let buffered = |out: &mut dyn Write| {
        let mut out = BufWriter::new(out);
        let written = write(&mut out)?;
        out.flush()?;
        Ok(written)
    };
    if path.as_os_str() == "-" { buffered(&mut standard()) } else { new_file(path, |file| buffered(file)) }
}

/// Makes a file of what `write` writes.
pub(crate) fn new_file<T>(path: &Path, write: impl FnOnce(&mut File) -> anyhow::Result<T>) -> anyhow::Result<T> {
    made(path, |file| write(file.as_file_mut()))
}

/// Makes a file of what `write` writes into an empty one, which it finds by its name.
pub(crate) fn new_named_file<T>(path: &Path, write: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    made(path, |file| write(file.path()))
}

fn made<T>(path: &Path, write: impl FnOnce(&mut NamedTempFile) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let (parent, prefix) = place(path)?;
    let mut file = Builder::new()
        .prefix(&prefix)
        .suffix(".partial")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .with_context(|| cannot_make(path))?;
    let written = write(&mut file).with_context(|| cannot_make(path))?;
    file.persist_noclobber(path).map_err(|e| e.error).with_context(|| cannot_make(path))?;
    Ok(written)
}

/// Makes a folder of what `write` puts into it.
pub(crate) fn new_folder<T>(path: &Path, write: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let (parent, prefix) = place(path)?;
    let folder = Builder::new()
        .prefix(&prefix)
        .suffix(".partial")
        .permissions(std::fs::Permissions::from_mode(0o777))
        .tempdir_in(parent)
        .with_context(|| cannot_make(path))?;
    let written = write(folder.path()).with_context(|| cannot_make(path))?;
    let renamed = match renameat2(AT_FDCWD, folder.path(), AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        // a file system that cannot refuse: at most an empty folder is replaced
        Err(Errno::EINVAL | Errno::ENOSYS) => std::fs::rename(folder.path(), path),
        other => other.map_err(std::io::Error::from),
    };
    renamed.with_context(|| cannot_make(path))?;
    // it is not there any more
    let _ = folder.keep();
    Ok(written)
}

/// Where it comes to stand, and how the names of what becomes it begin.
fn place(path: &Path) -> anyhow::Result<(&Path, std::ffi::OsString)> {
    let Some(name) = path.file_name() else { bail!("{}: no name for an output", path.display()) };
    if path.symlink_metadata().is_ok() {
        bail!("{}: exists, and an existing file or folder is never overwritten; name a new one", path.display());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    Ok((parent, prefix))
}

fn cannot_make(path: &Path) -> String {
    format!("cannot make {}", path.display())
}
