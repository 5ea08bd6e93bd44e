//! Which sockets are sampled: from arguments to the sampler's filter, and to words.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ipnet::IpNet;
use tcpprobe_probes::{Backend, Filter};

use crate::args::{BackendArg, SocketArgs};

/// Sockets that can be followed at once; each takes about 150 bytes of kernel memory, reserved at the start.
pub(crate) const MAX_FLOWS: u32 = 65_536;

/// What the sampler looks at, and the path of the namespace that was named.
pub(crate) fn filter(args: &SocketArgs) -> anyhow::Result<(Filter, Option<PathBuf>)> {
    let netns = args.netns.as_deref().map(namespace).transpose()?;
    let inode = netns.as_ref().map(|(_, inode)| *inode);
    let filter = Filter { ports: args.ports.clone(), hosts: args.hosts.clone(), mark: args.mark, netns: inode };
    Ok((filter, netns.map(|(path, _)| path)))
}

/// The way to attach that is forced; `None`: whichever works.
pub(crate) fn backend(arg: BackendArg) -> Option<Backend> {
    match arg {
        BackendArg::Auto => None,
        BackendArg::Fentry => Some(Backend::Fentry),
        BackendArg::Kprobe => Some(Backend::Kprobe),
        BackendArg::Tracepoint => Some(Backend::Tracepoint),
    }
}

/// A namespace's path and inode number, from a name of `ip netns`, a path, or `current`.
fn namespace(name: &str) -> anyhow::Result<(PathBuf, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let path = match name {
        "current" => PathBuf::from("/proc/self/ns/net"),
        path if path.contains('/') => PathBuf::from(path),
        name => Path::new("/run/netns").join(name),
    };
    let inode = std::fs::metadata(&path)
        .with_context(|| format!("{}: cannot find this network namespace (`ip netns` lists them)", path.display()))?
        .ino();
    let inode = u32::try_from(inode).with_context(|| format!("{} is no namespace", path.display()))?;
    Ok((path, inode))
}

/// In words, without those that name hosts or namespaces.
pub(crate) fn describe_without_names(args: &SocketArgs) -> String {
    let rest = SocketArgs { ports: args.ports.clone(), hosts: Vec::new(), mark: args.mark, netns: None };
    let left_out = !args.hosts.is_empty() || args.netns.is_some();
    describe(&rest) + if left_out { ", names left out" } else { "" }
}

/// In words.
pub(crate) fn describe(args: &SocketArgs) -> String {
    let list = |what: &str, items: Vec<String>| (!items.is_empty()).then(|| format!("{what} {}", items.join(" or ")));
    let parts: Vec<String> = [
        list("port", args.ports.iter().map(u16::to_string).collect()),
        list("host", args.hosts.iter().map(IpNet::to_string).collect()),
        args.mark.map(|m| format!("mark {m}")),
        args.netns.as_ref().map(|n| format!("netns {n}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "all TCP".into() } else { parts.join(", ") }
}
