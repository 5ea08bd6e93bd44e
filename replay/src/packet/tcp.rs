//! TCP layer: the fixed header and the timestamps option.

use super::ip::Datagram;
use super::skip::Stop;
use super::{Segment, SkipReason, TcpFlags, be32};

/// The fixed header in bytes, without options.
const MIN_HEADER_LEN: u32 = 20;
/// Up to here, the end of the window field, the header must be captured: what follows is checksum and urgent pointer.
const NEEDED_LEN: usize = 16;

/// Reads a TCP header.
///
/// By hand: etherparse, lax or not, refuses a header whose options were cut by the snaplen, and that segment counts.
pub(super) fn segment(datagram: &Datagram<'_>) -> Result<Segment, Stop> {
    let &Datagram { src, dst, tcp, len, fragment } = datagram;
    // A first fragment may end in the header (RFC 1858 calls it an attack); a whole packet may not.
    let short = if fragment { SkipReason::CutTcpHeader } else { SkipReason::MalformedTcpHeader };
    if len < MIN_HEADER_LEN {
        return Err(short.into());
    }
    let fixed: &[u8; NEEDED_LEN] = tcp.first_chunk().ok_or(SkipReason::CutTcpHeader)?;
    let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset_ae, flags, w0, w1] = *fixed;
    let header_len = u32::from(offset_ae >> 4) * 4;
    if header_len < MIN_HEADER_LEN {
        return Err(SkipReason::MalformedTcpHeader.into());
    }
    let payload_len = len.checked_sub(header_len).ok_or(short)?;
    let header = tcp.get(..header_len as usize).unwrap_or(tcp);
    let timestamps = header.get(MIN_HEADER_LEN as usize..).and_then(timestamps);
    Ok(Segment {
        src,
        dst,
        src_port: u16::from_be_bytes([sp0, sp1]),
        dst_port: u16::from_be_bytes([dp0, dp1]),
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        len: payload_len,
        flags: TcpFlags(u16::from_be_bytes([offset_ae & 1, flags])),
        window: u16::from_be_bytes([w0, w1]),
        tsval: timestamps.map(|(tsval, _)| tsval),
        tsecr: timestamps.map(|(_, tsecr)| tsecr),
    })
}

/// TSval and TSecr of the timestamps option (RFC 7323 section 3.2).
///
/// As the kernel does, it steps over options of unexpected length, and stops only at one that cannot be stepped over.
fn timestamps(mut options: &[u8]) -> Option<(u32, u32)> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const TIMESTAMPS: u8 = 8;
    const TIMESTAMPS_LEN: u8 = 10;
    loop {
        match *options {
            [END, ..] => return None,
            [NOP, ref rest @ ..] => options = rest,
            [TIMESTAMPS, TIMESTAMPS_LEN, ..] => return Some((be32(options, 2)?, be32(options, 6)?)),
            [_, len, ..] if len >= 2 => options = options.get(len.into()..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TS: [u8; 10] = [8, 10, 0x01, 0x02, 0x03, 0x04, 0xa1, 0xa2, 0xa3, 0xa4];
    const VALUES: Option<(u32, u32)> = Some((0x0102_0304, 0xa1a2_a3a4));

    fn after(prefix: &[u8]) -> Option<(u32, u32)> {
        timestamps(&[prefix, &TS].concat())
    }

    #[test]
    fn timestamps_after_other_options() {
        assert_eq!(after(&[]), VALUES);
        assert_eq!(after(&[1, 1]), VALUES, "Linux pads with two NOPs");
        assert_eq!(after(&[2, 4, 5, 0xb4, 4, 2]), VALUES, "MSS and SACK permitted, as in a SYN");
        assert_eq!(after(&[254, 4, 0xf9, 0x89]), VALUES, "an experimental option");
        assert_eq!(after(&[2, 3, 5]), VALUES, "an MSS option of wrong length");
        assert_eq!(after(&[8, 2]), VALUES, "a timestamps option without values");
    }

    #[test]
    fn no_timestamps_after_what_cannot_be_stepped_over() {
        assert_eq!(after(&[0]), None, "end of options");
        assert_eq!(after(&[5, 0]), None, "length 0 would never advance");
        assert_eq!(after(&[5, 1]), None, "length 1 does not cover the option's own header");
        assert_eq!(after(&[5, 40]), None, "an option beyond the header's end");
    }

    #[test]
    fn a_cut_timestamps_option_has_no_values() {
        for len in 0..TS.len() {
            assert_eq!(timestamps(&TS[..len]), None, "{len} bytes");
        }
    }
}
