//! Packets and samples made up for tests.

use std::net::SocketAddr;

use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::{Kind, Phase, Sampled};

use super::connections::{Connection, connections};
use crate::packet::{Packet, SackBlocks, TcpFlags};

pub(crate) const SYN: u16 = 2;
pub(crate) const ACK: u16 = 16;
pub(crate) const PUSH: u16 = 24;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn packet(from: &str, to: &str, seq: u32, ack: u32, len: u32, flags: u16) -> Packet {
    let (src, dst) = (address(from), address(to));
    Packet {
        number: 0,
        ts_ns: None,
        src: src.ip(),
        dst: dst.ip(),
        src_port: src.port(),
        dst_port: dst.port(),
        seq,
        ack,
        len,
        flags: TcpFlags(flags),
        window: 512,
        tsval: None,
        tsecr: None,
        sack: SackBlocks::NONE,
        varying_options_bytes: 0,
        ip_id: None,
        ttl: 64,
        interface: None,
        sll_type: None,
        tunnel: None,
    }
}

/// A handshake, and so many segments of 100 bytes, each acknowledged.
pub(crate) fn transfer(client: &str, server: &str, isn: u32, peer_isn: u32, segments: u32) -> Vec<Packet> {
    let at = |offset: u32| isn.wrapping_add(offset);
    let peer = peer_isn.wrapping_add(1);
    let mut all = vec![
        packet(client, server, isn, 0, 0, SYN),
        packet(server, client, peer_isn, at(1), 0, SYN | ACK),
        packet(client, server, at(1), peer, 0, ACK),
    ];
    for i in 0..segments {
        all.push(packet(client, server, at(1 + 100 * i), peer, 100, PUSH));
        all.push(packet(server, client, peer, at(101 + 100 * i), 0, ACK));
    }
    for (p, number) in all.iter_mut().zip(1..) {
        p.number = number;
    }
    all
}

pub(crate) fn connection_of(all: &[Packet]) -> Vec<Connection> {
    connections(all, |_| [None; 2])
}

pub(crate) fn flow(local: &str, remote: &str) -> FlowRow {
    FlowRow {
        id: 1,
        session_id: 1,
        local: address(local),
        remote: address(remote),
        netns: 1,
        first_ns: 0,
        last_ns: 0,
        closed: false,
        sampled: Sampled::All,
        snd_wscale: None,
    }
}

/// What a socket's sample of a packet is.
pub(crate) fn sample(serial: u64, p: &Packet, is_out: bool) -> SampleRow {
    SampleRow {
        id: serial as i64,
        serial,
        ts_ns: p.ts_ns.unwrap_or(0),
        mono_ns: 0,
        kind: if is_out { Kind::Send } else { Kind::Ack },
        phase: if is_out { Phase::Transmit } else { Phase::Before },
        has_segment: true,
        seq: p.seq,
        len: p.len,
        ack: p.ack,
        flags: p.flags.0,
        tsval: p.tsval,
        ip_id: None,
        error: 0,
        rcv_position: None,
        snd_nxt: Some(0),
        snd_una: Some(0),
        sk_state: None,
        bytes_sent: None,
        cwnd_bytes: None,
        sacked_out: None,
        mss: None,
    }
}
