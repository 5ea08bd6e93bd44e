//! A buffered window on a byte stream that always starts at the next record. Knows no formats.

use std::fmt;
use std::io::{self, ErrorKind, Read};

/// How much is read at once, in bytes: large enough that a window rarely has to be moved.
const BUFFER_LEN: usize = 1 << 20;

/// The bytes of a stream from its next record on.
pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Position of `start` in the stream.
    offset: u64,
    at_end: bool,
}

impl Source {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, buffer: vec![0; BUFFER_LEN], start: 0, end: 0, offset: 0, at_end: false }
    }

    /// Reads until at least `len` bytes are in the window or the stream ends, and returns how many there are.
    pub(super) fn fill(&mut self, len: usize) -> io::Result<usize> {
        while self.end - self.start < len && !self.at_end {
            if self.start + len > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                // Doubled only once it is full: a hostile length alone takes no memory.
                self.buffer.resize((self.buffer.len() * 2).min(len), 0);
            }
            let space = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(space) {
                Ok(0) => self.at_end = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.end - self.start)
    }

    /// The window.
    pub(super) fn data(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves the window by `len` bytes, and returns those that it leaves behind.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + len).min(self.end);
        self.offset += (self.start - from) as u64;
        self.buffer.get(from..self.start).unwrap_or_default()
    }

    /// The window's position in the stream.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("offset", &self.offset)
            .field("available", &(self.end - self.start))
            .field("at_end", &self.at_end)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of 0, 1, 2, … 250, 0, 1, … that gives out a few bytes at a time.
    struct Drip {
        position: usize,
        len: usize,
    }

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.position.is_multiple_of(3) {
                self.position += 1;
                self.len += 1;
                return Err(ErrorKind::Interrupted.into());
            }
            let count = buffer.len().min(70_001).min(self.len - self.position);
            buffer[..count].fill(7);
            self.position += count;
            Ok(count)
        }
    }

    #[test]
    fn windows_grow_beyond_the_buffer_and_shrink_at_the_end() {
        let len = 3 * BUFFER_LEN;
        let mut source = Source::new(Box::new(Drip { position: 1, len: len + 1 }));
        assert!(source.fill(10).unwrap() >= 10);
        assert_eq!(source.take(10).len(), 10);
        let want = 2 * BUFFER_LEN + 5;
        assert!(source.fill(want).unwrap() >= want);
        assert!(source.take(want).iter().all(|&byte| byte == 7));
        assert_eq!(source.offset(), 10 + want as u64);
        let rest = len - 10 - want;
        assert_eq!(source.fill(2 * BUFFER_LEN).unwrap(), rest);
        assert_eq!(source.take(2 * BUFFER_LEN).len(), rest, "no more than there is");
        assert_eq!(source.offset(), len as u64);
    }

    #[test]
    fn a_length_that_the_stream_does_not_have_takes_no_memory() {
        let mut source = Source::new(Box::new(&[1_u8, 2, 3][..]));
        assert_eq!(source.fill(usize::MAX / 4).unwrap(), 3);
        assert_eq!(source.buffer.len(), BUFFER_LEN);
    }
}
