//! A network of namespaces on this machine, gone when dropped.
//!
//! ```text
//! direct:    A va ───────────────── vb B
//! routed:    A va ── ra R rb ────── vb B
//!              │     │
//!              │     └ loss here when routed: B's capture does not see what was lost
//!              │       └ bottleneck │
//!              └ rate limit           └ loss here when direct: B's capture sees it, B's TCP does not
//! ```

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::tools;

/// Names of namespaces are `tcpprobe-test-PID-COUNT-x`: tests can run at the same time, and leftovers can be told.
const PREFIX: &str = "tcpprobe-test";
/// The nftables table and counter of dropped packets.
const TABLE: &str = "lab";
const COUNTER: &str = "dropped";
/// No command that builds the network takes longer, except on a machine in trouble.
const SETUP_LIMIT: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ns {
    /// The sender's end: its egress is rate-limited.
    A,
    /// The router between the two ends, where there is one.
    R,
    /// The receiver's end.
    B,
}

/// Which TCP packets from A to B are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None.
    None,
    /// Each with this chance in a thousand.
    PerMille(u32),
    /// Packet number `offset`, and every `every`-th from there, counted from 0: the same ones each time.
    Every {
        /// The distance from one lost packet to the next.
        every: u32,
        /// The first one lost.
        offset: u32,
    },
}

/// A link from the router to B that is too slow: what its queue has no room for is lost behind A's capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Its rate.
    pub rate_mbit: u32,
    /// Bytes that may wait.
    pub queue_bytes: u32,
}

/// What network to build.
#[derive(Clone, Copy, Debug)]
pub struct LabOptions {
    /// A token bucket at A's egress.
    pub rate_mbit: Option<u32>,
    /// How long a packet may wait in A's token bucket before packets are dropped there.
    pub queue: Duration,
    /// Loss from A to B, on ingress.
    pub loss: Loss,
    /// A router between A and B, so that losses happen before B's capture and not behind it.
    pub router: bool,
    /// Behind the router, if there is one.
    pub bottleneck: Option<Bottleneck>,
    /// TSO, GSO and GRO, on all interfaces.
    pub offloads: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            rate_mbit: None,
            queue: Duration::from_millis(60),
            loss: Loss::None,
            router: false,
            bottleneck: None,
            offloads: false,
        }
    }
}

/// Namespaces A and B with a path between them. Dropping it removes them; what runs inside must have ended before.
#[derive(Debug)]
pub struct Lab {
    name: String,
    router: bool,
    has_loss: bool,
    has_bottleneck: bool,
}

impl Lab {
    /// Builds the network.
    pub fn new(options: &LabOptions) -> Result<Self> {
        let name = format!("{PREFIX}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // From here on, an error drops the lab and with it whatever was made.
        let lab = Self {
            name,
            router: options.router,
            has_loss: options.loss != Loss::None,
            has_bottleneck: options.bottleneck.is_some(),
        };
        for end in lab.ends() {
            run("ip", ["netns", "add", &lab.netns(end)])?;
            run("ip", ["-n", &lab.netns(end), "link", "set", "lo", "up"])?;
        }
        if options.router {
            lab.connect("a", "va", "r", "ra", 1)?;
            lab.connect("r", "rb", "b", "vb", 2)?;
            lab.route()?;
        } else {
            lab.connect("a", "va", "b", "vb", 1)?;
        }
        lab.set_offloads(options.offloads)?;
        if let Some(rate_mbit) = options.rate_mbit {
            lab.limit_rate(rate_mbit, options.queue)?;
        }
        if let Some(bottleneck) = options.bottleneck {
            lab.narrow(bottleneck)?;
        }
        if let Some(rule) = loss_rule(options.loss) {
            lab.lose(&rule)?;
        }
        Ok(lab)
    }

    /// The name of a place's network namespace, as `ip netns` knows it.
    pub fn namespace(&self, ns: Ns) -> String {
        self.netns(end_of(ns))
    }

    /// The inode that identifies a place's network namespace.
    pub fn namespace_inode(&self, ns: Ns) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let path = Path::new("/run/netns").join(self.namespace(ns));
        Ok(std::fs::metadata(&path).with_context(|| path.display().to_string())?.ino())
    }

    /// An end's interface to the other one; the router's to A.
    pub fn interface(&self, ns: Ns) -> &'static str {
        match ns {
            Ns::A => "va",
            Ns::R => "ra",
            Ns::B => "vb",
        }
    }

    /// A place's IPv4 address.
    pub fn ipv4(&self, ns: Ns) -> IpAddr {
        let (net, host) = self.place(ns);
        Ipv4Addr::new(10, 77, net, host).into()
    }

    /// A place's IPv6 address.
    pub fn ipv6(&self, ns: Ns) -> IpAddr {
        let (net, host) = self.place(ns);
        Ipv6Addr::new(0xfd77, u16::from(net), 0, 0, 0, 0, 0, u16::from(host)).into()
    }

    /// A command that runs in a place's namespace. Its process is the program itself, so that signals reach it.
    pub fn command(&self, ns: Ns, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(ns)]).arg(program);
        // tests that were started with sudo make their folders as root: a recorder is to be root's too
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        command
    }

    /// How many packets the path has lost on purpose or for want of room, as nftables and the bottleneck counted them.
    pub fn dropped(&self) -> Result<u64> {
        Ok(self.dropped_by_rule()? + self.dropped_by_bottleneck()?)
    }

    fn dropped_by_bottleneck(&self) -> Result<u64> {
        if !self.has_bottleneck {
            return Ok(0);
        }
        let json = run("tc", ["-n", &self.netns("r"), "-s", "-j", "qdisc", "show", "dev", "rb", "root"])?;
        let json: serde_json::Value = serde_json::from_str(&json).context("the output of tc")?;
        json[0]["drops"].as_u64().context("tc shows no drops")
    }

    fn dropped_by_rule(&self) -> Result<u64> {
        if !self.has_loss {
            return Ok(0);
        }
        let netns = self.netns(self.lossy_end());
        let json = run("ip", ["netns", "exec", &netns, "nft", "-j", "list", "counter", "netdev", TABLE, COUNTER])?;
        let json: serde_json::Value = serde_json::from_str(&json).context("the output of nft")?;
        let counter = json["nftables"].as_array().into_iter().flatten().find_map(|item| item.get("counter"));
        counter.and_then(|counter| counter["packets"].as_u64()).context("nft shows no counter")
    }

    /// Has the router put its own address, and another port, in the place of A's.
    pub fn masquerade(&self) -> Result<()> {
        self.rules(
            "table ip nat {
                chain behind {
                    type nat hook postrouting priority 100;
                    meta l4proto tcp oifname rb masquerade to :61000-62000
                }
            }",
        )
    }

    /// Has the router answer the handshakes for B: its own sequence numbers and timestamps go to A in the place of B's.
    pub fn answer_handshakes(&self, port: u16) -> Result<()> {
        let netns = self.netns("r");
        // what no handshake of the router's own began is not taken for a connection
        let script =
            "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose; echo 1 > /proc/sys/net/ipv4/tcp_syncookies";
        self.rules(&format!(
            "table ip proxy {{
                chain before {{
                    type filter hook prerouting priority raw; policy accept;
                    tcp dport {port} tcp flags syn notrack
                }}
                chain through {{
                    type filter hook forward priority filter; policy accept;
                    tcp dport {port} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
                    tcp dport {port} ct state invalid drop
                }}
            }}"
        ))?;
        run("ip", ["netns", "exec", &netns, "sh", "-ec", script]).map(drop)
    }

    /// Has a host's own packet filter drop one in so many segments that it sends to a port, behind TCP and before any
    /// device.
    pub fn drop_own_output(&self, ns: Ns, port: u16, one_in: u32) -> Result<()> {
        let rules = format!(
            "table inet own {{
                chain out {{
                    type filter hook output priority filter; policy accept;
                    tcp dport {port} numgen inc mod {one_in} == 1 drop
                }}
            }}"
        );
        run("ip", ["netns", "exec", &self.namespace(ns), "nft", &rules]).map(drop)
    }

    fn rules(&self, rules: &str) -> Result<()> {
        run("ip", ["netns", "exec", &self.netns("r"), "nft", rules]).map(drop)
    }

    /// Turns segmentation and receive offloads on or off, on all interfaces.
    pub fn set_offloads(&self, on: bool) -> Result<()> {
        for (end, interface) in self.interfaces() {
            self.set_interface_offloads(end, interface, on)?;
        }
        Ok(())
    }

    /// Turns the offloads of one end's interface on or off.
    pub fn set_end_offloads(&self, ns: Ns, on: bool) -> Result<()> {
        self.set_interface_offloads(end_of(ns), self.interface(ns), on)
    }

    fn set_interface_offloads(&self, end: &str, interface: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let netns = self.netns(end);
        let features = ["tso", state, "gso", state, "gro", state];
        let arguments = ["netns", "exec", &netns, "ethtool", "-K", interface];
        run("ip", arguments.into_iter().chain(features)).map(drop)
    }

    fn ends(&self) -> Vec<&'static str> {
        if self.router { vec!["a", "r", "b"] } else { vec!["a", "b"] }
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let mut all = vec![("a", "va"), ("b", "vb")];
        if self.router {
            all.extend([("r", "ra"), ("r", "rb")]);
        }
        all
    }

    fn netns(&self, end: &str) -> String {
        format!("{}-{end}", self.name)
    }

    /// The net and the host number in an end's addresses.
    fn place(&self, ns: Ns) -> (u8, u8) {
        match ns {
            Ns::A => (1, 1),
            Ns::R => (1, 2),
            Ns::B if self.router => (2, 2),
            Ns::B => (1, 2),
        }
    }

    /// A veth pair with addresses. It is created inside the namespaces: no name is taken outside.
    fn connect(&self, left: &str, left_if: &str, right: &str, right_if: &str, net: u8) -> Result<()> {
        let (left_ns, right_ns) = (self.netns(left), self.netns(right));
        let left_args = ["link", "add", left_if, "netns", &left_ns, "type", "veth"];
        run("ip", left_args.into_iter().chain(["peer", "name", right_if, "netns", &right_ns]))?;
        for (netns, interface, host) in [(&left_ns, left_if, 1), (&right_ns, right_if, 2)] {
            // Without duplicate address detection the address is usable at once.
            let (v4, v6) = (format!("10.77.{net}.{host}/24"), format!("fd77:{net}::{host}/64"));
            run("ip", ["-n", netns, "addr", "add", &v4, "dev", interface])?;
            run("ip", ["-n", netns, "addr", "add", &v6, "dev", interface, "nodad"])?;
            run("ip", ["-n", netns, "link", "set", interface, "up"])?;
        }
        Ok(())
    }

    fn route(&self) -> Result<()> {
        let script = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        run("ip", ["netns", "exec", &self.netns("r"), "sh", "-ec", script])?;
        for (end, v4, v6) in [("a", "10.77.1.2", "fd77:1::2"), ("b", "10.77.2.1", "fd77:2::1")] {
            run("ip", ["-n", &self.netns(end), "route", "add", "default", "via", v4])?;
            run("ip", ["-n", &self.netns(end), "route", "add", "default", "via", v6])?;
        }
        Ok(())
    }

    fn limit_rate(&self, rate_mbit: u32, queue: Duration) -> Result<()> {
        let (rate, latency) = (format!("{rate_mbit}mbit"), format!("{}us", queue.as_micros()));
        // Large enough for what the rate sends between two ticks of a 100 Hz kernel.
        let burst = format!("{}", 16 * 1024 + u64::from(rate_mbit) * 1_000_000 / 8 / 100);
        let tbf = ["tbf", "rate", &rate, "burst", &burst, "latency", &latency];
        run("tc", ["-n", &self.netns("a"), "qdisc", "add", "dev", "va", "root"].into_iter().chain(tbf)).map(drop)
    }

    fn narrow(&self, Bottleneck { rate_mbit, queue_bytes }: Bottleneck) -> Result<()> {
        let (rate, limit) = (format!("{rate_mbit}mbit"), queue_bytes.to_string());
        let tbf = ["tbf", "rate", &rate, "burst", "16kb", "limit", &limit];
        run("tc", ["-n", &self.netns("r"), "qdisc", "add", "dev", "rb", "root"].into_iter().chain(tbf)).map(drop)
    }

    fn lossy_end(&self) -> &'static str {
        if self.router { "r" } else { "b" }
    }

    fn lose(&self, rule: &str) -> Result<()> {
        let device = if self.router { "ra" } else { "vb" };
        let rules = format!(
            "table netdev {TABLE} {{
                counter {COUNTER} {{ }}
                chain ingress {{
                    type filter hook ingress device {device} priority 0; policy accept;
                    meta l4proto tcp {rule} counter name {COUNTER} drop
                }}
            }}"
        );
        run("ip", ["netns", "exec", &self.netns(self.lossy_end()), "nft", &rules]).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for end in self.ends() {
            // The kernel removes the veth pair with its namespaces. One that was never made is no trouble.
            let _ = run("ip", ["netns", "del", &self.netns(end)]);
        }
    }
}

/// Removes the networks of test runs that were killed before they could do it themselves.
pub fn remove_leftovers() -> Result<()> {
    for line in run("ip", ["netns", "list"])?.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another run may be removing it at this moment.
            let _ = run("ip", ["netns", "del", name]);
        }
    }
    Ok(())
}

fn end_of(ns: Ns) -> &'static str {
    match ns {
        Ns::A => "a",
        Ns::R => "r",
        Ns::B => "b",
    }
}

fn loss_rule(loss: Loss) -> Option<String> {
    match loss {
        Loss::None => None,
        Loss::PerMille(chance) => Some(format!("numgen random mod 1000 < {chance}")),
        Loss::Every { every, offset } => Some(format!("numgen inc mod {every} == {offset}")),
    }
}

/// Runs a command to its end and returns what it printed; its own words are the error's.
fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let finished = tools::run(&mut command, SETUP_LIMIT)?;
    if !finished.status.success() {
        bail!("{command:?}: {}", finished.stderr.trim());
    }
    Ok(finished.stdout)
}
