//! A capture that can be shared: headers with rewritten addresses, as [`Anonymizer::frame`] makes them, and no more.
//!
//! Of a classic capture comes a classic one. Of pcapng comes pcapng with as many interfaces, so that a join finds the
//! same; whatever else its blocks have (names, comments, keys) is not copied. Memory does not grow with the capture.

use std::io::Write;
use std::ops::ControlFlow;

use super::pcapng::{write_block, write_interface, write_packet, write_section};
use crate::anonymize::Anonymizer;
use crate::capture::{Block, Capture, CaptureError, Format, Frame, Truncation};

/// Types of blocks.
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
/// Counters of the options of statistics: dropped by the interface, and by the system.
const IF_DROPPED: u16 = 5;
const OS_DROPPED: u16 = 7;
/// Frames between two looks at whether the copy is still wanted.
const STEP: u64 = 4096;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Packets of the copy.
    pub packets: u64,
    /// Packets of the capture that are left out: what is left of them would not be anonymous.
    pub left_out: u64,
    /// Those that are left out because the capture has no time for them, or none that can be written.
    pub without_time: u64,
    /// Records that are numbered as packets are and hold none, which are left out too.
    pub other_records: u64,
    /// The file's incomplete end, which is left out.
    pub truncated: Option<Truncation>,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The capture is damaged, or cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The output cannot be written.
    #[error("cannot write the copy of a capture: {0}")]
    Write(#[from] std::io::Error),
    /// The caller wanted no more.
    #[error("interrupted; nothing is left of it")]
    Interrupted,
}

/// Copies a capture that was just opened, up to its end.
///
/// # Errors
/// The capture or the output fails, or `watch` wants no more: the output is of no use then.
pub fn export(
    capture: &mut Capture,
    anonymizer: &mut Anonymizer,
    out: &mut dyn Write,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Written, Error> {
    let classic = capture.classic();
    match classic {
        Some((link, snaplen, _)) => write_classic_header(out, link.0, snaplen)?,
        None => write_section(out)?,
    }
    let mut written = Written::default();
    let (mut rewritten, mut seen, mut last_ns) = (Vec::new(), 0_u64, 0);
    while let Some(block) = capture.next_block()? {
        seen += 1;
        if seen.is_multiple_of(STEP) && watch().is_break() {
            return Err(Error::Interrupted);
        }
        let Some(frame) = &block.frame else {
            if classic.is_none()
                && let Some((link, snaplen)) = interface(&block)
            {
                write_interface(out, link, snaplen, true)?;
            }
            continue;
        };
        if !anonymizer.frame(frame.link, frame.data, &mut rewritten) {
            written.left_out += 1;
            continue;
        }
        let time = frame.ts_ns.and_then(|ns| u64::try_from(ns).ok());
        let is_written = match (time, classic) {
            (Some(time), Some(_)) => write_record(out, time, &rewritten, frame)?,
            (Some(time), None) => {
                let of = frame.interface.unwrap_or(0);
                write_packet(out, of, time, &rewritten, frame.orig_len, [&[], &[]])?;
                true
            }
            (None, _) => false,
        };
        if is_written {
            written.packets += 1;
            last_ns = time.unwrap_or(last_ns);
        } else {
            written.without_time += 1;
        }
    }
    let summary = capture.summary();
    written.other_records = summary.other_records;
    written.truncated = summary.truncated;
    let lacks_nothing = written.left_out + written.without_time == 0;
    // where packets are left out, it would say of them that they had never come
    if let (Format::Pcapng, true, Some(by_interface), Some(by_system)) =
        (summary.format, lacks_nothing, summary.if_dropped, summary.os_dropped)
    {
        write_statistics(out, last_ns, by_interface, by_system)?;
    }
    out.flush()?;
    Ok(written)
}

/// Link type and snaplen of a block that describes an interface.
fn interface(block: &Block<'_>) -> Option<(u16, u32)> {
    let field = |at: usize| -> Option<u32> {
        let bytes = block.bytes.get(at..)?.first_chunk()?;
        Some(if block.is_big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    };
    let link = block.bytes.get(8..)?.first_chunk()?;
    let link = if block.is_big_endian { u16::from_be_bytes(*link) } else { u16::from_le_bytes(*link) };
    (field(0)? == INTERFACE).then_some((link, field(12)?))
}

/// The header of a classic file with nanoseconds.
fn write_classic_header(out: &mut dyn Write, link: u32, snaplen: u32) -> std::io::Result<()> {
    out.write_all(&0xa1b2_3c4d_u32.to_le_bytes())?;
    // version 2.4; time zone and accuracy, always 0
    out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
    out.write_all(&snaplen.to_le_bytes())?;
    out.write_all(&link.to_le_bytes())
}

/// A record of a classic file. Returns false where its time has no place in it.
fn write_record(out: &mut dyn Write, time_ns: u64, data: &[u8], frame: &Frame<'_>) -> std::io::Result<bool> {
    let Ok(seconds) = u32::try_from(time_ns / 1_000_000_000) else { return Ok(false) };
    for field in [seconds, (time_ns % 1_000_000_000) as u32, data.len() as u32, frame.orig_len] {
        out.write_all(&field.to_le_bytes())?;
    }
    out.write_all(data)?;
    Ok(true)
}

/// What was dropped before the capture, by the whole file's account.
fn write_statistics(out: &mut dyn Write, time_ns: u64, by_interface: u64, by_system: u64) -> std::io::Result<()> {
    let mut body = Vec::new();
    for field in [0, (time_ns >> 32) as u32, time_ns as u32] {
        body.extend(field.to_le_bytes());
    }
    for (code, count) in [(IF_DROPPED, by_interface), (OS_DROPPED, by_system)] {
        body.extend([code.to_le_bytes(), 8_u16.to_le_bytes()].concat());
        body.extend(count.to_le_bytes());
    }
    body.extend([0; 4]);
    write_block(out, STATISTICS, false, &[&body])
}
