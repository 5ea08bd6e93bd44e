//! Runs of programs and probes that did not take place, as the kernel counts them.
//!
//! Owns the places where these counts are found; must not know what was lost by them.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// How often a program did not run because one, itself or another kprobe's, was running on the processor
/// (`recursion_misses`, since Linux 5.12: 9ed9e9ba2337, "bpf: Count the number of times recursion was prevented"); 0
/// where the kernel does not count it.
pub(crate) fn missed_runs(program: BorrowedFd<'_>) -> u64 {
    fdinfo(program.as_raw_fd()).as_deref().and_then(|info| field(info, "recursion_misses")).unwrap_or(0)
}

/// How often the kprobe of a program did not fire because another kprobe was being handled on the processor
/// (`kprobe.nmissed`, shown for a link since Linux 6.7: 3acf8ace68230, "bpf: Add missed value to kprobe perf link
/// info"). `None` where the kernel does not show it: 6.6 and older, or probes without a link (before 5.15).
pub(crate) fn missed_probes(program_id: u32) -> Option<u64> {
    let links = std::fs::read_dir("/proc/self/fdinfo").ok()?.flatten().filter_map(|entry| {
        let fd: RawFd = entry.file_name().to_str()?.parse().ok()?;
        is_perf_link_of(&fdinfo(fd)?, program_id).then_some(fd)
    });
    links.filter_map(missed_of_link).reduce(|a, b| a + b)
}

fn fdinfo(fd: RawFd) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
}

fn is_perf_link_of(info: &str, program_id: u32) -> bool {
    info.lines().any(|l| l.split_ascii_whitespace().eq(["link_type:", "perf"]))
        && field(info, "prog_id") == Some(u64::from(program_id))
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

/// `BPF_OBJ_GET_INFO_BY_FD` of `enum bpf_cmd`.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// `struct bpf_link_info` in words: type and id, program's id, then for a perf event its type, and for a kprobe the
/// address, size and offset of its name, its own address, and `missed`.
const LINK_INFO_WORDS: usize = 8;
const MISSED: usize = 6;

/// `union bpf_attr` as this command reads it.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

fn missed_of_link(link: RawFd) -> Option<u64> {
    let mut info = [0_u64; LINK_INFO_WORDS];
    let size_bytes = u32::try_from(size_of_val(&info)).ok()?;
    let mut ask = GetInfo { bpf_fd: u32::try_from(link).ok()?, info_len: size_bytes, info: info.as_mut_ptr() as u64 };
    // SAFETY: the kernel reads `ask`, of the size that is passed, and writes at most `info_len` bytes to `info`, which
    // lives and is not otherwise used until the call is over. Its name's address is 0: nothing is written there.
    #[expect(unsafe_code, reason = "aya shows no more than the ids of a link")]
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut ask, size_of::<GetInfo>()) };
    // an older kernel writes less, and the rest stays 0: the same as no misses, which it cannot tell
    (result == 0 && ask.info_len as usize > MISSED * size_of::<u64>()).then(|| info[MISSED])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "pos:\t0\nflags:\t02000000\nlink_type:\tperf\nlink_id:\t9\nprog_tag:\t3d\nprog_id:\t34\n";

    #[test]
    fn the_link_of_a_program() {
        assert!(is_perf_link_of(LINK, 34));
        assert!(!is_perf_link_of(LINK, 3), "another one's");
        assert!(!is_perf_link_of(&LINK.replace("perf", "tracing"), 34), "no kprobe");
        assert!(!is_perf_link_of("pos:\t0\nprog_id:\t34\n", 34), "the program itself");
    }

    #[test]
    fn fields_by_their_whole_name() {
        assert_eq!(field(LINK, "prog_id"), Some(34));
        assert_eq!(field(LINK, "prog"), None);
        assert_eq!(field("recursion_misses:\t7\n", "recursion_misses"), Some(7));
    }

    #[test]
    fn what_is_no_link_has_no_misses() {
        use std::os::fd::AsRawFd as _;
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(missed_of_link(file.as_raw_fd()), None);
        assert_eq!(missed_of_link(-1), None);
    }
}
