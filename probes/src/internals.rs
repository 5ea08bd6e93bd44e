//! What congestion controls keep for themselves: which members of their private state are read, where BTF says that
//! these lie, and what their bits mean.
//!
//! Owns the way from the bytes of `icsk_ca_priv` to values. Must not guess: a member that the running kernel's BTF does
//! not describe is NULL, and a congestion control of which it describes nothing is left alone.

use std::path::Path;

use tcpprobe_trace::internals::{INTERNALS, Internals, Value, internal};

use crate::btf::{Bits, Types};
use crate::layout::{CONGESTIONS, INTERNALS_WORDS};

mod kept;

/// The bytes of `icsk_ca_priv`, or a mask for them.
pub(crate) type Words = [u64; INTERNALS_WORDS];

/// `struct internals_mask` of the sampler: the mask, and how many words it has up to the last one that is not 0.
pub(crate) type CountedMask = [u64; INTERNALS_WORDS + 1];

/// The mask as the sampler takes it.
pub(crate) fn counted(mask: Words) -> CountedMask {
    let mut counted = [0; INTERNALS_WORDS + 1];
    counted[..INTERNALS_WORDS].copy_from_slice(&mask);
    counted[INTERNALS_WORDS] = mask.iter().rposition(|&word| word != 0).map_or(0, |last| last as u64 + 1);
    counted
}

/// A congestion control whose private state is known: its name and the structure that it keeps there.
struct Known {
    name: &'static str,
    structure: &'static str,
}

/// By their place in `cfg_congestions` of the sampler.
const KNOWN: &[Known] = &[
    // net/ipv4/tcp_cubic.c, tcp_bbr.c, tcp_dctcp.c
    Known { name: "cubic", structure: "bictcp" },
    Known { name: "bbr", structure: "bbr" },
    Known { name: "dctcp", structure: "dctcp" },
];

const _: () = assert!(KNOWN.len() <= CONGESTIONS, "cfg_congestions has no room");

/// Where a column's value comes from.
struct Source {
    column: usize,
    /// All of them must be there.
    members: &'static [&'static [&'static str]],
    convert: Convert,
}

/// From a member's value to the column's.
#[derive(Clone, Copy)]
enum Convert {
    Plain,
    /// `u32::MAX` means that nothing was measured yet.
    MaxU32IsNull,
    /// 1/1024 s (`BICTCP_HZ`).
    K,
    /// Jiffies; 0 where there is no epoch.
    Epoch,
    /// An enumeration of so many values.
    Below(u64),
    /// A fixed-point fraction of so many bits.
    Fraction(u32),
    /// The maximum of the last rounds, the long-term estimate, and which of them counts (`bbr_bw()`): packets per µs,
    /// shifted left by `BW_SCALE` = 24.
    BbrBandwidth,
}

const fn source(column: &'static str, members: &'static [&'static [&'static str]], convert: Convert) -> Source {
    Source { column: internal(column), members, convert }
}

/// The columns in the order in which layouts name them.
pub(crate) fn column_order() -> impl Iterator<Item = usize> {
    SOURCES.iter().map(|source| source.column)
}

/// Every column's source.
#[rustfmt::skip]
const SOURCES: &[Source] = &[
    source("cubic_last_max_cwnd", &[&["last_max_cwnd"]], Convert::Plain),
    source("cubic_origin_point", &[&["bic_origin_point"]], Convert::Plain),
    source("cubic_k_us", &[&["bic_K"]], Convert::K),
    source("cubic_epoch_start_ns", &[&["epoch_start"]], Convert::Epoch),
    source("cubic_tcp_cwnd", &[&["tcp_cwnd"]], Convert::Plain),
    source("cubic_delay_min_us", &[&["delay_min"]], Convert::Plain),
    source("cubic_hystart_found", &[&["found"]], Convert::Plain),
    source("cubic_hystart_curr_rtt_us", &[&["curr_rtt"]], Convert::MaxU32IsNull),
    source("cubic_hystart_samples", &[&["sample_cnt"]], Convert::Plain),
    // BBR_STARTUP, BBR_DRAIN, BBR_PROBE_BW, BBR_PROBE_RTT
    source("bbr_mode", &[&["mode"]], Convert::Below(4)),
    source("bbr_bw_bytes_per_s", &[&["bw", "s", "v"], &["lt_bw"], &["lt_use_bw"]], Convert::BbrBandwidth),
    source("bbr_lt_bw_used", &[&["lt_use_bw"]], Convert::Plain),
    source("bbr_min_rtt_us", &[&["min_rtt_us"]], Convert::MaxU32IsNull),
    source("bbr_pacing_gain", &[&["pacing_gain"]], Convert::Fraction(8)),
    source("bbr_cwnd_gain", &[&["cwnd_gain"]], Convert::Fraction(8)),
    source("bbr_cycle_idx", &[&["cycle_idx"]], Convert::Below(8)),
    source("bbr_full_bw_reached", &[&["full_bw_reached"]], Convert::Plain),
    source("bbr_prior_cwnd", &[&["prior_cwnd"]], Convert::Plain),
    source("dctcp_alpha", &[&["dctcp_alpha"]], Convert::Fraction(10)),
    source("dctcp_ce_state", &[&["ce_state"]], Convert::Plain),
];

/// What a record says, as it is read from the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) flow: u64,
    pub(crate) serial: u64,
    pub(crate) mono_ns: i64,
    /// Jiffies then, as `tcp_jiffies32` has them.
    pub(crate) jiffies: u32,
    pub(crate) mss: u32,
    /// The congestion control: a place in [`KNOWN`].
    pub(crate) congestion: usize,
    pub(crate) words: Words,
}

/// Where the columns of one congestion control lie.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout {
    /// By position in [`SOURCES`]: each member's place; empty where the column cannot be known.
    members: Vec<Vec<Bits>>,
}

impl Layout {
    /// `None` where nothing of it is described.
    fn find(known: &Known, types: &Types<'_>) -> Option<Layout> {
        let find = |source: &Source| {
            if INTERNALS[source.column].congestion != known.name {
                return Vec::new();
            }
            let bits = source.members.iter().map(|path| types.integer(known.structure, path).filter(in_one_word));
            bits.collect::<Option<Vec<Bits>>>().unwrap_or_default()
        };
        let members: Vec<Vec<Bits>> = SOURCES.iter().map(find).collect();
        members.iter().any(|m| !m.is_empty()).then_some(Layout { members })
    }

    /// The bits that matter.
    fn mask(&self) -> Words {
        let mut mask = [0; INTERNALS_WORDS];
        for bits in self.members.iter().flatten() {
            mask[word_of(bits)] |= ones(bits.size_bits) << (bits.offset_bits % 64);
        }
        mask
    }

    fn decode(&self, raw: &Raw, clock: &JiffyClock) -> Internals {
        let mut values = [None; INTERNALS.len()];
        for (source, members) in SOURCES.iter().zip(&self.members) {
            let numbers: Vec<u64> = members
                .iter()
                .map(|bits| raw.words[word_of(bits)] >> (bits.offset_bits % 64) & ones(bits.size_bits))
                .collect();
            values[source.column] = convert(source.convert, &numbers, raw, clock);
        }
        Internals { flow: raw.flow, serial: raw.serial, values }
    }
}

fn word_of(bits: &Bits) -> usize {
    (bits.offset_bits / 64) as usize
}

fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// What is read, and does not cross words: true of every member that the compiler has placed.
fn in_one_word(bits: &Bits) -> bool {
    (1..=64).contains(&bits.size_bits)
        && word_of(bits) < INTERNALS_WORDS
        && bits.offset_bits % 64 + bits.size_bits <= 64
}

fn convert(how: Convert, numbers: &[u64], raw: &Raw, clock: &JiffyClock) -> Option<Value> {
    let &first = numbers.first()?;
    let integer = |n: u64| i64::try_from(n).ok().map(Value::Integer);
    match how {
        Convert::Plain => integer(first),
        Convert::MaxU32IsNull => integer(first).filter(|_| first != u64::from(u32::MAX)),
        Convert::K => integer(first.saturating_mul(1_000_000) / 1024),
        Convert::Epoch if first == 0 => None,
        Convert::Epoch => Some(Value::MonoNs(clock.began_ns(first as u32))),
        Convert::Below(count) => integer(first).filter(|_| first < count),
        Convert::Fraction(bits) => Some(Value::Real(first as f64 / f64::from(1_u32 << bits))),
        Convert::BbrBandwidth => {
            let &[maximum, long_term, long_term_used] = numbers else { return None };
            let per_us = if long_term_used == 0 { maximum } else { long_term };
            integer(((u128::from(per_us) * u128::from(raw.mss) * 1_000_000) >> 24) as u64)
        }
    }
}

/// When jiffies began, by CLOCK_MONOTONIC: known to a tick from one reading, better from many.
#[derive(Clone, Copy, Debug)]
struct JiffyClock {
    tick_ns: i64,
    /// A jiffy, and when it began.
    known: Option<(u32, i64)>,
}

impl JiffyClock {
    fn new(tick_ns: u64) -> JiffyClock {
        JiffyClock { tick_ns: i64::try_from(tick_ns).unwrap_or(i64::MAX), known: None }
    }

    /// Takes a reading of both clocks at once. What is known moves no further than the reading makes it: one time has
    /// one value then, however often it is read.
    fn read(&mut self, jiffies: u32, mono_ns: i64) {
        let began_ns = match self.known {
            Some(_) => self.began_ns(jiffies).clamp(mono_ns.saturating_sub(self.tick_ns), mono_ns),
            None => mono_ns,
        };
        self.known = Some((jiffies, began_ns));
    }

    /// When a jiffy less than 2^31 away from the last reading began.
    fn began_ns(&self, jiffies: u32) -> i64 {
        let (known, began_ns) = self.known.unwrap_or_default();
        let distance = i64::from(jiffies.wrapping_sub(known) as i32);
        began_ns.saturating_add(distance.saturating_mul(self.tick_ns))
    }
}

/// The layouts found so far, one for each congestion control that is known.
#[derive(Clone)]
pub(crate) struct Layouts {
    found: Vec<Found>,
    clock: JiffyClock,
    /// Is this the kernel that the records are of? Only then is it asked.
    here: bool,
}

#[derive(Clone)]
struct Found {
    /// The module that brings it; empty where it is built in.
    owner: String,
    layout: Option<Layout>,
}

/// Where the kernel shows its BTF, and that of its modules.
const BTF: &str = "/sys/kernel/btf";

impl Layouts {
    /// Looks for each congestion control where it usually is; [`Layouts::learn`] corrects that.
    pub(crate) fn find(tick_ns: u64) -> Layouts {
        let kernel = std::fs::read(Path::new(BTF).join("vmlinux")).unwrap_or_default();
        let found = KNOWN.iter().map(|known| {
            let module = format!("tcp_{}", known.name);
            let owner = if Path::new(BTF).join(&module).exists() { module } else { String::new() };
            Found { layout: read_layout(known, &kernel, &owner), owner }
        });
        Layouts { found: found.collect(), clock: JiffyClock::new(tick_ns), here: true }
    }

    /// No kernel to ask: the inside of congestion controls is not known.
    pub(crate) fn none(tick_ns: u64) -> Layouts {
        Layouts { found: Vec::new(), clock: JiffyClock::new(tick_ns), here: false }
    }

    /// Hears that a flow uses a congestion control, and who brings that. If it is another one than was thought, or was
    /// not there yet, returns its place and the mask of its bits.
    pub(crate) fn learn(&mut self, congestion: &str, owner: &str) -> Option<(usize, Words)> {
        let at = KNOWN.iter().position(|k| k.name == congestion)?;
        if self.found.get(at)?.owner == owner {
            return None;
        }
        if !self.here {
            self.found[at] = Found { owner: owner.to_owned(), layout: None };
            return None;
        }
        let kernel = std::fs::read(Path::new(BTF).join("vmlinux")).unwrap_or_default();
        self.found[at] = Found { owner: owner.to_owned(), layout: read_layout(&KNOWN[at], &kernel, owner) };
        Some((at, self.mask(at)))
    }

    /// The masks as they are now, by place; all zero where nothing is known.
    pub(crate) fn masks(&self) -> impl Iterator<Item = Words> {
        (0..self.found.len()).map(|at| self.mask(at))
    }

    fn mask(&self, at: usize) -> Words {
        self.found[at].layout.as_ref().map_or([0; INTERNALS_WORDS], Layout::mask)
    }

    /// What a record means; `None` where the layout is not known.
    pub(crate) fn decode(&mut self, raw: &Raw) -> Option<Internals> {
        self.clock.read(raw.jiffies, raw.mono_ns);
        Some(self.found.get(raw.congestion)?.layout.as_ref()?.decode(raw, &self.clock))
    }
}

fn read_layout(known: &Known, kernel: &[u8], owner: &str) -> Option<Layout> {
    // a module's name becomes part of a path
    if !owner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let module = match owner {
        "" => None,
        // a module without BTF: nothing is known of it
        owner => Some(std::fs::read(Path::new(BTF).join(owner)).ok()?),
    };
    Layout::find(known, &Types::read(kernel, module.as_deref())?)
}

/// The names for `cfg_congestions`: two words each, little-endian, as `tcp_congestion_ops.name` holds them.
pub(crate) fn names() -> [u64; 2 * CONGESTIONS] {
    let mut names = [0; 2 * CONGESTIONS];
    for (known, words) in KNOWN.iter().zip(names.chunks_exact_mut(2)) {
        let mut bytes = [0; 16];
        bytes[..known.name.len()].copy_from_slice(known.name.as_bytes());
        let all = u128::from_le_bytes(bytes);
        words[0] = all as u64;
        words[1] = (all >> 64) as u64;
    }
    names
}

#[cfg(test)]
mod tests;
