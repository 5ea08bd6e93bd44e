//! The file of a live capture: it ends with a whole packet, whatever keeps it from being written.
//!
//! libpcap's own writer tells no one which packets did not get into the file, and leaves half of one at its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use pcap::PacketHeader;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 16;

/// A classic pcap file whose header is there.
pub(super) struct PacketFile {
    file: File,
    /// Bytes of the file that hold whole packets.
    end: u64,
    buffer: Vec<u8>,
    in_buffer: u64,
    packets: u64,
}

impl PacketFile {
    /// Goes on behind the header that libpcap wrote, in the byte order of this machine.
    pub(super) fn behind_header(file: File) -> io::Result<PacketFile> {
        let end = file.metadata()?.len();
        Ok(PacketFile { file, end, buffer: Vec::with_capacity(2 * BUFFER_BYTES), in_buffer: 0, packets: 0 })
    }

    /// Adds a packet whose time is in nanoseconds.
    ///
    /// # Errors
    /// As of [`PacketFile::flush`].
    pub(super) fn add(&mut self, header: &PacketHeader, bytes: &[u8]) -> io::Result<()> {
        // the format has 32 bits for each of them
        for field in [header.ts.tv_sec as u32, header.ts.tv_usec as u32, bytes.len() as u32, header.len] {
            self.buffer.extend_from_slice(&field.to_ne_bytes());
        }
        self.buffer.extend_from_slice(bytes);
        self.in_buffer += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Puts what was added into the page cache.
    ///
    /// # Errors
    /// Those of the file system: the file then ends with the packets that [`PacketFile::packets`] counts.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let added = std::mem::take(&mut self.in_buffer);
        let written = self.file.write_all_at(&self.buffer, self.end);
        match &written {
            Ok(()) => {
                self.end += self.buffer.len() as u64;
                self.packets += added;
            }
            // where not even this goes, the end is read like that of any capture that was cut
            Err(_) => drop(self.file.set_len(self.end)),
        }
        self.buffer.clear();
        written
    }

    /// Packets in the file.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets in the file, and those that are on their way into it.
    pub(super) fn added(&self) -> u64 {
        self.packets + self.in_buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: PacketHeader =
        PacketHeader { ts: libc::timeval { tv_sec: 1, tv_usec: 999_999_999 }, caplen: 3, len: 70 };

    #[test]
    fn a_packet_is_as_the_format_has_it() {
        let mut file = PacketFile::behind_header(tempfile::tempfile().unwrap()).unwrap();
        file.add(&HEADER, b"abc").unwrap();
        assert_eq!((file.packets(), file.added()), (0, 1));
        file.flush().unwrap();
        assert_eq!((file.packets(), file.added()), (1, 1));
        let mut bytes = [0; 19];
        file.file.read_exact_at(&mut bytes, 0).unwrap();
        let fields = [1_u32, 999_999_999, 3, 70].map(u32::to_ne_bytes).concat();
        assert_eq!((&bytes[..16], &bytes[16..]), (&fields[..], &b"abc"[..]));
    }

    #[test]
    fn what_cannot_be_written_is_not_counted_and_leaves_no_half_packet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pcap");
        let mut file = PacketFile::behind_header(File::create(&path).unwrap()).unwrap();
        file.add(&HEADER, b"abc").unwrap();
        file.flush().unwrap();
        // a file that was opened for reading refuses
        file.file = File::open(&path).unwrap();
        file.add(&HEADER, b"abc").unwrap();
        assert!(file.flush().is_err());
        assert_eq!((file.packets(), file.added()), (1, 1));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 19);
    }
}
