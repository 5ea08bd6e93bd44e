//! pcapng (draft-ietf-opsawg-pcapng): sections of blocks, with interfaces of their own link type and time resolution.
//!
//! Blocks are framed here, so that no length in the file is trusted before it was checked. pcap-parser then reads
//! those with options. Packet blocks are read here as well: that covers the obsolete one, and takes no allocation.

mod interface;

use pcap_parser::nom::IResult;
use pcap_parser::{InterfaceDescriptionBlock, InterfaceStatisticsBlock, PcapError};

use super::error::Fault;
use super::source::Source;
use super::{MAX_RECORD_LEN, Record, Step};
use crate::packet::LinkType;
use interface::{Drops, Interface};

/// The type of a section header block, the same in both byte orders: how every pcapng file starts.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// What every block has in bytes: type and length, then the length again.
const BLOCK_OVERHEAD: usize = 12;

const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const SYSTEMD_JOURNAL: u32 = 9;
const CUSTOM: u32 = 0x0000_0bad;
const CUSTOM_NO_COPY: u32 = 0x4000_0bad;

/// A section's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, data: &[u8], at: usize) -> Option<u16> {
        let bytes = *data.get(at..)?.first_chunk()?;
        Some(if self == Self::Little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(self, data: &[u8], at: usize) -> Option<u32> {
        let bytes = *data.get(at..)?.first_chunk()?;
        Some(if self == Self::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn u64(self, bytes: [u8; 8]) -> u64 {
        if self == Self::Little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
    }
}

/// The current section, and what the whole file has told so far.
#[derive(Debug)]
pub(super) struct Pcapng {
    order: Order,
    /// The current section's interfaces, by their number in it.
    interfaces: Vec<Interface>,
    /// How many interfaces earlier sections described.
    earlier_interfaces: usize,
    first_interface: Option<(LinkType, u32)>,
    /// Drops of the interfaces of earlier sections.
    earlier: Drops,
}

impl Pcapng {
    /// Checks the first block; it is read like any other, by the first step.
    pub(super) fn open(source: &mut Source) -> Result<Self, Fault> {
        let mut pcapng = Self {
            order: Order::Little,
            interfaces: Vec::new(),
            earlier_interfaces: 0,
            first_interface: None,
            earlier: Drops::default(),
        };
        match pcapng.step(source)? {
            Step::Truncated => Fault::corrupt("the file ends in its first block, the section header"),
            _ => Ok(pcapng),
        }
    }

    /// The current section's byte order.
    pub(super) fn is_big_endian(&self) -> bool {
        self.order == Order::Big
    }

    /// Link type and snaplen of the file's first interface.
    pub(super) fn first_interface(&self) -> Option<(LinkType, u32)> {
        self.first_interface
    }

    /// Packets dropped by the interfaces and by the system, over all sections.
    pub(super) fn dropped(&self) -> (Option<u64>, Option<u64>) {
        let total = self.interfaces.iter().fold(self.earlier, |total, interface| total.plus(interface.drops));
        (total.interface, total.system)
    }

    /// Reads the next block.
    pub(super) fn step(&mut self, source: &mut Source) -> Result<Step, Fault> {
        let available = source.fill(BLOCK_OVERHEAD)?;
        if available == 0 {
            return Ok(Step::End);
        }
        let Some(head) = source.data().first_chunk::<BLOCK_OVERHEAD>() else { return Ok(Step::Truncated) };
        let is_section = head.starts_with(&MAGIC);
        let order = if is_section { byte_order(head)? } else { self.order };
        let len = block_len(order.u32(head, 4).unwrap_or_default())?;
        if source.fill(len)? < len {
            return Ok(Step::Truncated);
        }
        let block = source.data().get(..len).unwrap_or_default();
        let trailer = order.u32(block, len - 4).unwrap_or_default();
        if trailer as usize != len {
            return Fault::corrupt(format!("a block of {len} bytes ends with the length {trailer}"));
        }
        if is_section {
            self.section(order, block)?;
            return Ok(Step::Bookkeeping { len });
        }
        let body = block.get(..len - 4).unwrap_or_default();
        match order.u32(block, 0).unwrap_or_default() {
            ENHANCED_PACKET => self.packet(body, len, order.u32(body, 8)),
            OBSOLETE_PACKET => self.packet(body, len, order.u16(body, 8).map(u32::from)),
            SIMPLE_PACKET => self.simple_packet(body, len),
            INTERFACE_DESCRIPTION => {
                self.interface(block)?;
                Ok(Step::Bookkeeping { len })
            }
            INTERFACE_STATISTICS => {
                self.statistics(block)?;
                Ok(Step::Bookkeeping { len })
            }
            SYSTEMD_JOURNAL | CUSTOM | CUSTOM_NO_COPY => Ok(Step::Other { len }),
            _ => Ok(Step::Bookkeeping { len }),
        }
    }

    /// A section header: interfaces and byte order start anew.
    fn section(&mut self, order: Order, block: &[u8]) -> Result<(), Fault> {
        let header = parsed(pcap_parser::parse_sectionheaderblock(block), "section header")?;
        if header.major_version != 1 {
            let (major, minor) = (header.major_version, header.minor_version);
            return Fault::corrupt(format!("pcapng version {major}.{minor}; only 1.x is known"));
        }
        self.order = order;
        self.earlier_interfaces += self.interfaces.len();
        self.earlier = self.interfaces.drain(..).fold(self.earlier, |total, interface| total.plus(interface.drops));
        Ok(())
    }

    fn interface(&mut self, block: &[u8]) -> Result<(), Fault> {
        let parse = match self.order {
            Order::Little => pcap_parser::parse_interfacedescriptionblock_le,
            Order::Big => pcap_parser::parse_interfacedescriptionblock_be,
        };
        let description: InterfaceDescriptionBlock<'_> = parsed(parse(block), "interface description")?;
        let interface = Interface::new(&description, self.order);
        self.first_interface.get_or_insert((interface.link, interface.snaplen));
        self.interfaces.push(interface);
        Ok(())
    }

    fn statistics(&mut self, block: &[u8]) -> Result<(), Fault> {
        let parse = match self.order {
            Order::Little => pcap_parser::parse_interfacestatisticsblock_le,
            Order::Big => pcap_parser::parse_interfacestatisticsblock_be,
        };
        let statistics: InterfaceStatisticsBlock<'_> = parsed(parse(block), "interface statistics")?;
        // For an interface that nothing describes there are no packets either.
        if let Some(interface) = self.interfaces.get_mut(statistics.if_id as usize) {
            interface.drops = Drops::of(&statistics, self.order);
        }
        Ok(())
    }

    /// An enhanced or obsolete packet block: they differ only in the interface's field.
    fn packet(&self, body: &[u8], len: usize, interface: Option<u32>) -> Result<Step, Fault> {
        const DATA_AT: usize = 28;
        let field = |at| self.order.u32(body, at);
        let (Some(interface), Some(high), Some(low), Some(captured), Some(orig_len)) =
            (interface, field(12), field(16), field(20), field(24))
        else {
            return Fault::corrupt(format!("a packet block of {len} bytes, too short for its header"));
        };
        let number = self.number(interface);
        let interface = self.described(interface)?;
        if captured as usize > body.len() - DATA_AT {
            return Fault::corrupt(format!("a packet block of {len} bytes claims {captured} captured bytes"));
        }
        let ts = u64::from(high) << 32 | u64::from(low);
        let data = DATA_AT..DATA_AT + captured as usize;
        let (ts_ns, link) = (interface.ts_ns(ts), interface.link);
        Ok(Step::Frame(Record { len, data, ts_ns, link, interface: number, orig_len }))
    }

    /// A simple packet block: of the first interface, without a time, and with a captured length that follows from
    /// the others.
    fn simple_packet(&self, body: &[u8], len: usize) -> Result<Step, Fault> {
        const DATA_AT: usize = 12;
        let Some(orig_len) = self.order.u32(body, 8) else {
            return Fault::corrupt(format!("a simple packet block of {len} bytes, too short for its header"));
        };
        let interface = self.described(0)?;
        let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
        let captured = (orig_len.min(snaplen) as usize).min(body.len() - DATA_AT);
        let data = DATA_AT..DATA_AT + captured;
        let (link, number) = (interface.link, self.number(0));
        Ok(Step::Frame(Record { len, data, ts_ns: None, link, interface: number, orig_len }))
    }

    /// The file's number of the section's interface, where it has several.
    fn number(&self, interface: u32) -> Option<u32> {
        let known = self.earlier_interfaces + self.interfaces.len();
        let earlier = u32::try_from(self.earlier_interfaces).ok()?;
        (known > 1).then(|| earlier.checked_add(interface)).flatten()
    }

    fn described(&self, number: u32) -> Result<&Interface, Fault> {
        self.interfaces.get(number as usize).ok_or_else(|| {
            let known = self.interfaces.len();
            Fault::Corrupt(format!("a packet of interface {number}, but the section describes {known} so far"))
        })
    }
}

/// The byte order that a section header announces.
fn byte_order(head: &[u8]) -> Result<Order, Fault> {
    const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
    match Order::Little.u32(head, 8).unwrap_or_default() {
        BYTE_ORDER_MAGIC => Ok(Order::Little),
        magic if magic.swap_bytes() == BYTE_ORDER_MAGIC => Ok(Order::Big),
        magic => Fault::corrupt(format!("a section header with the byte-order magic {magic:#010x}")),
    }
}

fn block_len(len: u32) -> Result<usize, Fault> {
    if (len as usize) < BLOCK_OVERHEAD || !len.is_multiple_of(4) {
        return Fault::corrupt(format!("a block of {len} bytes: not a multiple of 4 of at least {BLOCK_OVERHEAD}"));
    }
    if len > MAX_RECORD_LEN {
        return Fault::corrupt(format!("a block of {len} bytes, above the {MAX_RECORD_LEN} of any real one"));
    }
    Ok(len as usize)
}

fn parsed<'a, T>(result: IResult<&'a [u8], T, PcapError<&'a [u8]>>, what: &str) -> Result<T, Fault> {
    match result {
        Ok((_, block)) => Ok(block),
        Err(_) => Fault::corrupt(format!("a malformed {what} block")),
    }
}
