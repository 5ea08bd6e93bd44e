//! Loads and attaches the programs, drains their ring, and gives an account of what it missed and what it cost.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program as Loaded, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tcpprobe_trace::sample::LossCause;

use crate::check::{self, Facts};
use crate::clock::{self, ClockSet};
use crate::context;
use crate::decode::flow_of;
use crate::filter::{Filter, FilterError};
use crate::internals::{self, CountedMask, Layouts, Words};
use crate::lanes::{self, LANES_OF_A_CPU, Lanes};
use crate::merge::Merge;
use crate::missed::{missed_probes, missed_runs};
use crate::plan::{Backend, How, Point, Program, WAYS, Way};
use crate::records::{Decoder, Records};
use crate::refusal::{Answer, causes, in_short, plain};

/// The compiled programs; aligned, for the ELF parser reads it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sampler.bpf.o"));

/// The same without what kernels before 5.12 do not know.
static OLD_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sampler-5.10.bpf.o"));

/// What to sample and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which sockets.
    pub filter: Filter,
    /// Only one backend; `None` takes the best that each point has.
    pub backend: Option<Backend>,
    /// Size of the ring buffer in bytes; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Only samples at which the socket's cwnd, ssthresh or ca_state has changed.
    pub sparse: bool,
    /// How many sockets can be followed at once.
    pub max_flows: u32,
}

/// Why sampling cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filter is too long.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The kernel describes its types to no one.
    #[error("this kernel has no BTF ({0}); it needs CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(String),
    /// The kernel refuses BPF to this user.
    #[error(
        "no permission to load BPF programs: recording needs CAP_BPF and CAP_PERFMON (missing: {missing}); run as root, or grant them with `setcap cap_bpf,cap_perfmon,cap_net_raw+ep` on the binary"
    )]
    NoPermission {
        /// The capabilities that this process lacks.
        missing: String,
    },
    /// The capabilities are there, but not in the kernel's own user namespace.
    #[error(
        "no permission to load BPF programs: the capabilities of this process count in a user namespace only; run as root outside of the container or namespace"
    )]
    UserNamespace,
    /// Before Linux 5.11, maps count as locked memory.
    #[error(
        "no room for the ring buffer: the limit of locked memory is {limit_bytes} bytes; run `ulimit -l unlimited` as root before, choose a smaller --buffer, or add cap_sys_resource to the binary's capabilities"
    )]
    Memlock {
        /// RLIMIT_MEMLOCK, in bytes.
        limit_bytes: u64,
    },
    /// Something else than capabilities forbids it.
    #[error(
        "loading BPF programs is forbidden, though this user has the capabilities ({0}): a container's seccomp filter or a security module may do that; run outside of the container"
    )]
    Forbidden(String),
    /// The object itself does not load.
    #[error("cannot prepare the BPF programs: {0}")]
    Load(String),
    /// No way to see something that a recording needs.
    #[error("{backend}cannot watch {point}: {causes}; `tcpprobe check` shows what can be watched, and what to do")]
    Missing {
        /// The forced backend, with a colon, or nothing.
        backend: String,
        /// What cannot be watched.
        point: &'static str,
        /// Each way that was tried, and what the kernel said.
        causes: String,
    },
    /// Nothing would tell that the wall clock is set.
    #[error("cannot watch the wall clock: {0}")]
    Clock(String),
    /// The ring cannot be read.
    #[error("cannot read the ring buffer: {0}")]
    Ring(String),
}

/// A point, and how it is watched.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The point.
    pub point: Point,
    /// The backend that serves it.
    pub backend: Option<Backend>,
    /// Its programs, as `how/target`; empty where an optional point is not watched.
    pub programs: Vec<String>,
    /// What was tried before, and why it failed.
    pub refused: Vec<String>,
}

/// The kernel's clocks on two processors may differ by a few ns (`ktime_get_mono_fast_ns`).
const CLOCKS_APART_NS: u64 = 1_000;
/// Programs that may be at work on one processor at once, one interrupted by another, or by another task: a few.
const AT_WORK_ON_A_CPU: usize = 64;
/// How often the ring is looked at again for what a processor is just writing.
const EMPTYING_ATTEMPTS: u32 = 64;

/// `struct counters` of the BPF programs.
type Counters = [u64; 7];

/// What the sampler missed since it started, by cause, counted in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Samples for which the ring had no room.
    pub ring_full: u64,
    /// Samples, and segments of sockets not yet in the flow table, for which there was room, but no lock.
    pub lock_refused: u64,
    /// Segments of sockets for which the flow table had no room.
    pub flow_table_full: u64,
    /// Segments that left with an unreadable header.
    pub header_unreadable: u64,
    /// Records that could not be understood; the [`Decoder`] counts them.
    pub bad_records: u64,
    /// Times that TCP had sent something which no probe was shown.
    pub not_shown: u64,
    /// Received segments whose processing was not seen to end, and so have no `after` sample.
    pub return_missed: u64,
    /// kprobes, of any socket, that did not run because another one was running on their processor; 0 before Linux 6.7,
    /// which does not tell.
    pub probe_missed: u64,
    /// Programs, of any socket, that did not run because one was running on their processor; 0 before Linux 5.12.
    pub recursion: u64,
}

impl Losses {
    /// Each cause with its count.
    pub fn by_cause(&self) -> [(LossCause, u64); 9] {
        [
            (LossCause::RingFull, self.ring_full),
            (LossCause::LockRefused, self.lock_refused),
            (LossCause::FlowTableFull, self.flow_table_full),
            (LossCause::HeaderUnreadable, self.header_unreadable),
            (LossCause::BadRecord, self.bad_records),
            (LossCause::NotShown, self.not_shown),
            (LossCause::ReturnMissed, self.return_missed),
            (LossCause::ProbeMissed, self.probe_missed),
            (LossCause::Recursion, self.recursion),
        ]
    }

    /// Adds what one processor has counted.
    fn add(&mut self, counted: Counters) {
        let [ring_full, lock_refused, flow_table_full, header_unreadable, not_shown, return_missed, _unread_bytes] =
            counted;
        self.ring_full += ring_full;
        self.lock_refused += lock_refused;
        self.flow_table_full += flow_table_full;
        self.header_unreadable += header_unreadable;
        self.not_shown += not_shown;
        self.return_missed += return_missed;
    }
}

/// Runs that did not take place, by the kernel's account.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    /// Of kprobes, for another one.
    probes: u64,
    /// Of programs, for themselves.
    runs: u64,
}

/// What a program cost, by the kernel's account.
#[derive(Clone, Debug)]
pub struct Cost {
    /// `how/target`.
    pub program: String,
    /// Times it ran while that was measured.
    pub runs: u64,
    /// Time that these took in all.
    pub time: Duration,
    /// Times that it could not run because it, or another of its kind, was running on the same processor.
    pub missed: u64,
}

/// Attached programs and their ring. Dropping it detaches them.
pub struct Sampler {
    // declared first, dropped first: programs go before the maps that they use
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    /// None where all records go through the ring.
    lanes: Option<Lanes>,
    merge: Merge,
    /// Not all of what the last look has found is handed on.
    merging: bool,
    clock_set: ClockSet,
    losses: PerCpuArray<MapData, Counters>,
    masks: Array<MapData, CountedMask>,
    layouts: Layouts,
    attached: Vec<Attached>,
    running: Vec<Program>,
    tick_ns: u64,
    /// What the detached programs missed.
    missed: Missed,
    /// The kernel counts the programs' time while this is open.
    stats: Option<OwnedFd>,
}

impl Sampler {
    /// Loads and attaches everything that `options` ask for. Samples flow into the ring from here on.
    pub fn start(options: &Options) -> Result<Sampler, Error> {
        let btf = Btf::from_sys_fs().map_err(|e| Error::NoBtf(e.to_string()))?;
        let mut ebpf = load_object(options, &btf)?;
        let ring = take_map(&mut ebpf, "events")?;
        let lanes = map_lanes(&ebpf, options)?;
        let clock_set = ClockSet::watch().map_err(|e| Error::Clock(e.to_string()))?;
        let losses = take_map(&mut ebpf, "losses")?;
        let masks = take_map(&mut ebpf, "internals_masks")?;
        let tick_ns = tick_ns();
        let mut sampler = Sampler {
            ring,
            lanes,
            merge: Merge::new(online_cpus() * AT_WORK_ON_A_CPU),
            merging: false,
            clock_set,
            losses,
            masks,
            layouts: Layouts::find(tick_ns),
            ebpf,
            attached: Vec::new(),
            running: Vec::new(),
            tick_ns,
            missed: Missed::default(),
            // without it the recording is the same, only its cost is not told
            stats: aya::sys::enable_stats(aya::sys::Stats::RunTime).ok(),
        };
        let masks: Vec<Words> = sampler.layouts.masks().collect();
        for (at, mask) in masks.into_iter().enumerate() {
            set_mask(&mut sampler.masks, at, mask);
        }
        for point in Point::ALL {
            let attached = sampler.attach_point(point, options.backend, &btf)?;
            sampler.attached.push(attached);
        }
        Ok(sampler)
    }

    /// How each point is watched.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The backends in use, in words: `fentry`, or `fentry+tracepoint` where points differ.
    pub fn backend(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for name in self.attached.iter().filter(|a| !a.programs.is_empty()).filter_map(|a| a.backend).map(Backend::name)
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join("+")
    }

    /// Waits until the programs wake the reader, at most `timeout`; returns at once if a signal comes, or the wall clock
    /// is set.
    pub fn wait(&self, timeout: Duration) -> Result<(), Error> {
        let mut fds = [self.ring.as_fd(), self.clock_set.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => {
                self.clock_set.clear();
                Ok(())
            }
            Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(Error::Ring(e.to_string())),
        }
    }

    /// Takes what the programs have written, until there are `max_bytes` of records; returns whether there may be more.
    ///
    /// Nothing is decoded on the way, but for flows: the programs may have to be told what to read of them.
    pub fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
        let Sampler { ring, lanes, merge, merging, layouts, masks, .. } = self;
        let mut seen = |record: &[u8]| {
            let Some((flow, owner)) = flow_of(record) else { return };
            if let Some((at, mask)) = flow.congestion.as_deref().and_then(|name| layouts.learn(name, &owner)) {
                set_mask(masks, at, mask);
            }
        };
        let Some(lanes) = lanes else {
            while records.as_bytes().len() < max_bytes {
                let Some(record) = ring.next() else { return false };
                records.push(&record);
                seen(&record);
            }
            return true;
        };
        if !*merging {
            look_through(ring, lanes, merge, self.running.is_empty());
        }
        *merging = merge.hand_on(lanes, max_bytes, records, seen);
        lanes.give_back();
        *merging
    }

    /// A decoder for the records that this sampler takes from the ring: all of them, from the first on.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.layouts.clone(), self.tick_ns)
    }

    /// What another process must know to decode these records: for [`Decoder::from_context`].
    pub fn context(&self) -> Vec<u8> {
        context::keep(&self.layouts, self.tick_ns)
    }

    /// Detaches the programs; what is in the ring can still be drained.
    pub fn stop(&mut self) -> Vec<Cost> {
        let costs = self.costs();
        self.missed = self.missed();
        for program in std::mem::take(&mut self.running) {
            if let Some(p) = self.ebpf.program_mut(program.name) {
                // an error here means that it is not attached, which is what is wanted
                let _ = unload(p);
            }
        }
        costs
    }

    /// From here on the kernel does not measure what the programs cost: that itself takes a tenth of their time. To begin
    /// anew would take CAP_SYS_ADMIN.
    pub fn end_measuring(&mut self) {
        self.stats = None;
    }

    /// Can the kernel's counts be read, as they will have to be at the end? Before Linux 5.19 it may take CAP_BPF.
    pub fn is_readable(&self) -> bool {
        self.losses.get(&0, 0).is_ok()
    }

    /// What the programs have cost so far; empty where the kernel does not count it.
    pub fn costs(&self) -> Vec<Cost> {
        let loaded = self.running.iter().filter_map(|p| Some((p, self.ebpf.program(p.name)?)));
        let infos = loaded.filter_map(|(p, loaded)| Some((p, loaded.info().ok()?, loaded.fd().ok()?)));
        infos
            .map(|(p, info, fd)| Cost {
                program: describe(p),
                runs: info.run_count(),
                time: info.run_time(),
                missed: missed_runs(fd.as_fd()),
            })
            .filter(|c| c.runs + c.missed > 0)
            .collect()
    }

    /// What was missed so far.
    pub fn losses(&self) -> Losses {
        let missed = if self.running.is_empty() { self.missed } else { self.missed() };
        let mut sum = Losses { probe_missed: missed.probes, recursion: missed.runs, ..Losses::default() };
        if let Ok(per_cpu) = self.losses.get(&0, 0) {
            per_cpu.iter().for_each(|counted| sum.add(*counted));
        }
        sum
    }

    /// What the attached programs have missed so far, by the kernel's account.
    fn missed(&self) -> Missed {
        let mut sum = Missed::default();
        for (program, loaded) in self.running.iter().filter_map(|p| Some((p, self.ebpf.program(p.name)?))) {
            // by the descriptor that is open: to open it anew by its number takes CAP_SYS_ADMIN
            let (Ok(info), Ok(fd)) = (loaded.info(), loaded.fd()) else { continue };
            sum.runs += missed_runs(fd.as_fd());
            // the returns that were missed are counted by the programs themselves, for recorded sockets alone
            if program.how == How::Kprobe {
                sum.probes += missed_probes(info.id()).unwrap_or(0);
            }
        }
        sum
    }

    fn attach_point(&mut self, point: Point, forced: Option<Backend>, btf: &Btf) -> Result<Attached, Error> {
        let mut refused = Vec::new();
        let fits =
            |way: &&Way| way.point == point && (forced.is_none() || way.backend.is_none() || way.backend == forced);
        for way in WAYS.iter().filter(fits) {
            match self.attach_way(way, btf) {
                Ok(()) => {
                    let programs = way.programs.iter().map(describe).collect();
                    return Ok(Attached { point, backend: way.backend, programs, refused });
                }
                Err(cause) => refused.push(cause),
            }
        }
        // a function may be inlined on this kernel; a forced backend still has its tracepoint for what leaves
        if point.is_optional() {
            return Ok(Attached { point, backend: None, programs: Vec::new(), refused });
        }
        Err(Error::Missing {
            backend: forced.map(|b| format!("backend {}: ", b.name())).unwrap_or_default(),
            point: point.name(),
            causes: refused.join("; "),
        })
    }

    fn attach_way(&mut self, way: &Way, btf: &Btf) -> Result<(), String> {
        let before = self.running.len();
        for program in way.programs {
            let result = match self.ebpf.program_mut(program.name) {
                Some(loaded) => attach(loaded, program, btf),
                None => Err("not in the object".to_owned()),
            };
            if let Err(cause) = result {
                for undone in self.running.split_off(before) {
                    if let Some(p) = self.ebpf.program_mut(undone.name) {
                        let _ = unload(p);
                    }
                }
                return Err(format!("{}: {cause}", describe(program)));
            }
            self.running.push(*program);
        }
        Ok(())
    }
}

/// Finds out what there is in the ring and in the lanes, up to now; where the programs are `detached`, for good.
fn look_through(ring: &mut RingBuf<MapData>, lanes: &mut Lanes, merge: &mut Merge, detached: bool) {
    // of a program that is at work now the record may show later, with a time from before: its flow has no later one
    let horizon_ns = if detached { u64::MAX } else { clock::monotonic_ns().saturating_sub(CLOCKS_APART_NS) };
    merge.before_look(horizon_ns);
    lanes.look();
    let is_all = (0..EMPTYING_ATTEMPTS).any(|_| empty(ring, merge));
    merge.begin(lanes, is_all || detached);
}

/// Empties the ring as far as this look needs; returns whether that was possible.
fn empty(ring: &mut RingBuf<MapData>, merge: &mut Merge) -> bool {
    while let Some(record) = ring.next() {
        if merge.hold(&record) {
            return true;
        }
    }
    // a record that is being written hides those behind it
    let mut fds = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
    let is_empty = poll(&mut fds, PollTimeout::ZERO) == Ok(0);
    if !is_empty {
        std::thread::yield_now();
    }
    is_empty
}

/// Without its mask nothing is said of a congestion control's inside, and nothing else changes.
fn set_mask(masks: &mut Array<MapData, CountedMask>, at: usize, mask: Words) {
    let _ = u32::try_from(at).map(|at| masks.set(at, internals::counted(mask), 0));
}

/// One more than the highest number of a processor that is online: one that comes later uses the ring.
fn online_cpus() -> usize {
    aya::util::online_cpus().ok().and_then(|cpus| cpus.into_iter().max()).map_or(1, |last| last as usize + 1)
}

/// How many lanes there are, and how many records each has room for.
fn lane_sizes(options: &Options) -> (u32, u32) {
    let cpus = online_cpus();
    // a lane has one writer: since 6.1 the kernel runs no program of a tracepoint twice at once on a processor ("bpf:
    // Prevent bpf program recursion for raw tracepoint probes"), of a function since 5.12
    let slots = if check::kernel_at_least(6, 1) { lanes::slots(options.ring_bytes, cpus) } else { 0 };
    // a map has no room for nothing
    let lanes = if slots == 0 { 1 } else { cpus as u32 * LANES_OF_A_CPU };
    (lanes, slots)
}

fn map_lanes(ebpf: &Ebpf, options: &Options) -> Result<Option<Lanes>, Error> {
    let (lanes, slots) = lane_sizes(options);
    let (Some(Map::Array(heads)), Some(Map::Array(records))) = (ebpf.map("lanes"), ebpf.map("lane_slots")) else {
        return Err(Error::Load("no lanes".into()));
    };
    if slots == 0 {
        return Ok(None);
    }
    let mapped = Lanes::map(heads.fd(), records.fd(), lanes as usize, slots);
    mapped.map(Some).map_err(|e| Error::Ring(format!("its lanes cannot be mapped: {e}")))
}

pub(crate) fn describe(program: &Program) -> String {
    format!("{}/{}", program.how.name(), program.target)
}

pub(crate) fn attach(loaded: &mut Loaded, program: &Program, btf: &Btf) -> Result<(), String> {
    let result = match (loaded, program.how) {
        (Loaded::BtfTracePoint(p), How::TpBtf) => p.load(program.target, btf).and_then(|()| p.attach().map(drop)),
        (Loaded::RawTracePoint(p), How::RawTp) => p.load().and_then(|()| p.attach(program.target).map(drop)),
        (Loaded::FEntry(p), How::Fentry) => p.load(program.target, btf).and_then(|()| p.attach().map(drop)),
        (Loaded::FExit(p), How::Fexit) => p.load(program.target, btf).and_then(|()| p.attach().map(drop)),
        (Loaded::KProbe(p), How::Kprobe | How::Kretprobe) => {
            p.load().and_then(|()| p.attach(program.target, 0).map(drop))
        }
        _ => return Err("not a program of this kind".to_owned()),
    };
    result.map_err(|e| plain(program, &Answer::of(&e), &Facts::gather()))
}

pub(crate) fn unload(loaded: &mut Loaded) -> Result<(), ProgramError> {
    match loaded {
        Loaded::BtfTracePoint(p) => p.unload(),
        Loaded::RawTracePoint(p) => p.unload(),
        Loaded::FEntry(p) => p.unload(),
        Loaded::FExit(p) => p.unload(),
        Loaded::KProbe(p) => p.unload(),
        _ => Ok(()),
    }
}

pub(crate) fn load_object(options: &Options, btf: &Btf) -> Result<Ebpf, Error> {
    check::raise_memlock();
    let filter = &options.filter;
    let (ports, hosts) = (filter.port_setting()?, filter.host_setting()?);
    let port_count = filter.ports.len() as u32;
    let host_count = filter.hosts.len() as u32;
    let has_mark = u32::from(filter.mark.is_some());
    let mark = filter.mark.unwrap_or(0);
    let netns = filter.netns.unwrap_or(0);
    let sparse = u32::from(options.sparse);
    let congestions = internals::names();
    let since_5_12 = check::kernel_at_least(5, 12);
    let cookie_helper = u32::from(since_5_12);
    let ring_bytes = options.ring_bytes.next_power_of_two().max(64 * 1024);
    let wake_bytes = u64::from(ring_bytes / 4);
    // together the processors fill no more than another quarter before one of them looks
    let look_bytes = wake_bytes / aya::util::nr_cpus().map_or(1, |n| n.max(1) as u64);
    let (lanes, lane_slots) = lane_sizes(options);
    EbpfLoader::new()
        .btf(Some(btf))
        .map_max_entries("lanes", lanes)
        .map_max_entries("lane_slots", lanes * lane_slots.max(1))
        .override_global("cfg_lane_slots", &lane_slots, true)
        .map_max_entries("events", ring_bytes)
        .map_max_entries("flows", options.max_flows)
        .override_global("cfg_ports", &ports[..], true)
        .override_global("cfg_port_count", &port_count, true)
        .override_global("cfg_hosts", &hosts[..], true)
        .override_global("cfg_host_count", &host_count, true)
        .override_global("cfg_has_mark", &has_mark, true)
        .override_global("cfg_mark", &mark, true)
        .override_global("cfg_netns", &netns, true)
        .override_global("cfg_sparse", &sparse, true)
        .override_global("cfg_look_bytes", &look_bytes, true)
        .override_global("cfg_wake_bytes", &wake_bytes, true)
        .override_global("cfg_cookie_helper", &cookie_helper, true)
        .override_global("cfg_congestions", &congestions[..], true)
        .load(if since_5_12 { OBJECT } else { OLD_OBJECT })
        .map_err(|e| refused_object(&e))
}

/// EPERM for the first map is the usual face of a missing capability; before 5.11 also of a low limit.
fn refused_object(error: &EbpfError) -> Error {
    let io = causes(error).find_map(|e| e.downcast_ref::<std::io::Error>());
    if io.is_none_or(|e| e.kind() != std::io::ErrorKind::PermissionDenied) {
        return Error::Load(in_short(error));
    }
    let facts = Facts::gather();
    let missing = facts.missing_for_bpf();
    if !missing.is_empty() {
        return Error::NoPermission { missing: missing.join(", ") };
    }
    if facts.in_user_namespace {
        return Error::UserNamespace;
    }
    match facts.memlock.and_then(|m| m.limit_bytes) {
        Some(limit_bytes) => Error::Memlock { limit_bytes },
        None => Error::Forbidden(in_short(error)),
    }
}

fn take_map<T: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &str) -> Result<T, Error> {
    ebpf.take_map(name).and_then(|m| T::try_from(m).ok()).ok_or_else(|| Error::Load(format!("no map `{name}`")))
}

/// Length of a jiffy: the resolution of the clock that ticks with it.
fn tick_ns() -> u64 {
    use nix::time::{ClockId, clock_getres};
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .and_then(|t| u64::try_from(t.tv_nsec()).ok())
        .filter(|&ns| ns > 0)
        .unwrap_or(4_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_summed_over_processors_by_cause() {
        let mut sum = Losses { bad_records: 9, probe_missed: 7, recursion: 8, ..Losses::default() };
        sum.add([1, 2, 3, 4, 5, 6, 60_000]);
        sum.add([10, 20, 30, 40, 50, 60, 0]);
        let named: Vec<_> = sum.by_cause().into_iter().map(|(cause, n)| (cause.name(), n)).collect();
        assert_eq!(
            named,
            [
                ("ring_full", 11),
                ("lock_refused", 22),
                ("flow_table_full", 33),
                ("header_unreadable", 44),
                ("bad_record", 9),
                ("not_shown", 55),
                ("return_missed", 66),
                ("probe_missed", 7),
                ("recursion", 8),
            ]
        );
    }
}
