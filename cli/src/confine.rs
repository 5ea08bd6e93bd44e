//! What a process that records, or shows live flows, may still do: read and write a folder, and what it has open.
//!
//! Landlock for files, seccomp for system calls. Both are the calling thread's, and those of threads that it starts
//! afterwards. Neither can be taken back.

mod syscalls;

use std::path::Path;

use anyhow::Context as _;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, path_beneath_rules,
};

use crate::words::say;

/// What is asked of the kernel, as far as it knows it: with the version before the latest that was tried.
const LANDLOCK: ABI = ABI::V5;
/// What is read to the end: figures of interfaces, BTF of modules, the number of processors; descriptors of probes.
const READ: [&str; 2] = ["/sys", "/proc/self/fdinfo"];

/// Confines the calling thread to files in `folder`, or to none. What a kernel does not have is said in a line.
///
/// # Errors
/// The kernel has it, and refuses.
pub(crate) fn confine(folder: Option<&Path>) -> anyhow::Result<()> {
    let files = restrict_files(folder).context("cannot confine this process to its files")?;
    if !files {
        say!("not confined to its files: this kernel has no Landlock (Linux 5.13), or it is switched off");
    }
    let calls = syscalls::restrict().context("cannot confine this process to its system calls")?;
    if !calls {
        say!("not confined to its system calls: this kernel or machine has no seccomp filters");
    }
    Ok(())
}

/// Returns whether the kernel has Landlock.
fn restrict_files(folder: Option<&Path>) -> anyhow::Result<bool> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // SQLite makes and removes its log there, the backlog comes and goes; nothing is renamed, nothing is executed
    let own: BitFlags<AccessFs> =
        read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .create()?
        .set_compatibility(CompatLevel::BestEffort)
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(folder, own))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests;
