//! Obstacles and their ways out, in words.

use tcpprobe_probes::{Obstacle, check};

/// What is wrong, and what to do about it.
pub(super) struct Advice {
    pub(super) obstacle: &'static str,
    pub(super) problem: String,
    pub(super) remedy: String,
}

const KERNEL: &str = "install a kernel of Linux 5.10 or newer";

pub(super) fn advice(obstacle: &Obstacle, binary: &str) -> Advice {
    let setcap = |capabilities: &str| format!("sudo setcap {capabilities}+ep {binary}");
    let (obstacle, problem, remedy) = match obstacle {
        Obstacle::OldKernel => ("old_kernel", "this kernel is older than Linux 5.10".into(), KERNEL.into()),
        Obstacle::NoBtf => (
            "no_btf",
            format!("this kernel does not describe its types: there is no {}", check::BTF_PATH),
            "boot a kernel that was built with CONFIG_DEBUG_INFO_BTF=y, as those of the distributions are".into(),
        ),
        Obstacle::Lockdown => (
            "lockdown",
            "kernel lockdown (confidentiality) forbids BPF to read kernel memory".into(),
            "boot with lockdown=integrity or lockdown=none on the kernel's command line".into(),
        ),
        Obstacle::MissingCapabilities(missing) => (
            "missing_capabilities",
            format!("this user lacks {}", missing.join(" and ")),
            format!("run it as root, or once: {}", setcap("cap_bpf,cap_perfmon,cap_net_raw")),
        ),
        Obstacle::UserNamespace => (
            "user_namespace",
            "the capabilities of this process count in a user namespace only, not for BPF".into(),
            "run it as root outside of the container or namespace".into(),
        ),
        Obstacle::Memlock(limit_bytes) => (
            "memlock",
            format!("the limit of locked memory, {limit_bytes} bytes, holds no ring buffer before Linux 5.11"),
            format!(
                "as root: ulimit -l unlimited; or once: {}",
                setcap("cap_bpf,cap_perfmon,cap_net_raw,cap_sys_resource")
            ),
        ),
        Obstacle::NoRingBuffer => ("no_ring_buffer", "this kernel has no BPF ring buffer".into(), KERNEL.into()),
        Obstacle::Load(why) => (
            "load",
            why.clone(),
            "run it as root outside of containers; if it is so there too, the kernel is not supported".into(),
        ),
        Obstacle::Point(point) => (
            "point",
            format!("{} cannot be watched: the reasons are above", point.name()),
            "boot a kernel that has one of the ways above".into(),
        ),
    };
    Advice { obstacle, problem, remedy }
}
