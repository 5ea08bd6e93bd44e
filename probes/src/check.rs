//! What this kernel and this user can do, asked before anything is loaded.

use std::path::Path;

/// The running kernel's release, as `uname -r` says it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Is the running kernel at least this version? Distributions' suffixes are ignored.
pub fn kernel_at_least(major: u32, minor: u32) -> bool {
    version(&kernel_release()) >= (major, minor)
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Does the kernel describe its types?
pub fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Does the kernel itself have this function? `None` where it does not list its symbols.
pub(crate) fn has_symbol(name: &str) -> Option<bool> {
    let symbols = std::fs::read_to_string("/proc/kallsyms").ok()?;
    // address, type, name, and for modules their name
    let mut names = symbols.lines().filter_map(|l| l.split_ascii_whitespace().nth(2)).peekable();
    names.peek()?;
    Some(names.any(|n| n == name))
}

/// Capabilities that sampling and capturing need (capabilities(7)): name, bit.
const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_NET_RAW", 13)];
const CAP_SYS_ADMIN: u32 = 21;

/// Each capability that a recording needs, and whether this process has it in effect.
pub fn capabilities() -> Vec<(&'static str, bool)> {
    let effective = std::fs::read_to_string("/proc/self/status").ok().and_then(|s| effective(&s)).unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    // CAP_SYS_ADMIN stands for the two that were split off it in 5.8
    NEEDED.iter().map(|&(name, bit)| (name, has(bit) || (bit > 30 && has(CAP_SYS_ADMIN)))).collect()
}

/// The needed capabilities that this process lacks.
pub fn missing_capabilities() -> Vec<&'static str> {
    capabilities().into_iter().filter(|(_, has)| !has).map(|(name, _)| name).collect()
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions() {
        assert_eq!(version("5.10.0-28-cloud-amd64"), (5, 10));
        assert_eq!(version("6.18.44"), (6, 18));
        assert_eq!(version("7.0-rc1"), (7, 0));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn capability_mask() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000002000\n"), Some(0xc0_0000_2000));
        assert_eq!(effective("nothing"), None);
    }
}
