//! TCP layer: the fixed header, the timestamps and the SACK option.

use super::ip::Datagram;
use super::skip::Stop;
use super::{SackBlocks, Segment, SkipReason, TcpFlags, be32};

/// The fixed header in bytes, without options.
const MIN_HEADER_LEN: u32 = 20;
/// Up to here, the end of the window field, the header must be captured: what follows is checksum and urgent pointer.
const NEEDED_LEN: usize = 16;

/// Reads a TCP header.
///
/// By hand: etherparse, lax or not, refuses a header whose options were cut by the snaplen, and that segment counts.
pub(super) fn segment(datagram: &Datagram<'_>) -> Result<Segment, Stop> {
    let &Datagram { src, dst, payload: tcp, len, fragment, id, ttl, .. } = datagram;
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
    let options_len = (header_len - MIN_HEADER_LEN) as usize;
    let options = Options::read(header.get(MIN_HEADER_LEN as usize..).unwrap_or_default(), options_len);
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
        tsval: options.timestamps.map(|(tsval, _)| tsval),
        tsecr: options.timestamps.map(|(_, tsecr)| tsecr),
        sack: options.sack,
        varying_options_bytes: options.varying_bytes,
        ip_id: id,
        ttl,
        interface: None,
        sll_type: None,
        tunnel: None,
    })
}

/// What is read of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    /// TSval and TSecr (RFC 7323 section 3.2).
    timestamps: Option<(u32, u32)>,
    /// Blocks (RFC 2018 section 3).
    sack: SackBlocks,
    /// Bytes of all others but signatures, padding included; 0 where they were cut.
    varying_bytes: u8,
}

impl Options {
    /// Reads a list of `len` bytes of which these were captured.
    ///
    /// As the kernel's `tcp_parse_options`, it steps over options of unexpected length, takes the last of several, and
    /// stops only at one that cannot be stepped over.
    fn read(captured: &[u8], len: usize) -> Self {
        const END: u8 = 0;
        const NOP: u8 = 1;
        const SACK: u8 = 5;
        const TIMESTAMPS: u8 = 8;
        const TIMESTAMPS_LEN: u8 = 10;
        // RFC 2385, RFC 5925
        const MD5_SIGNATURE: u8 = 19;
        const AUTHENTICATION: u8 = 29;
        let missing = len.saturating_sub(captured.len());
        let mut options = Self { timestamps: None, sack: SackBlocks::NONE, varying_bytes: 0 };
        let mut in_every_segment = 0;
        let mut rest = captured;
        let cut = loop {
            match *rest {
                [END, ..] => break false,
                [NOP, ref after @ ..] => rest = after,
                [kind, len, ref after @ ..] => {
                    let end = usize::from(len);
                    if end < 2 || end > rest.len() + missing {
                        break false;
                    }
                    if kind == SACK && len >= 10 && len % 8 == 2 {
                        options.sack = SackBlocks::from_wire(after.get(..end - 2).unwrap_or(after));
                    }
                    let Some((option, after)) = rest.split_at_checked(end) else { break true };
                    if matches!(kind, TIMESTAMPS | MD5_SIGNATURE | AUTHENTICATION) {
                        in_every_segment += end.next_multiple_of(4);
                    }
                    if kind == TIMESTAMPS && len == TIMESTAMPS_LEN {
                        options.timestamps = be32(option, 2).zip(be32(option, 6));
                    }
                    rest = after;
                }
                [] | [_] => break missing > 0,
            }
        };
        if cut {
            options.sack = options.sack.cut();
        } else {
            options.varying_bytes = u8::try_from(len.saturating_sub(in_every_segment)).unwrap_or(0);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TS: [u8; 10] = [8, 10, 0x01, 0x02, 0x03, 0x04, 0xa1, 0xa2, 0xa3, 0xa4];
    const VALUES: Option<(u32, u32)> = Some((0x0102_0304, 0xa1a2_a3a4));

    fn read(options: &[u8]) -> Options {
        Options::read(options, options.len())
    }

    fn after(prefix: &[u8]) -> Option<(u32, u32)> {
        read(&[prefix, &TS].concat()).timestamps
    }

    /// A SACK option of blocks 100 to 200, 300 to 400, …
    fn sack_option(blocks: u8) -> Vec<u8> {
        let edges = (1..=2 * u32::from(blocks)).flat_map(|edge| (edge * 100).to_be_bytes());
        [5, 2 + 8 * blocks].into_iter().chain(edges).collect()
    }

    const BLOCKS: [(u32, u32); 4] = [(100, 200), (300, 400), (500, 600), (700, 800)];

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
            assert_eq!(Options::read(&TS[..len], TS.len()).timestamps, None, "{len} bytes");
        }
    }

    #[test]
    fn sack_blocks_in_the_order_of_the_option() {
        assert_eq!(read(&TS).sack, SackBlocks::NONE);
        for blocks in 1..=4 {
            let options = [&[1, 1], &sack_option(blocks)[..]].concat();
            assert_eq!(read(&options).sack, SackBlocks::new(&BLOCKS[..blocks.into()]));
        }
        let both = read(&[&[1, 1], &TS[..], &[1, 1], &sack_option(3)].concat());
        assert_eq!((both.timestamps, both.sack), (VALUES, SackBlocks::new(&BLOCKS[..3])));
    }

    #[test]
    fn sack_options_of_impossible_length_have_no_blocks() {
        for len in [2, 3, 9, 11, 14] {
            let option = [&[5, len][..], &vec![7; usize::from(len) - 2]].concat();
            let options = read(&[&option[..], &TS].concat());
            assert_eq!((options.timestamps, options.sack), (VALUES, SackBlocks::NONE));
        }
    }

    #[test]
    fn sack_blocks_that_the_snaplen_cut() {
        let options = [&[1, 1], &sack_option(2)[..]].concat();
        for len in 0..options.len() {
            let whole_blocks = len.saturating_sub(4) / 8;
            let expected = SackBlocks::new(&BLOCKS[..whole_blocks]).cut();
            assert_eq!(Options::read(&options[..len], options.len()).sack, expected, "{len} bytes");
        }
        // The option itself was captured, but another may follow.
        assert_eq!(Options::read(&options, options.len() + 2).sack, SackBlocks::new(&BLOCKS[..2]).cut());
        let ended = [&options[..], &[0]].concat();
        assert_eq!(Options::read(&ended, ended.len() + 1).sack, SackBlocks::new(&BLOCKS[..2]), "none can follow");
    }

    #[test]
    fn what_comes_and_goes_is_all_but_timestamps_and_signatures() {
        let timestamps = [&[1, 1], &TS[..]].concat();
        let dss = [&[30, 22][..], &[0; 20], &[1, 1]].concat();
        let md5 = [&[1, 1, 19, 18][..], &[0; 16]].concat();
        let authentication = [&[29, 15][..], &[0; 13], &[1]].concat();
        let sack = [&[1, 1], &sack_option(2)[..]].concat();
        let varying = |options: &[&[u8]]| read(&options.concat()).varying_bytes;
        assert_eq!(varying(&[]), 0);
        assert_eq!(varying(&[&timestamps]), 0);
        assert_eq!(varying(&[&timestamps, &sack]), 20);
        assert_eq!(varying(&[&timestamps, &dss]), 24);
        assert_eq!(varying(&[&sack]), 20);
        assert_eq!(varying(&[&md5]), 0);
        assert_eq!(varying(&[&md5, &sack]), 20);
        assert_eq!(varying(&[&timestamps, &authentication]), 0);
        let cut = [timestamps, sack].concat();
        assert_eq!(Options::read(&cut[..20], cut.len()).varying_bytes, 0, "others may have been cut");
    }

    #[test]
    fn blocks_are_edges() {
        let sack = SackBlocks::new(&[(u32::MAX, 5), (1, 2)]);
        assert_eq!(sack.iter().collect::<Vec<_>>(), [(u32::MAX, 5), (1, 2)]);
        assert_eq!((sack.len(), sack.is_empty(), sack.complete()), (2, false, true));
        let cut = sack.cut();
        assert_eq!((cut.len(), cut.complete()), (2, false));
        assert_eq!(cut.iter().collect::<Vec<_>>(), [(u32::MAX, 5), (1, 2)]);
    }
}
