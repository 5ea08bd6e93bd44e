//! Captures packets into a pcap file while a recording runs, through libpcap.
//!
//! Owns the capture device, its filter and its file. Must not know samples; what is captured here is read back by
//! [`crate::capture`] like any other capture.

mod file;

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::setsockopt;
use pcap::{Active, Capture, Linktype, Precision};

use crate::anonymize::{Anonymizer, Key};
use crate::packet::{LinkType, headers_bytes};

use file::PacketFile;

/// What to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interface, or `any`.
    pub interface: String,
    /// Path of the network namespace to capture in; `None`: the caller's.
    pub netns: Option<PathBuf>,
    /// Filter in the language of pcap-filter(7).
    pub filter: String,
    /// Bytes kept of each packet. `None`: the headers of TCP segments up to TCP's own, and of what is none, or has more of
    /// them, [`HEADERS_BYTES`].
    pub snaplen: Option<u32>,
    /// Bytes of the kernel's buffer.
    pub buffer_bytes: u32,
}

/// Why packets cannot be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is there already, or cannot be made.
    #[error("{path}: {cause}; name another file with --pcap, or capture no packets with --no-pcap", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The file takes no more.
    #[error("{path}: packets cannot be written: {cause}; the {packets} until then are in it", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Packets that it holds, all of them whole.
        packets: u64,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The namespace cannot be entered.
    #[error("{path}: cannot enter this network namespace: {cause}", path = path.display())]
    Namespace {
        /// The namespace.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// libpcap refuses.
    #[error("interface {interface}: {doing}: {cause}")]
    Pcap {
        /// The interface.
        interface: String,
        /// What was being done.
        doing: &'static str,
        /// libpcap's word.
        #[source]
        cause: pcap::Error,
    },
}

/// As many bytes as headers take: Ethernet with two VLAN tags (22), a VXLAN tunnel over IPv6 (40 + 8 + 8), Ethernet within it
/// (14), IPv6 (40), TCP with all options (60).
pub const HEADERS_BYTES: u32 = 192;

/// Packets of a capture that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Written to the file.
    pub packets: u64,
    /// Dropped by the kernel's buffer or by the interface.
    pub dropped: u64,
    /// Not written, for what would be left of them says whose they are.
    pub left_out: u64,
}

/// The kernel hands over a block of packets when it is full, or after this time.
const BLOCK_MS: i32 = 20;

/// An open device, which takes CAP_NET_RAW; what follows takes none.
pub struct Device {
    capture: Capture<Active>,
    interface: String,
    headers_only: bool,
}

/// An open capture.
pub struct LiveCapture {
    capture: Capture<Active>,
    file: PacketFile,
    path: PathBuf,
    interface: String,
    anonymizer: Option<Anonymizer>,
    headers_only: bool,
    left_out: u64,
}

/// The capture filter that lets through what the sampler's filter lets through: TCP, any of the ports, any of the
/// hosts. (libpcap knows no sockets: marks cannot be expressed.)
///
/// `tcp` and `port` look for TCP right behind the fixed IPv6 header, and the kernel puts a hop-by-hop header before
/// IPv6 super-packets above 64 KiB (BIG TCP): those pass whatever their ports, and the join sorts them out.
pub fn filter<'a>(ports: &[u16], hosts: impl Iterator<Item = (IpAddr, u8)> + 'a) -> String {
    let any_of = |terms: Vec<String>| (!terms.is_empty()).then(|| format!("({})", terms.join(" or ")));
    let ports = any_of(ports.iter().map(|p| format!("port {p}")).collect());
    let hosts = any_of(hosts.map(|(address, bits)| format!("net {address}/{bits}")).collect());
    let tcp: Vec<String> = ["tcp".to_owned()].into_iter().chain(ports).collect();
    let tcp = format!("({} or (ip6[6] = 0 and ip6[40] = 6))", tcp.join(" and "));
    [tcp].into_iter().chain(hosts).collect::<Vec<_>>().join(" and ")
}

impl Device {
    /// Opens a device. From here on the kernel buffers packets.
    ///
    /// # Errors
    /// The namespace cannot be entered, or libpcap refuses.
    pub fn open(options: &Options) -> Result<Device, Error> {
        let Some(path) = &options.netns else { return open_here(options) };
        let cannot_enter = |cause| Error::Namespace { path: path.clone(), cause };
        // a thread that has moved into another namespace does not come back
        let opened = std::thread::scope(|scope| {
            let inside = std::thread::Builder::new().spawn_scoped(scope, || {
                let entered = File::open(path).and_then(|ns| Ok(setns(ns, CloneFlags::CLONE_NEWNET)?));
                entered.map_err(cannot_enter).and_then(|()| open_here(options))
            });
            inside.map(|thread| thread.join())
        });
        match opened {
            Ok(Ok(device)) => device,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(cause) => Err(cannot_enter(cause)),
        }
    }

    /// Makes the file, readable by its owner alone; [`LiveCapture::run`] writes what comes.
    ///
    /// # Errors
    /// Something of that name is there already, a symbolic link as well, or the file cannot be made. Where it was made,
    /// it is taken away again.
    pub fn into_file(self, path: &Path) -> Result<LiveCapture, Error> {
        let Device { capture, interface, headers_only } = self;
        let err = |doing| {
            let interface = interface.clone();
            move |cause| Error::Pcap { interface, doing, cause }
        };
        // a blocking read waits for a packet however long that takes, and would not see the end of the recording
        let capture = capture.setnonblock().map_err(err("cannot read without waiting"))?;
        let made = reserve(path)?;
        // the very file that was made, whatever has come to stand at its name
        let header = capture.savefile(format!("/proc/self/fd/{}", made.as_raw_fd()));
        // libpcap knows how the file calls a link type
        let header = header.and_then(|mut header| header.flush()).map_err(err("cannot write the capture file"));
        let file = header.and_then(|()| {
            PacketFile::behind_header(made).map_err(|cause| Error::File { path: path.to_owned(), cause })
        });
        let file = file.inspect_err(|_| {
            // empty, and made by this very call
            let _ = std::fs::remove_file(path);
        })?;
        let path = path.to_owned();
        Ok(LiveCapture { capture, file, path, interface, anonymizer: None, headers_only, left_out: 0 })
    }
}

fn open_here(options: &Options) -> Result<Device, Error> {
    let mut capture = device(&options.interface, options.snaplen.unwrap_or(HEADERS_BYTES), options.buffer_bytes)?;
    if options.interface == "any" {
        // the newer cooked header names the interface; without it the older one still has the packets
        let _ = capture.set_datalink(Linktype::LINUX_SLL2);
    }
    capture.filter(&options.filter, true).map_err(|cause| Error::Pcap {
        interface: options.interface.clone(),
        doing: "cannot set the filter",
        cause,
    })?;
    if is_loopback(&options.interface) {
        // libpcap leaves out what goes out there, for it comes in again: so it need not be copied. Refused, it is.
        let _ = setsockopt(&capture.as_fd(), IgnoreOutgoing, &true);
    }
    Ok(Device { capture, interface: options.interface.clone(), headers_only: options.snaplen.is_none() })
}

impl LiveCapture {
    /// Writes packets with rewritten addresses and without payload; see [`Anonymizer::frame`].
    pub fn anonymize(self, key: Key) -> LiveCapture {
        LiveCapture { anonymizer: Some(Anonymizer::new(key)), ..self }
    }

    /// Writes packets until `stop` is set and the kernel's buffer is empty. `written` says how many, meanwhile.
    ///
    /// # Errors
    /// The interface is gone, or the file takes no more. The packets until then are in the file, and none is torn.
    pub fn run(mut self, stop: &AtomicBool, written: &AtomicU64) -> Result<Stats, Error> {
        let captured = self.capture_until(stop, written);
        let flushed = self.flush();
        // the first thing that went wrong is the cause of the other
        captured.and(flushed)?;
        let mut stats = Stats { packets: self.file.packets(), dropped: 0, left_out: self.left_out };
        if let Ok(s) = self.capture.stats() {
            stats.dropped = u64::from(s.dropped) + u64::from(s.if_dropped);
        }
        Ok(stats)
    }

    fn capture_until(&mut self, stop: &AtomicBool, written: &AtomicU64) -> Result<(), Error> {
        let mut flushed = Instant::now();
        let mut last_block: Option<Instant> = None;
        loop {
            if last_block.is_none() && stop.load(Ordering::Acquire) {
                last_block = Some(Instant::now() + Duration::from_millis(3 * BLOCK_MS as u64));
            }
            let idle = self.write_waiting()?;
            written.store(self.file.added(), Ordering::Relaxed);
            if idle && last_block.is_some_and(|at| Instant::now() >= at) {
                return Ok(());
            }
            if flushed.elapsed() > Duration::from_secs(1) {
                self.flush()?;
                flushed = Instant::now();
            }
            if idle {
                let mut fds = [PollFd::new(self.capture.as_fd(), PollFlags::POLLIN)];
                // an interrupted wait, or one that fails, is a short one
                let _ = poll(&mut fds, PollTimeout::from(BLOCK_MS as u8));
            }
        }
    }

    /// Writes what is waiting, up to a bound; says whether there was nothing.
    fn write_waiting(&mut self) -> Result<bool, Error> {
        let link = u32::try_from(self.capture.get_datalink().0).map_or(LinkType(u32::MAX), LinkType);
        let mut rewritten = Vec::new();
        for taken in 0..4096 {
            match self.capture.next_packet() {
                Ok(packet) => {
                    let kept = match &mut self.anonymizer {
                        None if self.headers_only => {
                            let bytes = headers_bytes(link, packet.data, packet.header.len);
                            bytes.and_then(|bytes| packet.data.get(..bytes)).unwrap_or(packet.data)
                        }
                        None => packet.data,
                        Some(anonymizer) => {
                            if !anonymizer.frame(link, packet.data, &mut rewritten) {
                                self.left_out += 1;
                                continue;
                            }
                            &rewritten
                        }
                    };
                    let added = self.file.add(packet.header, kept);
                    added.map_err(|cause| Error::Write {
                        path: self.path.clone(),
                        packets: self.file.packets(),
                        cause,
                    })?;
                }
                Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => return Ok(taken == 0),
                Err(cause) => {
                    let interface = self.interface.clone();
                    return Err(Error::Pcap { interface, doing: "the capture broke off", cause });
                }
            }
        }
        Ok(false)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.file.flush();
        flushed.map_err(|cause| Error::Write { path: self.path.clone(), packets: self.file.packets(), cause })
    }
}

/// An open capture device, its buffer filling.
fn device(interface: &str, snaplen: u32, buffer_bytes: u32) -> Result<Capture<Active>, Error> {
    let err = |doing| move |cause| Error::Pcap { interface: interface.to_owned(), doing, cause };
    Capture::from_device(interface)
        .map_err(err("cannot open"))?
        .snaplen(i32::try_from(snaplen).unwrap_or(i32::MAX))
        .buffer_size(i32::try_from(buffer_bytes).unwrap_or(i32::MAX))
        .timeout(BLOCK_MS)
        .precision(Precision::Nano)
        .open()
        .map_err(err("cannot capture (it needs CAP_NET_RAW)"))
}

/// Leaves out what is sent (`PACKET_IGNORE_OUTGOING`, since Linux 4.20).
#[derive(Clone, Copy, Debug)]
struct IgnoreOutgoing;

nix::setsockopt_impl!(
    IgnoreOutgoing,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    bool,
    nix::sys::socket::sockopt::SetBool
);

/// Is this a loopback interface of the calling thread's network namespace?
fn is_loopback(interface: &str) -> bool {
    let is_it = |a: &nix::ifaddrs::InterfaceAddress| a.interface_name == interface;
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter(is_it).any(|a| a.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK))
}

/// Whether packets can be captured on this interface: opens the device as a recording does, and closes it again.
pub fn try_device(interface: &str, buffer_bytes: u32) -> Result<(), Error> {
    device(interface, HEADERS_BYTES, buffer_bytes).map(drop)
}

/// Version of the libpcap that is in use, by its file's name: `1.10.3`. `None` where it was linked statically, or the
/// file is named by its interface alone (`libpcap.so.0.8`, `libpcap.so.1`).
pub fn libpcap_version() -> Option<String> {
    // the pcap crate does not bind pcap_lib_version(3pcap)
    version_in(&std::fs::read_to_string("/proc/self/maps").ok()?)
}

fn version_in(maps: &str) -> Option<String> {
    let mut versions = maps.lines().filter_map(|l| Some(l.rsplit_once("/libpcap.so.")?.1.trim()));
    versions.find(|v| v.split('.').count() == 3).map(str::to_owned)
}

/// Makes the file, so that one that is there is never written over: libpcap would.
fn reserve(path: &Path) -> Result<File, Error> {
    // what is captured is the business of whoever captures; with O_EXCL a link is something that is there
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|cause| Error::File { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests;
