//! Tried, on a thread of its own: nothing of it can be taken back.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind::PermissionDenied;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use super::*;

/// What `tried` returns once the thread that it runs on is confined to a folder, which it gets with another one.
fn confined<T: Send>(tried: impl FnOnce(&Path, &Path) -> T + Send) -> T {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(own.path().join("trace.db"), b"trace").unwrap();
    std::fs::write(other.path().join("precious"), b"precious").unwrap();
    let tried = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            confine(Some(own.path())).unwrap();
            tried(own.path(), other.path())
        });
        thread.join().unwrap()
    });
    assert_eq!(std::fs::read(other.path().join("precious")).unwrap(), b"precious");
    tried
}

fn is_denied<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|e| e.kind() == PermissionDenied)
}

#[test]
fn files_of_the_folder_can_be_made_read_written_and_removed() {
    confined(|own, _| {
        let log = own.join("trace.db-wal");
        OpenOptions::new().read(true).write(true).create_new(true).open(&log).unwrap().write_all(b"log").unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), b"log");
        OpenOptions::new().write(true).truncate(true).open(own.join("trace.db")).unwrap();
        std::fs::remove_file(&log).unwrap();
        File::open(own).unwrap().sync_all().unwrap();
        assert_eq!(std::fs::read_dir(own).unwrap().count(), 1);
    });
}

#[test]
fn other_files_can_be_neither_read_nor_written_made_removed_or_executed() {
    let has_landlock = std::thread::spawn(|| restrict_files(None).unwrap()).join().unwrap();
    assert!(has_landlock, "this kernel has no Landlock: what it refuses cannot be tried here");
    confined(|own, other| {
        let precious = other.join("precious");
        assert!(is_denied(File::open("/etc/passwd")), "read");
        assert!(is_denied(OpenOptions::new().append(true).open("/etc/passwd")), "written");
        assert!(is_denied(File::open(&precious)), "read");
        assert!(is_denied(OpenOptions::new().write(true).open(&precious)), "written");
        assert!(is_denied(File::create_new(other.join("new"))), "made");
        assert!(is_denied(std::fs::remove_file(&precious)), "removed");
        // neither by another name: those calls are not even allowed
        assert!(is_denied(std::fs::rename(&precious, own.join("trace.db"))), "moved");
        assert!(is_denied(std::fs::hard_link(&precious, own.join("link"))), "linked");
        assert!(is_denied(std::os::unix::fs::symlink(&precious, own.join("link"))), "linked");
    });
}

#[test]
fn nothing_is_executed_and_nothing_goes_to_the_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    confined(|_, _| {
        assert!(is_denied(Command::new("/bin/true").status()), "executed");
        assert!(is_denied(TcpStream::connect(address)), "connected");
        assert!(is_denied(TcpListener::bind("127.0.0.1:0")), "bound");
        assert!(is_denied(UdpSocket::bind("127.0.0.1:0")), "bound");
        assert!(is_denied(std::os::unix::net::UnixStream::connect("/run/none")), "connected");
    });
}

#[test]
fn privileges_are_not_gained_and_other_processes_not_touched() {
    use nix::errno::Errno::EPERM;
    use nix::unistd::{chroot, getpid};
    confined(|_, _| {
        assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER), Err(EPERM));
        assert_eq!(chroot("/"), Err(EPERM));
        assert_eq!(nix::sys::signal::kill(getpid(), None), Ok(()), "a command is told to end");
        assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(true));
    });
}

#[test]
fn threads_that_are_started_afterwards_are_confined_too() {
    confined(|own, _| {
        let denied = std::thread::spawn(|| is_denied(TcpListener::bind("127.0.0.1:0"))).join().unwrap();
        assert!(denied);
        let own = own.to_owned();
        let made = std::thread::spawn(move || File::create_new(own.join("trace.db-backlog"))).join().unwrap();
        assert!(made.is_ok());
    });
}
