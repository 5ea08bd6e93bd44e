//! The system calls of a recording that has begun. Any other one is refused with EPERM, and ends nothing: a recording
//! must not be lost for a call that a library makes once in a year.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Files, memory, threads, signals, time, waiting. Starting a thread cannot be told from forking (`clone3` keeps its
/// flags in memory): a process that may not execute anything gains nothing by it.
const ALLOWED: &[libc::c_long] = &[
    // files that are open, or that Landlock lets through
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_unlinkat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_socketpair,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    // waiting for them
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    // memory
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    // threads
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // signals, to the command as well, and its end
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // what there is to know
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_getrlimit,
];

/// The same by the names that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLD_NAMES: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_NAMES: &[libc::c_long] = &[];

/// Of `enum bpf_cmd`: BPF_MAP_LOOKUP_ELEM and BPF_MAP_UPDATE_ELEM, BPF_OBJ_GET_INFO_BY_FD, of what is loaded already.
const BPF_COMMANDS: [u64; 3] = [1, 2, 15];

/// Returns whether the kernel has such filters.
pub(super) fn restrict() -> Result<bool, Error> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    match apply_filter(&filter(arch)?) {
        Ok(()) => Ok(true),
        // neither the system call nor this kind of it
        Err(Error::Seccomp(e) | Error::Prctl(e)) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn filter(arch: TargetArch) -> Result<BpfProgram, Error> {
    use SeccompCmpArgLen::{Dword as Int, Qword as Pointer};
    use SeccompCmpOp::{Eq, Ne};
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(OLD_NAMES).map(|&call| (call, Vec::new())).collect();
    let bpf = BPF_COMMANDS.map(|command| all_of([SeccompCondition::new(0, Int, Eq, command)]));
    rules.insert(libc::SYS_bpf, bpf.into_iter().collect::<Result<_, _>>()?);
    // the terminal is asked for its size, but nothing is typed into it
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|command| SeccompCondition::new(1, Int, Ne, command));
    rules.insert(libc::SYS_ioctl, vec![all_of(typing)?]);
    // to the other end of what is connected: without an address
    rules.insert(libc::SYS_sendto, vec![all_of([SeccompCondition::new(4, Pointer, Eq, 0)])?]);
    // one's own limits are read, none are set
    let read = [SeccompCondition::new(0, Int, Eq, 0), SeccompCondition::new(2, Pointer, Eq, 0)];
    rules.insert(libc::SYS_prlimit64, vec![all_of(read)?]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()?)
}

fn all_of<const N: usize>(conditions: [Result<SeccompCondition, BackendError>; N]) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)?)
}
