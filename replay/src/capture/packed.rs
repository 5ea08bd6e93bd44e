//! Compressed captures, unpacked as they are read: gzip and Zstandard, told by their first bytes.
//!
//! Knows streams of bytes and nothing of captures. Memory holds a window of the stream, whatever it unpacks to.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;

/// Zstandard frames may ask for windows of 2 GiB; no more than 2 to the power of this is given to them. It is what
/// `zstd --long` makes, and what `zstd -d` takes unasked.
const MAX_WINDOW_LOG: u32 = 27;
/// Read at once from the file, in bytes.
const BUFFER_LEN: usize = 1 << 17;

/// Did a packed stream end before its own end? Known when it has been read.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(super) fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A reader of what a stream unpacks to; of the stream itself, if it is not packed.
pub(super) fn unpack(mut reader: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, Cut)> {
    let mut first = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut first)?;
    let cut = Cut::default();
    let is = |magic: &[u8]| first.starts_with(magic);
    // RFC 1952 §2.3.1: deflate is the only method; RFC 8878 §3.1.1 and §3.1.2: a frame, or one to be skipped
    let (is_gzip, is_zstd) =
        (is(b"\x1f\x8b\x08"), is(b"\x28\xb5\x2f\xfd") || (is_skippable(&first) && first[1..] == *b"\x2a\x4d\x18"));
    let whole = io::Cursor::new(first).chain(reader);
    let packed: Box<dyn Read + Send> = if is_gzip {
        Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(BUFFER_LEN, whole)))
    } else if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(io::BufReader::with_capacity(BUFFER_LEN, whole))?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Box::new(decoder)
    } else {
        return Ok((Box::new(whole), cut));
    };
    Ok((Box::new(Unpacked { packed, cut: cut.clone() }), cut))
}

fn is_skippable(first: &[u8]) -> bool {
    first.len() == 4 && (0x50..=0x5f).contains(&first[0])
}

struct Unpacked {
    packed: Box<dyn Read + Send>,
    cut: Cut,
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.packed.read(buffer) {
            // as with a capture that is still being written: what there is of it is good
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.cut.0.store(true, Ordering::Relaxed);
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::new(error.kind(), format!("it cannot be unpacked: {error}"))),
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bytes() -> Vec<u8> {
        (0..300_000_u32).flat_map(|i| (i / 3).to_le_bytes()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn read(packed: Vec<u8>) -> io::Result<(Vec<u8>, bool)> {
        let (mut reader, cut) = unpack(Box::new(io::Cursor::new(packed)))?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok((out, cut.is_cut()))
    }

    #[test]
    fn what_is_not_packed_stays_as_it_is() {
        for plain in [&b""[..], b"\x1f", b"\x1f\x8b", b"\xd4\xc3\xb2\xa1 and so on"] {
            assert_eq!(read(plain.to_vec()).unwrap(), (plain.to_vec(), false));
        }
    }

    #[test]
    fn all_members_and_frames_are_unpacked() {
        let whole = bytes();
        let (one, two) = whole.split_at(400_001);
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        assert_eq!(read([gzip(one), gzip(two)].concat()).unwrap(), (bytes(), false));
        let skipped = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
        assert_eq!(read([skipped, zstd(one), zstd(two)].concat()).unwrap(), (bytes(), false));
    }

    #[test]
    fn a_cut_stream_gives_what_it_has_and_says_so() {
        for packed in [gzip(&bytes()), zstd::encode_all(&bytes()[..], 1).unwrap()] {
            let (out, is_cut) = read(packed[..packed.len() * 2 / 3].to_vec()).unwrap();
            assert!(is_cut && out.len() > 1000 && bytes().starts_with(&out), "{} bytes", out.len());
        }
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        let mut checked = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        checked.include_checksum(true).unwrap();
        checked.write_all(&bytes()).unwrap();
        for mut packed in [gzip(&bytes()), checked.finish().unwrap()] {
            let middle = packed.len() / 2;
            packed[middle] ^= 0x55;
            let error = read(packed).unwrap_err();
            assert!(error.to_string().starts_with("it cannot be unpacked: "), "{error}");
        }
    }

    #[test]
    fn a_window_beyond_all_measure_is_refused() {
        // a frame whose header asks for a window of 2 GiB (RFC 8878 §3.1.1.1.2: exponent 21 above 1 KiB)
        let packed = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00".to_vec();
        assert!(read(packed).unwrap_err().to_string().contains("cannot be unpacked"));
    }
}
