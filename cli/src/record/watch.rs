//! Whether the files of a recording are still those that it opened.
//!
//! Linux lets a file be removed while it is written; what is written then has no name, and is gone with the recorder.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::backlog_file::{beside, named_beside};

/// Files, and which ones they were.
pub(crate) struct Watched(Vec<(PathBuf, (u64, u64))>);

impl Watched {
    /// Those of a recording that has begun: the trace, what SQLite and the backlog have beside it, the capture.
    pub(crate) fn of(trace: Option<&Path>, pcap: Option<&Path>) -> Watched {
        let beside_trace = |t: &Path| [t.to_owned(), named_beside(t, "-wal"), named_beside(t, "-shm"), beside(t)];
        let files = trace.into_iter().flat_map(beside_trace).chain(pcap.map(Path::to_owned));
        Watched(files.filter_map(|path| identity(&path).map(|id| (path, id))).collect())
    }

    /// The first one that was removed, or has another file in its place.
    pub(crate) fn gone(&self) -> Option<&Path> {
        self.0.iter().find(|(path, id)| identity(path) != Some(*id)).map(|(path, _)| path.as_path())
    }
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_removed_or_replaced_is_named_and_one_that_grows_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (trace, pcap) = (folder.path().join("t.db"), folder.path().join("t.pcap"));
        for path in [&trace, &pcap] {
            std::fs::write(path, "1").unwrap();
        }
        let watched = Watched::of(Some(&trace), Some(&pcap));
        std::fs::write(&trace, "more").unwrap();
        assert_eq!(watched.gone(), None);
        std::fs::write(folder.path().join("other"), "2").unwrap();
        std::fs::rename(folder.path().join("other"), &pcap).unwrap();
        assert_eq!(watched.gone(), Some(pcap.as_path()));
        std::fs::remove_file(&trace).unwrap();
        assert_eq!(watched.gone(), Some(trace.as_path()));
    }
}
