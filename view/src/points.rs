//! What is drawn of a flow: its segments, ACKs and states, on one clock and with sequence numbers that do not wrap.

/// The sender's state at a packet, as far as a reader wants to see it there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// Congestion window, packets.
    pub cwnd: Option<i64>,
    /// Slow start threshold, packets; `None`: not known, or infinite.
    pub ssthresh: Option<i64>,
    /// Bytes in flight.
    pub in_flight: Option<i64>,
    /// Smoothed round-trip time, µs.
    pub srtt_us: Option<i64>,
    /// Congestion avoidance state, 0 to 4.
    pub ca_state: Option<i64>,
}

/// How the state of a packet is known; [`Matched::Sample`]: there is no packet, the state is a sample's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// From a sample, without a packet.
    Sample,
    /// `exact`.
    Exact,
    /// `within`.
    Within,
    /// `carried`.
    Carried,
    /// `none`.
    None,
}

impl Matched {
    /// All, in the order of their codes.
    pub const ALL: [Matched; 5] = [Matched::Sample, Matched::Exact, Matched::Within, Matched::Carried, Matched::None];

    /// The name in the column `match`.
    pub fn name(self) -> &'static str {
        match self {
            Matched::Sample => "sample",
            Matched::Exact => "exact",
            Matched::Within => "within",
            Matched::Carried => "carried",
            Matched::None => "none",
        }
    }
}

/// A segment with data, SYN or FIN; of a thinned series several that lie beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// ns since the flow's start, by the recording's clock.
    pub t_ns: i64,
    /// First byte, counted from the initial sequence number.
    pub start: i64,
    /// The byte after the last one.
    pub end: i64,
    /// How many packets this stands for, 1 or more.
    pub packets: u32,
    /// Sent again; of received segments: begins below what was received before.
    pub again: bool,
    /// Number of the first packet in the capture; of a sample its id.
    pub number: i64,
    /// How its state is known.
    pub matched: Matched,
    /// Its state.
    pub state: Brief,
}

/// An acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// ns since the flow's start, by the recording's clock.
    pub t_ns: i64,
    /// What it acknowledges up to.
    pub ack: i64,
    /// The window that it offers, bytes, scaled.
    pub window_bytes: Option<i64>,
    /// Bytes above `ack` that are selectively acknowledged then.
    pub sacked_bytes: Option<i64>,
    /// Number of the packet in the capture; of a sample its id.
    pub number: i64,
    /// How its state is known.
    pub matched: Matched,
    /// Its state.
    pub state: Brief,
}

impl Ack {
    /// The end of the window that it offers.
    pub fn window_end(&self) -> Option<i64> {
        self.window_bytes.map(|w| self.ack + w)
    }
}

/// The sender's state at a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// ns since the flow's start.
    pub t_ns: i64,
    /// Oldest unacknowledged byte, counted from the initial sequence number.
    pub una: Option<i64>,
    /// Congestion window, bytes: packets times `mss`.
    pub cwnd_bytes: Option<i64>,
    /// Slow start threshold, bytes; `None`: not known, or infinite.
    pub ssthresh_bytes: Option<i64>,
    /// Bytes in flight.
    pub in_flight: Option<i64>,
    /// Selectively acknowledged, bytes: packets times `mss`.
    pub sacked_bytes: Option<i64>,
    /// Smoothed round-trip time, µs; `None` before the first measurement.
    pub srtt_us: Option<i64>,
    /// Minimum round-trip time, µs.
    pub min_rtt_us: Option<i64>,
    /// Pacing rate, bytes per second; `None`: unlimited.
    pub pacing_rate: Option<i64>,
    /// Last rate sample, bytes per second.
    pub delivery_rate: Option<i64>,
    /// Congestion avoidance state, 0 to 4.
    pub ca_state: Option<i64>,
}

impl State {
    /// What is drawn of it, each as a line of its own.
    pub const DRAWN: [fn(&State) -> Option<i64>; 9] = [
        |s| s.cwnd_bytes,
        |s| s.ssthresh_bytes,
        |s| s.in_flight,
        |s| s.sacked_bytes,
        |s| s.srtt_us,
        |s| s.min_rtt_us,
        |s| s.pacing_rate,
        |s| s.delivery_rate,
        |s| s.ca_state,
    ];
}

/// The names of `ca_state`, by value.
pub const CA_STATES: [&str; 5] = ["Open", "Disorder", "CWR", "Recovery", "Loss"];

/// Whose data the graph shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the recorded socket sends.
    Sent,
    /// What it receives: of sockets that send no data.
    Received,
}

/// Where segments and ACKs are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A capture, by its path.
    Packets(String),
    /// The samples alone.
    Samples,
}

/// A flow, named for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its id.
    pub id: i64,
    /// Its session's id.
    pub session_id: i64,
    /// Local address and port.
    pub local: String,
    /// Remote address and port.
    pub remote: String,
    /// Congestion control.
    pub congestion: String,
    /// First and last sample, ns since 1970.
    pub first_ns: i64,
    /// See `first_ns`.
    pub last_ns: i64,
    /// The shift of windows that the peer offers; `None`: not known.
    pub snd_wscale: Option<i64>,
    /// The shift of windows that the socket offers; `None`: not known.
    pub rcv_wscale: Option<i64>,
}

/// Everything that is drawn of a flow, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Whose it is.
    pub flow: Flow,
    /// Whose data `segments` are.
    pub direction: Direction,
    /// Where segments and ACKs are from.
    pub source: Source,
    /// Segments.
    pub segments: Vec<Segment>,
    /// ACKs of them.
    pub acks: Vec<Ack>,
    /// States.
    pub states: Vec<State>,
    /// What was left out, and why; empty: nothing was.
    pub left_out: Vec<String>,
}
