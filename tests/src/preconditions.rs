//! Whether a live test can run here. A test that cannot is shown as ignored, with the reason: never as passed.

use std::process::{Command, Stdio};

use nix::unistd::Uid;

use crate::lab::{Lab, LabOptions};

/// Programs that the lab and the live tests run.
const PROGRAMS: [&str; 7] = ["ip", "tc", "nft", "ethtool", "tcpdump", "python3", "sh"];

/// Why no live test can run on this machine, or `None` when they can.
///
/// Ends with building one network as the tests do, since only the kernel knows whether it has veth, tbf and nftables.
pub fn missing() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("needs root, for namespaces and BPF".into());
    }
    for program in PROGRAMS {
        if !is_installed(program) {
            return Some(format!("needs `{program}`: scripts/setup.sh installs it"));
        }
    }
    let options = LabOptions { rate_mbit: Some(100), loss: crate::lab::Loss::PerMille(1), ..LabOptions::default() };
    Lab::new(&options).err().map(|error| format!("no test network here: {error:#}"))
}

/// Why a test for a kernel without kprobes cannot run, or `None` when this kernel has none.
pub fn kernel_has_kprobes() -> Option<String> {
    // The perf event source exists exactly when the kernel was built with kprobe events.
    std::path::Path::new("/sys/bus/event_source/devices/kprobe")
        .exists()
        .then(|| "this kernel has kprobes: the test is for one without".into())
}

/// Why a test that runs these programs cannot run, or `None` when it can.
pub fn missing_program(programs: &[&str]) -> Option<String> {
    programs.iter().find(|p| !is_installed(p)).map(|p| format!("needs `{p}`: scripts/setup.sh installs it"))
}

fn is_installed(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
