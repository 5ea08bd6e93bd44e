//! Classic pcap: one file header, then records (draft-ietf-opsawg-pcap), in the byte order of the writing machine.

use pcap_parser::nom::{Err, IResult, Needed};
use pcap_parser::{LegacyPcapBlock, PcapError, PcapHeader};

use super::error::Fault;
use super::source::Source;
use super::{MAX_RECORD_LEN, Record, Step};
use crate::packet::LinkType;

/// The file header in bytes.
const FILE_HEADER_LEN: usize = 24;

type ParseRecord = fn(&[u8]) -> IResult<&[u8], LegacyPcapBlock<'_>, PcapError<&[u8]>>;

/// What the file header says of the records.
#[derive(Debug)]
pub(super) struct Classic {
    link: LinkType,
    snaplen: u32,
    /// ns per unit of the timestamps' fraction.
    unit_ns: i64,
    record_header_len: usize,
    parse_record: ParseRecord,
}

impl Classic {
    /// Whether a file that starts so is a classic capture: µs or ns, of either byte order, or the "modified" format
    /// of old Linux kernels.
    pub(super) fn has_magic(start: [u8; 4]) -> bool {
        matches!(u32::from_le_bytes(start), 0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0xa1b2_cd34)
    }

    /// Reads the file header.
    pub(super) fn open(source: &mut Source) -> Result<Self, Fault> {
        let available = source.fill(FILE_HEADER_LEN)?;
        if available < FILE_HEADER_LEN {
            return Fault::corrupt(format!("the file header is cut after {available} of {FILE_HEADER_LEN} bytes"));
        }
        let Ok((_, header)) = pcap_parser::parse_pcap_header(source.data()) else {
            return Fault::corrupt("the file header cannot be read");
        };
        source.take(FILE_HEADER_LEN);
        let (record_header_len, parse_record) = Self::records(&header);
        Ok(Self {
            // The upper bits say how long the frame check sequence is.
            link: LinkType(header.network.0.cast_unsigned() & 0x03ff_ffff),
            snaplen: header.snaplen,
            unit_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
            record_header_len,
            parse_record,
        })
    }

    fn records(header: &PcapHeader) -> (usize, ParseRecord) {
        if header.is_modified_format() {
            (24, pcap_parser::parse_pcap_frame_modified)
        } else if header.is_bigendian() {
            (16, pcap_parser::parse_pcap_frame_be)
        } else {
            (16, pcap_parser::parse_pcap_frame)
        }
    }

    pub(super) fn link(&self) -> LinkType {
        self.link
    }

    pub(super) fn snaplen(&self) -> u32 {
        self.snaplen
    }

    /// ns per unit of its times.
    pub(super) fn unit_ns(&self) -> i64 {
        self.unit_ns
    }

    /// Reads the next record.
    pub(super) fn step(&mut self, source: &mut Source) -> Result<Step, Fault> {
        let mut wanted = self.record_header_len;
        loop {
            let available = source.fill(wanted)?;
            if available == 0 {
                return Ok(Step::End);
            }
            if available < wanted {
                return Ok(Step::Truncated);
            }
            match (self.parse_record)(source.data()) {
                Ok((_, record)) => return Ok(Step::Frame(self.record(&record))),
                Err(Err::Incomplete(Needed::Size(missing))) => wanted = available.saturating_add(missing.get()),
                Err(_) => return Fault::corrupt("the record cannot be read"),
            }
            if wanted > MAX_RECORD_LEN as usize {
                return Fault::corrupt(format!(
                    "a record of {wanted} bytes, above the {MAX_RECORD_LEN} of any real one"
                ));
            }
        }
    }

    fn record(&self, record: &LegacyPcapBlock<'_>) -> Record {
        let len = self.record_header_len + record.data.len();
        Record {
            len,
            data: self.record_header_len..len,
            ts_ns: Some(i64::from(record.ts_sec) * 1_000_000_000 + i64::from(record.ts_usec) * self.unit_ns),
            link: self.link,
            interface: None,
            orig_len: record.origlen,
        }
    }
}
