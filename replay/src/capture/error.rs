//! What can be wrong with a capture file, in words that name the file, the cause and the way out.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a capture cannot be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The system refused to open or to read it; the cause is the error's source.
    #[error("cannot read the capture {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It has no bytes at all.
    #[error("{}: the file is empty: its capture wrote nothing, not even a file header; capture again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It starts with no magic number of a capture.
    #[error("{}: not a pcap or pcapng capture, it starts with {found}{hint}", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// Its first bytes, in hexadecimal.
        found: String,
        /// What it seems to be and what to do then: empty, or ": …".
        hint: &'static str,
    },
    /// It is a capture, but what it says contradicts itself.
    #[error(
        "{}: damaged at byte {offset}, where frame {frame} should be: {cause}{}",
        path.display(), way_out(path, *frame)
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged record starts, in bytes from the start of the file.
        offset: u64,
        /// Number of the frame that could not be read; 0: the file's header.
        frame: u64,
        /// What is wrong there.
        cause: String,
    },
}

impl CaptureError {
    pub(super) fn not_a_capture(path: &Path, start: &[u8]) -> Self {
        let found = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        Self::NotACapture { path: path.to_owned(), found, hint: hint(start) }
    }
}

fn way_out(path: &Path, frame: u64) -> String {
    match frame {
        0 => String::new(),
        1 => "; no frame before it can be read".to_owned(),
        _ => format!("; keep what is before it with: editcap -r {} good.pcapng 1-{}", path.display(), frame - 1),
    }
}

/// What a file seems to be that is no capture.
fn hint(start: &[u8]) -> &'static str {
    const KNOWN: [(&[u8], &str); 5] = [
        (b"\xfd7zXZ\0", ": an xz file; unpack it first, with unxz -k"),
        (b"BZh", ": a bzip2 file; unpack it first, with bunzip2 -k"),
        (b"SQLite format 3\0", ": a SQLite file, perhaps the trace; the captures come after it"),
        (b"snoop\0\0\0", ": a snoop capture; convert it first, with editcap FILE OUT.pcap"),
        (
            b"\xa1\xb2\xcd\x34",
            ": a big-endian capture of the modified pcap format; convert it with editcap FILE OUT.pcap",
        ),
    ];
    if let Some((_, hint)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return hint;
    }
    if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return ": text, perhaps a capture's listing; the capture itself is needed, as tcpdump -w writes it";
    }
    ""
}

/// What a decoder finds wrong, before file and place are added.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    Corrupt(String),
}

impl Fault {
    pub(super) fn corrupt<T>(cause: impl Into<String>) -> Result<T, Self> {
        Err(Self::Corrupt(cause.into()))
    }

    pub(super) fn at(self, path: &Path, offset: u64, frame: u64) -> CaptureError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => CaptureError::Io { path, source },
            Self::Corrupt(cause) => CaptureError::Corrupt { path, offset, frame, cause },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
