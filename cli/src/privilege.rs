//! Who a recording is made for, and how the process gives up what it needs no more.
//!
//! Owns user, groups and capabilities. They are the calling thread's, and those of threads that it starts afterwards: to
//! be used before there are others.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_keepcaps;
use nix::unistd::{Gid, Uid, User, geteuid, getuid, initgroups, setgroups, setresgid, setresuid};

/// The user behind sudo, where this process is root on their behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    uid: Uid,
    gid: Gid,
}

impl Caller {
    /// `None`: the process is of the user that it works for, root included.
    pub(crate) fn behind_sudo() -> Option<Caller> {
        if !(getuid().is_root() && geteuid().is_root()) {
            return None;
        }
        Caller::from_words(&std::env::var("SUDO_UID").ok()?, &std::env::var("SUDO_GID").ok()?)
    }

    /// What sudo(8) says in SUDO_UID and SUDO_GID.
    fn from_words(uid: &str, gid: &str) -> Option<Caller> {
        let (uid, gid): (u32, u32) = (uid.parse().ok()?, gid.parse().ok()?);
        // the highest number stands for no change
        let is_user = uid != 0 && uid != u32::MAX && gid != u32::MAX;
        is_user.then(|| Caller { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) })
    }

    /// Makes this process theirs, with their groups. As the user changes, the kernel takes the capabilities away.
    fn assume(&self) -> nix::Result<()> {
        match User::from_uid(self.uid)?.and_then(|user| CString::new(user.name).ok()) {
            Some(name) => initgroups(&name, self.gid)?,
            None => setgroups(&[self.gid])?,
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)
    }
}

/// Gives up root where this is sudo, and every capability but those of `keep`, for good.
///
/// # Errors
/// The kernel refuses, or something is left: then nothing may be recorded.
pub(crate) fn give_up(caller: Option<Caller>, keep: &CapsHashSet) -> anyhow::Result<()> {
    let cannot = "cannot give up privileges";
    // what a program that is executed could get back; a process without CAP_SETPCAP is no_new_privs later
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).context(cannot)? {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability).context(cannot)?;
        }
    }
    if let Some(caller) = caller {
        set_keepcaps(!keep.is_empty()).context(cannot)?;
        caller.assume().with_context(|| format!("cannot become user {}", caller.uid))?;
    }
    caps::set(None, CapSet::Effective, keep).context(cannot)?;
    caps::set(None, CapSet::Permitted, keep).context(cannot)?;
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        caps::clear(None, set).context(cannot)?;
    }
    let left = caps::read(None, CapSet::Permitted).context(cannot)?;
    if left != *keep || caller.is_some_and(|c| setresuid(Uid::from_raw(0), Uid::from_raw(0), c.uid).is_ok()) {
        bail!("{cannot}: some are left; this is a bug of tcpprobe");
    }
    Ok(())
}

/// Makes this process the caller's own again, as it was before sudo or the capabilities of the program's file: what it
/// executes has what the caller has.
pub(crate) fn be_the_caller(caller: Option<Caller>) -> anyhow::Result<()> {
    match caller {
        Some(caller) => caller.assume().with_context(|| format!("cannot become user {}", caller.uid)),
        None if geteuid().is_root() => Ok(()),
        None => {
            for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                caps::clear(None, set).context("cannot give up privileges")?;
            }
            Ok(())
        }
    }
}

/// Which capabilities a recording needs to its end: none, or CAP_BPF where `works` does not without. Before Linux 5.19
/// the kernel may ask for it at every system call for BPF (`kernel.unprivileged_bpf_disabled`).
///
/// # Errors
/// The thread that tries it cannot be started.
pub(crate) fn needed_to_the_end<T: Send>(
    state: T,
    works: impl Fn(&T) -> bool + Send,
) -> anyhow::Result<(T, CapsHashSet)> {
    // a thread's own capabilities: those of this one stay as they are
    let tried = std::thread::scope(|scope| {
        let without = std::thread::Builder::new().name("without".into()).spawn_scoped(scope, move || {
            let works = caps::clear(None, CapSet::Effective).is_ok() && works(&state);
            (state, works)
        })?;
        without.join().map_err(|_| anyhow::anyhow!("a thread failed: this is a bug of tcpprobe"))
    });
    let (state, works) = tried?;
    let held = caps::read(None, CapSet::Permitted).context("cannot read capabilities")?;
    // CAP_SYS_ADMIN, which implies it, is more than what is needed
    let keep = [Capability::CAP_BPF].into_iter().filter(|c| !works && held.contains(c)).collect();
    Ok((state, keep))
}

/// Refuses a file that is there already and is not the user's own, or is only a link to another one.
///
/// # Errors
/// What stands in the way, and what to do.
pub(crate) fn own_or_new(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    if metadata.is_symlink() {
        bail!("{}: a symbolic link, which a recording does not follow; name the file itself", path.display());
    }
    if metadata.uid() != geteuid().as_raw() {
        bail!(
            "{}: belongs to user {}, and user {} records; name another file, or record as its owner",
            path.display(),
            metadata.uid(),
            geteuid()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_users_make_a_caller() {
        let caller = Caller { uid: Uid::from_raw(1000), gid: Gid::from_raw(100) };
        assert_eq!(Caller::from_words("1000", "100"), Some(caller));
        for (uid, gid) in [("0", "0"), ("", "100"), ("me", "100"), ("-1", "100"), ("4294967295", "1"), ("1000", "")] {
            assert_eq!(Caller::from_words(uid, gid), None, "{uid:?} {gid:?}");
        }
    }

    #[test]
    fn a_link_is_not_followed_and_a_new_file_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("trace.db"), folder.path().join("link.db"));
        assert!(own_or_new(&file).is_ok());
        std::fs::write(&file, b"").unwrap();
        assert!(own_or_new(&file).is_ok());
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(own_or_new(&link).unwrap_err().to_string().contains("symbolic link"));
        std::fs::remove_file(&file).unwrap();
        assert!(own_or_new(&link).is_err(), "one that leads nowhere makes no file there");
    }
}
