//! The file beside a trace in which records wait to be written: `trace.db-backlog`.
//!
//! A recorder that is killed leaves it behind, and another process reads it: so a batch says by itself what it takes to
//! decode it, how long it is, and whether it is whole. Owns the layout of the file and who may have it open; must not
//! know what records say. What is read is taken for anyone's: sizes are checked before memory is taken.
//!
//! The file: a head of one block, then batches, each at a multiple of [`BLOCK_BYTES`]: a head of [`HEAD_BYTES`], what it
//! takes to decode the records, the records. Numbers are little-endian. Of a batch that is written to the trace all but
//! the first block is given back to the file system, so that those behind it are still found.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use tcpprobe_probes::records_id;
use tcpprobe_trace::backlog::Owner;
use tcpprobe_trace::clock::Anchor;

/// What batches begin at a multiple of.
const BLOCK_BYTES: u64 = 4096;
/// A batch's head.
const HEAD_BYTES: usize = 64;
/// What it takes to decode a batch is shorter.
const MAX_CONTEXT_BYTES: usize = 1 << 16;
/// The records of a batch are shorter.
const MAX_RECORDS_BYTES: usize = 1 << 22;
/// Behind a head that is damaged, the next one is no farther than this.
const MAX_BATCH_BYTES: u64 = (HEAD_BYTES + MAX_CONTEXT_BYTES + MAX_RECORDS_BYTES) as u64;

const FILE_MAGIC: &[u8; 16] = b"tcpprobe backlog";
const BATCH_MAGIC: [u8; 4] = *b"TPBB";
const FILE_VERSION: u32 = 1;
/// Bytes of the file's head that are covered by the checksum behind them.
const FILE_HEAD_BYTES: usize = 96;
const TOOL_BYTES: usize = 32;

/// The name of a trace's backlog: beside the trace itself, as SQLite's log is, and not beside a link to it.
pub(crate) fn beside(trace: &Path) -> PathBuf {
    named_beside(trace, "-backlog")
}

/// What SQLite calls a file beside the trace: the trace's own name, with something behind it.
pub(crate) fn named_beside(trace: &Path, suffix: &str) -> PathBuf {
    let is_link = std::fs::symlink_metadata(trace).is_ok_and(|m| m.is_symlink());
    let target = is_link.then(|| std::fs::canonicalize(trace).ok()).flatten();
    let mut name = target.unwrap_or_else(|| trace.to_owned()).into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Its place in the row of all batches of the session.
    pub(crate) number: u64,
    pub(crate) records_bytes: usize,
    pub(crate) after: Anchor,
    at: u64,
    context_bytes: usize,
    checksum: u32,
}

impl Extent {
    fn records_at(&self) -> u64 {
        self.at + (HEAD_BYTES + self.context_bytes) as u64
    }

    fn end(&self) -> u64 {
        self.records_at() + self.records_bytes as u64
    }

    fn head(&self, started_ns: i64) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&BATCH_MAGIC);
        head[8..16].copy_from_slice(&self.number.to_le_bytes());
        head[16..20].copy_from_slice(&(self.context_bytes as u32).to_le_bytes());
        head[20..24].copy_from_slice(&(self.records_bytes as u32).to_le_bytes());
        head[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let Anchor { mono_before_ns, real_ns, mono_after_ns } = self.after;
        for (at, number) in [(32, mono_before_ns), (40, real_ns), (48, mono_after_ns), (56, started_ns)] {
            head[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&head[8..]);
        head[4..8].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    /// `None`: no head of a batch of this session.
    fn from_head(head: &[u8; HEAD_BYTES], at: u64, started_ns: i64) -> Option<Extent> {
        if head[..4] != BATCH_MAGIC || u32_at(head, 4) != crc32fast::hash(&head[8..]) {
            return None;
        }
        let after = Anchor {
            mono_before_ns: u64_at(head, 32) as i64,
            real_ns: u64_at(head, 40) as i64,
            mono_after_ns: u64_at(head, 48) as i64,
        };
        let extent = Extent {
            number: u64_at(head, 8),
            records_bytes: u32_at(head, 20) as usize,
            after,
            at,
            context_bytes: u32_at(head, 16) as usize,
            checksum: u32_at(head, 24),
        };
        let is_one = u64_at(head, 56) as i64 == started_ns
            && extent.number < u64::MAX
            && extent.context_bytes <= MAX_CONTEXT_BYTES
            && extent.records_bytes <= MAX_RECORDS_BYTES
            && after.is_possible();
        is_one.then_some(extent)
    }
}

// these two are asked for places within a head only
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn body_checksum(context: &[u8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(context);
    hasher.update(records);
    hasher.finalize()
}

/// A recorder's own file. It is there for as long as the recorder is at work, and locked: by that a second one knows.
pub(crate) struct BacklogFile {
    file: Arc<File>,
    path: PathBuf,
    started_ns: i64,
    /// Where the next batch begins.
    end: u64,
    next_number: u64,
}

impl BacklogFile {
    /// Makes the file, before it is known which session it is for.
    ///
    /// # Errors
    /// Those of the file system; above all, something of this name is there already.
    pub(crate) fn create(path: &Path) -> io::Result<BacklogFile> {
        // with O_EXCL a symbolic link is something that is there already
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let made = file.try_lock().map_err(io::Error::from).and_then(|()| {
            file.write_all_at(&file_head(&NO_OWNER), 0)?;
            // between the making and the lock another process may have taken it for one that was left behind
            if is_at(&file, path) { Ok(()) } else { Err(io::Error::other("another process has taken the file away")) }
        });
        if let Err(error) = made {
            remove(&file, path);
            return Err(error);
        }
        let (file, path) = (Arc::new(file), path.to_owned());
        Ok(BacklogFile { file, path, started_ns: 0, end: BLOCK_BYTES, next_number: 0 })
    }

    /// Says whose records it will hold; before that it takes none that anyone would find.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn begin(&mut self, owner: &Owner) -> io::Result<()> {
        self.file.write_all_at(&file_head(owner), 0)?;
        self.started_ns = owner.started_ns;
        Ok(())
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For whoever reads batches back.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Adds a batch: into the page cache, where it survives the end of this process.
    ///
    /// # Errors
    /// Those of the file system; the file is as it was then.
    pub(crate) fn append(&mut self, context: &[u8], records: &[u8], after: Anchor) -> io::Result<Extent> {
        if context.len() > MAX_CONTEXT_BYTES || records.len() > MAX_RECORDS_BYTES {
            return Err(io::Error::other("a batch is too large"));
        }
        let extent = Extent {
            number: self.next_number,
            records_bytes: records.len(),
            after,
            at: self.end,
            context_bytes: context.len(),
            checksum: body_checksum(context, records),
        };
        let head = [&extent.head(self.started_ns)[..], context].concat();
        let written = self.file.write_all_at(&head, extent.at);
        if let Err(error) = written.and_then(|()| self.file.write_all_at(records, extent.records_at())) {
            // a shorter batch must not have the rest of this one behind it
            let _ = self.file.set_len(extent.at);
            return Err(error);
        }
        self.end = extent.end().next_multiple_of(BLOCK_BYTES);
        self.next_number += 1;
        Ok(extent)
    }

    /// Begins anew at the file's begin; to be called when no batch is needed any more.
    pub(crate) fn restart(&mut self) {
        // where that fails, the file grows on
        if self.end > BLOCK_BYTES && self.file.set_len(BLOCK_BYTES).is_ok() {
            self.end = BLOCK_BYTES;
        }
    }
}

/// Reads the records of a batch that this process wrote.
pub(crate) fn read_records(file: &File, extent: &Extent, into: &mut Vec<u8>) -> io::Result<()> {
    into.resize(extent.records_bytes, 0);
    file.read_exact_at(into, extent.records_at())
}

/// Gives the room of a batch back, but for its head. A file system that cannot do that does when the file is removed.
pub(crate) fn give_back(file: &File, extent: &Extent) {
    let (from, to) = (extent.at + BLOCK_BYTES, extent.end().next_multiple_of(BLOCK_BYTES));
    if let (Ok(at), Ok(len @ 1..)) = (i64::try_from(from), i64::try_from(to.saturating_sub(from))) {
        let _ = fallocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len);
    }
}

/// Removes a file of which this is the open one; another one of that name stays.
pub(crate) fn remove(file: &File, path: &Path) {
    if is_at(file, path) {
        // it may be gone: that is what is wanted
        let _ = std::fs::remove_file(path);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Stands in the head until the session has begun; no session has this number.
const NO_OWNER: Owner = Owner { session_id: 0, started_ns: 0, mono_base_ns: 0, real_base_ns: 0 };

fn file_head(owner: &Owner) -> Vec<u8> {
    let mut head = FILE_MAGIC.to_vec();
    head.extend_from_slice(&FILE_VERSION.to_le_bytes());
    // no longer than a block, for whoever wants to know
    head.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    head.extend_from_slice(&records_id().to_le_bytes());
    for number in [owner.session_id, owner.started_ns, owner.mono_base_ns, owner.real_base_ns] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let tool = env!("CARGO_PKG_VERSION").as_bytes();
    head.extend_from_slice(&tool[..tool.len().min(TOOL_BYTES)]);
    head.resize(FILE_HEAD_BYTES, 0);
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    head.extend_from_slice(&std::process::id().to_le_bytes());
    head.resize(BLOCK_BYTES as usize, 0);
    head
}

/// Why a file of a backlog's name is no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0}: not a backlog of tcpprobe; a recording needs this name: move the file away")]
    Foreign(String),
    #[error(
        "{0}: belongs neither to the owner of the trace nor to this user: nothing is taken from it; move the file away, or give it the trace's owner"
    )]
    OfSomeoneElse(String),
    #[error(
        "{path}: records of tcpprobe {tool}, which this version does not understand; `tcpprobe show` of that version writes them into the trace"
    )]
    OtherVersion { path: String, tool: String },
    #[error(
        "{path}: holds records that wait to be written, as far as can be seen ({bytes} bytes), and this user may not read them; unless a recorder is at work, `tcpprobe show` by the owner of the trace gets them in"
    )]
    Forbidden { path: String, bytes: u64 },
    #[error("{path}: records that wait to be written cannot be read: {cause}")]
    Io { path: String, cause: io::Error },
}

/// A file of a backlog's name.
pub(crate) enum Found {
    /// There is none.
    Nothing,
    /// Its recorder, or someone who writes down what it holds, has it open.
    InUse(Leftover),
    /// Its recorder is gone. Nobody else has it while this is open.
    Left(Leftover),
}

/// A backlog that another process wrote.
pub(crate) struct Leftover {
    file: File,
    path: PathBuf,
    /// `None`: it was made, and its session had not begun.
    pub(crate) owner: Option<Owner>,
    /// The process that made it, as it says itself: for words only, since a lock says whether it lives.
    pub(crate) pid: Option<u32>,
}

impl Leftover {
    /// Looks for the backlog of a trace.
    pub(crate) fn find(trace: &Path) -> Result<Found, Unusable> {
        let path = beside(trace);
        let name = path.display().to_string();
        let io = |cause| Unusable::Io { path: name.clone(), cause };
        // neither through a link, nor to wait for the other end of a pipe
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) if e.raw_os_error() == Some(Errno::ELOOP as i32) => return Err(Unusable::Foreign(name)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let bytes = std::fs::symlink_metadata(&path).map_or(0, |m| m.len());
                if bytes <= BLOCK_BYTES {
                    return Ok(Found::Nothing);
                }
                return Err(Unusable::Forbidden { path: name, bytes });
            }
            Err(cause) => return Err(io(cause)),
        };
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(Unusable::Foreign(name));
        }
        let of_trace = std::fs::metadata(trace).map(|m| m.uid()).ok();
        if metadata.uid() != nix::unistd::geteuid().as_raw() && Some(metadata.uid()) != of_trace {
            return Err(Unusable::OfSomeoneElse(name));
        }
        let in_use = match file.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(cause)) => return Err(io(cause)),
        };
        // whoever had it until now may have removed it
        if !in_use && !is_at(&file, &path) {
            return Ok(Found::Nothing);
        }
        let owner = owner_of(&file, &name)?;
        let pid = pid_of(&file);
        let leftover = Leftover { file, path, owner, pid };
        Ok(if in_use { Found::InUse(leftover) } else { Found::Left(leftover) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does nothing stand behind its head?
    pub(crate) fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.len() <= BLOCK_BYTES)
    }

    /// Bytes of records from a batch on, as far as heads can be read.
    pub(crate) fn waiting_bytes(&self, from_number: u64) -> u64 {
        let mut batches = self.batches();
        let mut bytes: u64 = 0;
        while let Ok(Some(extent)) = batches.next() {
            bytes = bytes.saturating_add(if extent.number < from_number { 0 } else { extent.records_bytes as u64 });
        }
        bytes
    }

    /// Its batches, in the order in which they were written.
    pub(crate) fn batches(&self) -> Batches<'_> {
        let end = self.file.metadata().map_or(0, |m| m.len());
        let started_ns = self.owner.map_or(0, |o| o.started_ns);
        Batches { file: &self.file, started_ns, at: BLOCK_BYTES, end, last: None, damaged_bytes: 0, cut_bytes: 0 }
    }

    /// Takes the file away.
    pub(crate) fn remove(&self) {
        remove(&self.file, &self.path);
    }

    /// Gives it another name, which it returns: what could not be read of it is not thrown away.
    pub(crate) fn set_aside(&self) -> io::Result<PathBuf> {
        let named = |n: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(if n == 1 { "-damaged".into() } else { format!("-damaged-{n}") });
            PathBuf::from(name)
        };
        let mut error = io::Error::from(io::ErrorKind::AlreadyExists);
        for name in (1..1000).map(named) {
            // a link never replaces what is there
            match std::fs::hard_link(&self.path, &name) {
                Ok(()) => {
                    self.remove();
                    return Ok(name);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => error = e,
                Err(e) => return Err(e),
            }
        }
        Err(error)
    }
}

/// Whose backlog it is; `None` of a file in which nothing is.
fn owner_of(file: &File, name: &str) -> Result<Option<Owner>, Unusable> {
    let foreign = || Unusable::Foreign(name.into());
    let mut head = [0; FILE_HEAD_BYTES + 4];
    if file.metadata().is_ok_and(|m| m.len() == 0) {
        return Ok(None);
    }
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(foreign()),
        Err(cause) => return Err(Unusable::Io { path: name.into(), cause }),
    }
    let whole = u32_at(&head, FILE_HEAD_BYTES) == crc32fast::hash(&head[..FILE_HEAD_BYTES]);
    if head[..FILE_MAGIC.len()] != *FILE_MAGIC || !whole {
        return Err(foreign());
    }
    if u32_at(&head, 16) != FILE_VERSION || u64_at(&head, 24) != records_id() {
        let tool = head[64..FILE_HEAD_BYTES].iter().take_while(|b| b.is_ascii_graphic()).map(|&b| char::from(b));
        return Err(Unusable::OtherVersion { path: name.into(), tool: tool.collect() });
    }
    let number = |at| u64_at(&head, at) as i64;
    let owner =
        Owner { session_id: number(32), started_ns: number(40), mono_base_ns: number(48), real_base_ns: number(56) };
    Ok((owner != NO_OWNER).then_some(owner))
}

/// `None`: it does not say.
fn pid_of(file: &File) -> Option<u32> {
    let mut pid = [0; 4];
    file.read_exact_at(&mut pid, FILE_HEAD_BYTES as u64 + 4).ok()?;
    Some(u32::from_le_bytes(pid)).filter(|&pid| pid > 0)
}

/// Goes through the batches of a file.
pub(crate) struct Batches<'a> {
    file: &'a File,
    started_ns: i64,
    at: u64,
    end: u64,
    last: Option<u64>,
    /// Bytes that are no batch, though there are some behind them, or they should be one.
    pub(crate) damaged_bytes: u64,
    /// Bytes of a last batch that was not written to its end.
    pub(crate) cut_bytes: u64,
}

impl Batches<'_> {
    /// The next one that has a head and lies within the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Extent>> {
        while self.at < self.end {
            if self.end - self.at < HEAD_BYTES as u64 {
                self.cut_bytes = self.end - self.at;
                break;
            }
            let Some(extent) = self.head(self.at)? else {
                self.skip_damage()?;
                continue;
            };
            if extent.end() > self.end {
                self.cut_bytes = self.end - self.at;
                break;
            }
            self.at = extent.end().next_multiple_of(BLOCK_BYTES);
            if self.last.is_some_and(|last| extent.number <= last) {
                self.damaged_bytes += extent.records_bytes as u64;
                continue;
            }
            self.last = Some(extent.number);
            return Ok(Some(extent));
        }
        self.at = self.end;
        Ok(None)
    }

    /// Reads what it takes to decode a batch, and its records; `false`: they are not what was written.
    pub(crate) fn read(&mut self, extent: &Extent, context: &mut Vec<u8>, records: &mut Vec<u8>) -> io::Result<bool> {
        context.resize(extent.context_bytes, 0);
        self.file.read_exact_at(context, extent.at + HEAD_BYTES as u64)?;
        read_records(self.file, extent, records)?;
        let whole = body_checksum(context, records) == extent.checksum;
        if !whole {
            self.damaged(extent);
        }
        Ok(whole)
    }

    /// Counts a batch as one that cannot be used.
    pub(crate) fn damaged(&mut self, extent: &Extent) {
        self.damaged_bytes += extent.records_bytes as u64;
    }

    fn head(&self, at: u64) -> io::Result<Option<Extent>> {
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut head, at)?;
        Ok(Extent::from_head(&head, at, self.started_ns))
    }

    /// Goes on to the next head, if there is one as near as it must be.
    fn skip_damage(&mut self) -> io::Result<()> {
        let from = self.at;
        let mut at = from + BLOCK_BYTES;
        while at + HEAD_BYTES as u64 <= self.end && at - from <= MAX_BATCH_BYTES + BLOCK_BYTES {
            if self.head(at)?.is_some() {
                self.damaged_bytes += at - from;
                self.at = at;
                return Ok(());
            }
            at += BLOCK_BYTES;
        }
        self.damaged_bytes += self.end - from;
        self.at = self.end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
