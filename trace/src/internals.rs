//! The one list of what congestion controls keep for themselves (`inet_connection_sock.icsk_ca_priv`).
//!
//! Everything that needs to know which of these values there are is derived from [`INTERNALS`]: the columns of the
//! table that holds them and of the view `congestion_internals`, and the reference in `docs/fields.md`. Must not know
//! how they are read from the kernel, nor SQL.

/// A value that a congestion control keeps for itself.
#[derive(Clone, Copy, Debug)]
pub struct Internal {
    /// Column name: the congestion control's, then the kernel's name of the value where that says what it is.
    pub name: &'static str,
    /// The congestion control's name (`tcp_congestion_ops.name`).
    pub congestion: &'static str,
    /// Unit of the column's value.
    pub unit: &'static str,
    /// Is the column REAL, not INTEGER?
    pub real: bool,
    /// What it means, in one sentence, with its source in the kernel.
    pub doc: &'static str,
}

const fn integer(name: &'static str, congestion: &'static str, unit: &'static str, doc: &'static str) -> Internal {
    Internal { name, congestion, unit, real: false, doc }
}

const fn real(name: &'static str, congestion: &'static str, doc: &'static str) -> Internal {
    Internal { name, congestion, unit: "", real: true, doc }
}

/// Every such value, by congestion control.
#[rustfmt::skip]
pub const INTERNALS: &[Internal] = &[
    integer("cubic_last_max_cwnd", "cubic", "packets",
        "Congestion window at the last reduction, or less where it had not come up to the one before (fast convergence); 0: none yet, or a timeout has reset it (`bictcp.last_max_cwnd`)."),
    integer("cubic_origin_point", "cubic", "packets",
        "Window at the cubic function's inflection, W_max of RFC 9438 (`bictcp.bic_origin_point`)."),
    integer("cubic_k_us", "cubic", "µs",
        "Time from the epoch's begin until the cubic function is at `cubic_origin_point`, K of RFC 9438 (`bictcp.bic_K`, kept in 1/1024 s)."),
    integer("cubic_epoch_start_ns", "cubic", "ns since 1970",
        "When congestion avoidance began anew, at the first ACK after a reduction; NULL: no epoch has begun (`bictcp.epoch_start`, whole jiffies)."),
    integer("cubic_tcp_cwnd", "cubic", "packets",
        "Window that Reno would have, W_est of RFC 9438; 0 before the first epoch (`bictcp.tcp_cwnd`)."),
    integer("cubic_delay_min_us", "cubic", "µs",
        "Least round-trip time seen, from which HyStart's thresholds are made; 0: none yet (`bictcp.delay_min`)."),
    integer("cubic_hystart_found", "cubic", "",
        "Not 0 where HyStart has ended slow start (`bictcp.found`)."),
    integer("cubic_hystart_curr_rtt_us", "cubic", "µs",
        "Least round-trip time of the present round, as HyStart sees it; NULL: none yet (`bictcp.curr_rtt`)."),
    integer("cubic_hystart_samples", "cubic", "",
        "Round-trip times that HyStart has looked at in the present round (`bictcp.sample_cnt`)."),

    integer("bbr_mode", "bbr", "",
        "0 STARTUP, 1 DRAIN, 2 PROBE_BW, 3 PROBE_RTT; the views show the name (`bbr.mode`)."),
    integer("bbr_bw_bytes_per_s", "bbr", "bytes per second",
        "Bandwidth that BBR sends by, as `ss` shows it: the long-term estimate while that is in use, else the maximum of the last rounds (`bbr.lt_bw` or `bbr.bw`, by `bbr_bw()`)."),
    integer("bbr_lt_bw_used", "bbr", "",
        "1 while the long-term estimate is in use, where a policer seems to limit the rate (`bbr.lt_use_bw`)."),
    integer("bbr_min_rtt_us", "bbr", "µs",
        "Least round-trip time of the last 10 s; NULL: none yet (`bbr.min_rtt_us`)."),
    real("bbr_pacing_gain", "bbr",
        "Pacing rate by bandwidth (`bbr.pacing_gain`, kept in 1/256)."),
    real("bbr_cwnd_gain", "bbr",
        "Congestion window by bandwidth-delay product (`bbr.cwnd_gain`, kept in 1/256)."),
    integer("bbr_cycle_idx", "bbr", "",
        "Phase of the gain cycle in PROBE_BW, 0 to 7; 0 probes for more, 1 drains (`bbr.cycle_idx`)."),
    integer("bbr_full_bw_reached", "bbr", "",
        "1 once the bandwidth has ceased to grow, which ends STARTUP (`bbr.full_bw_reached`)."),
    integer("bbr_prior_cwnd", "bbr", "packets",
        "Window before the last recovery or PROBE_RTT, to which it goes back (`bbr.prior_cwnd`)."),

    real("dctcp_alpha", "dctcp",
        "Smoothed fraction of bytes acknowledged with marks of congestion, 0 to 1 (`dctcp.dctcp_alpha`, kept in 1/1024; RFC 8257 DCTCP.Alpha)."),
    integer("dctcp_ce_state", "dctcp", "",
        "1 where the last segment received was marked CE (`dctcp.ce_state`, RFC 8257 DCTCP.CE)."),
];

/// Index of a value in [`INTERNALS`] by name; fails to compile in a constant if there is none.
#[expect(clippy::panic, reason = "only ever evaluated by the compiler, which has no other way to refuse")]
pub const fn internal(name: &str) -> usize {
    let mut i = 0;
    while i < INTERNALS.len() {
        if crate::fields::same(INTERNALS[i].name.as_bytes(), name.as_bytes()) {
            return i;
        }
        i += 1;
    }
    panic!("no such internal value")
}

/// A value in the unit of its column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of an INTEGER column.
    Integer(i64),
    /// Of a REAL column.
    Real(f64),
    /// A time by CLOCK_MONOTONIC, in ns; stored as ns since the Unix epoch.
    MonoNs(i64),
}

/// What a congestion control held inside at a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Internals {
    /// The flow, by the sampler's number, as in [`crate::sample::Sample::flow`].
    pub flow: u64,
    /// Serial of the sample with which they were read.
    pub serial: u64,
    /// By position in [`INTERNALS`]; `None` (NULL) where the value does not apply or this kernel does not keep it.
    pub values: [Option<Value>; INTERNALS.len()],
}
