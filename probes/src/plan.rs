//! Where the sampler looks, and in which ways it can attach there: the table behind `--backend`.

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// fentry and fexit: a call into the function itself; before and after each ACK. With tracepoints for what they miss.
    Fentry,
    /// kprobe and kretprobe: the same points through breakpoints or ftrace, with tracepoints for what they miss.
    Kprobe,
    /// Tracepoints only.
    Tracepoint,
}

impl Backend {
    /// All, cheapest and richest first.
    pub const ALL: [Backend; 3] = [Backend::Fentry, Backend::Kprobe, Backend::Tracepoint];

    /// The name in arguments and tables.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Fentry => "fentry",
            Backend::Kprobe => "kprobe",
            Backend::Tracepoint => "tracepoint",
        }
    }
}

/// What the sampler wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A flow's memory is released: without it, entries of the flow table are not given back.
    Destroy,
    /// Changes of the TCP state: a flow's start and end.
    State,
    /// The kernel's own word on retransmissions, and on those that failed.
    Retransmit,
    /// Segments that leave.
    Transmit,
    /// Segments that arrive in ESTABLISHED.
    Receive,
    /// Segments that arrive in any other state.
    ReceiveOther,
}

impl Point {
    /// All, in the order of attaching: ends before starts, so that nothing begins that is not seen to end.
    pub const ALL: [Point; 6] =
        [Point::Destroy, Point::State, Point::Retransmit, Point::Transmit, Point::ReceiveOther, Point::Receive];

    /// A short name for `check` and for errors.
    pub fn name(self) -> &'static str {
        match self {
            Point::Destroy => "end of a socket",
            Point::State => "changes of state",
            Point::Retransmit => "retransmissions",
            Point::Transmit => "segments sent",
            Point::Receive => "segments received in ESTABLISHED",
            Point::ReceiveOther => "segments received in other states",
        }
    }

    /// The name in machine-readable output: stable, without spaces.
    pub fn key(self) -> &'static str {
        match self {
            Point::Destroy => "destroy",
            Point::State => "state",
            Point::Retransmit => "retransmit",
            Point::Transmit => "transmit",
            Point::Receive => "receive",
            Point::ReceiveOther => "receive_other",
        }
    }

    /// Can a recording do without it? Then its absence is said, and no more.
    pub fn is_optional(self) -> bool {
        matches!(self, Point::Retransmit | Point::ReceiveOther)
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum How {
    TpBtf,
    RawTp,
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
}

impl How {
    /// Does attaching change the kernel's code, which some kernels and hypervisors refuse?
    pub(crate) fn patches_code(self) -> bool {
        !matches!(self, How::TpBtf | How::RawTp)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            How::TpBtf => "tp_btf",
            How::RawTp => "raw_tp",
            How::Fentry => "fentry",
            How::Fexit => "fexit",
            How::Kprobe => "kprobe",
            How::Kretprobe => "kretprobe",
        }
    }
}

/// One program: its name in the object, how and where it attaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) how: How,
    pub(crate) target: &'static str,
}

/// A way to serve a point: all of its programs, or it does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) point: Point,
    /// `None`: a tracepoint that every backend uses at this point.
    pub(crate) backend: Option<Backend>,
    pub(crate) programs: &'static [Program],
}

const fn program(name: &'static str, how: How, target: &'static str) -> Program {
    Program { name, how, target }
}

const fn way(point: Point, backend: Option<Backend>, programs: &'static [Program]) -> Way {
    Way { point, backend, programs }
}

const NET_DEV_QUEUE_SOCKET_BTF: Program = program("net_dev_queue_socket_btf", How::TpBtf, "net_dev_queue");
const NET_DEV_QUEUE_BTF: Program = program("net_dev_queue_btf", How::TpBtf, "net_dev_queue");
const NET_DEV_QUEUE_RAW: Program = program("net_dev_queue_raw", How::RawTp, "net_dev_queue");
const ON_TRANSMIT_FENTRY: Program = program("tcp_transmit_skb_entry", How::Fentry, "__tcp_transmit_skb");
const ON_TRANSMIT_KPROBE: Program = program("tcp_transmit_skb_kprobe", How::Kprobe, "__tcp_transmit_skb");

/// Every way, best first within its point.
#[rustfmt::skip]
pub(crate) const WAYS: &[Way] = {
    use Backend::{Fentry, Kprobe, Tracepoint};
    use Point::{Destroy, Receive, ReceiveOther, Retransmit, State, Transmit};
    &[
        way(Destroy, None, &[program("tcp_destroy_sock_raw", How::RawTp, "tcp_destroy_sock")]),
        way(State, None, &[program("inet_sock_set_state_btf", How::TpBtf, "inet_sock_set_state")]),
        way(State, None, &[program("inet_sock_set_state_raw", How::RawTp, "inet_sock_set_state")]),
        way(Retransmit, None, &[program("tcp_retransmit_skb_err_btf", How::TpBtf, "tcp_retransmit_skb")]),
        way(Retransmit, None, &[program("tcp_retransmit_skb_btf", How::TpBtf, "tcp_retransmit_skb")]),
        way(Retransmit, None, &[program("tcp_retransmit_skb_raw", How::RawTp, "tcp_retransmit_skb")]),
        // an interrupt may come while a probe is running, and the kernel then leaves out what it would see: the
        // tracepoint behind fills in
        way(Transmit, Some(Fentry), &[NET_DEV_QUEUE_SOCKET_BTF, ON_TRANSMIT_FENTRY]),
        way(Transmit, Some(Fentry), &[NET_DEV_QUEUE_BTF, ON_TRANSMIT_FENTRY]),
        way(Transmit, Some(Fentry), &[NET_DEV_QUEUE_RAW, ON_TRANSMIT_FENTRY]),
        way(Transmit, Some(Kprobe), &[NET_DEV_QUEUE_SOCKET_BTF, ON_TRANSMIT_KPROBE]),
        way(Transmit, Some(Kprobe), &[NET_DEV_QUEUE_BTF, ON_TRANSMIT_KPROBE]),
        way(Transmit, Some(Kprobe), &[NET_DEV_QUEUE_RAW, ON_TRANSMIT_KPROBE]),
        way(Transmit, Some(Tracepoint), &[NET_DEV_QUEUE_SOCKET_BTF]),
        way(Transmit, Some(Tracepoint), &[NET_DEV_QUEUE_BTF]),
        way(Transmit, Some(Tracepoint), &[NET_DEV_QUEUE_RAW]),
        way(ReceiveOther, Some(Fentry), &[
            program("tcp_rcv_state_process_exit", How::Fexit, "tcp_rcv_state_process"),
            program("tcp_rcv_state_process_entry", How::Fentry, "tcp_rcv_state_process"),
        ]),
        way(ReceiveOther, Some(Kprobe), &[
            program("tcp_rcv_state_process_kretprobe", How::Kretprobe, "tcp_rcv_state_process"),
            program("tcp_rcv_state_process_kprobe", How::Kprobe, "tcp_rcv_state_process"),
        ]),
        way(ReceiveOther, Some(Tracepoint), &[program("kfree_skb_btf", How::TpBtf, "kfree_skb")]),
        way(ReceiveOther, Some(Tracepoint), &[program("kfree_skb_raw", How::RawTp, "kfree_skb")]),
        way(Receive, Some(Fentry), &[
            program("tcp_rcv_established_exit", How::Fexit, "tcp_rcv_established"),
            program("tcp_probe_missed_btf", How::TpBtf, "tcp_probe"),
            program("tcp_rcv_established_entry", How::Fentry, "tcp_rcv_established"),
        ]),
        way(Receive, Some(Kprobe), &[
            program("tcp_rcv_established_kretprobe", How::Kretprobe, "tcp_rcv_established"),
            program("tcp_probe_missed_raw", How::RawTp, "tcp_probe"),
            program("tcp_rcv_established_kprobe", How::Kprobe, "tcp_rcv_established"),
        ]),
        way(Receive, Some(Tracepoint), &[program("tcp_probe_btf", How::TpBtf, "tcp_probe")]),
        way(Receive, Some(Tracepoint), &[program("tcp_probe_raw", How::RawTp, "tcp_probe")]),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_serves_every_point() {
        for point in Point::ALL {
            for backend in Backend::ALL {
                assert!(
                    WAYS.iter().any(|w| w.point == point && w.backend.is_none_or(|b| b == backend)),
                    "{} has no way to see {}",
                    backend.name(),
                    point.name()
                );
            }
        }
    }
}
