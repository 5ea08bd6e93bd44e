//! A recorder's BPF programs and links, by their numbers: are they gone with it?

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::unistd::Pid;

use tcpprobe_tests::scene::STEP_LIMIT;

/// What a process has in the kernel's BPF: numbers of programs and links.
pub(crate) struct InKernel {
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl InKernel {
    /// By the process's open files.
    pub(crate) fn of(pid: Pid) -> Result<InKernel> {
        let mut found = InKernel { programs: BTreeSet::new(), links: BTreeSet::new() };
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // a file may be closed meanwhile
            let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
            for line in text.lines() {
                let number = |name: &str| line.strip_prefix(name).and_then(|n| n.trim().parse::<u32>().ok());
                found.programs.extend(number("prog_id:"));
                found.links.extend(number("link_id:"));
            }
        }
        ensure!(!found.programs.is_empty(), "process {pid} has no BPF program: the test would show nothing");
        Ok(found)
    }

    /// Is there more than programs?
    pub(crate) fn is_attached(&self) -> bool {
        !self.links.is_empty()
    }

    /// The kernel frees them a moment after their last file is closed.
    pub(crate) fn expect_gone(&self) -> Result<()> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let programs = aya::programs::loaded_programs().filter_map(|p| Some(p.ok()?.id()));
            let links = aya::programs::loaded_links().filter_map(|l| Some(l.ok()?.id()));
            let programs: Vec<u32> = programs.filter(|id| self.programs.contains(id)).collect();
            let links: Vec<u32> = links.filter(|id| self.links.contains(id)).collect();
            if programs.is_empty() && links.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "still in the kernel: programs {programs:?}, links {links:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
