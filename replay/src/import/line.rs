//! Lines of a log, and what a reader of one format makes of them.
//!
//! Owns the limit on a line's length. Must not know the formats.

use std::borrow::Cow;
use std::io::BufRead;
use std::net::SocketAddr;

use tcpprobe_trace::sample::{Family, Kind, Phase, Sampled, State, Unplaced};

/// Of a longer line the rest is left out: no line with a sample is as long, but siftr's last one may be.
const MAX_LINE_BYTES: usize = 16 << 10;

/// A line, without its end.
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// What is no UTF-8 is replaced.
    pub(super) text: Cow<'a, str>,
    /// Was more than [`MAX_LINE_BYTES`] left out?
    pub(super) cut: bool,
}

/// Reads lines in bounded memory.
pub(super) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(from: R) -> Lines<R> {
        Lines { from, buffer: Vec::new(), number: 0 }
    }

    /// Hands over the next line; `false` at the end.
    pub(super) fn next(&mut self, with: &mut dyn FnMut(&Line<'_>)) -> std::io::Result<bool> {
        self.buffer.clear();
        let (mut any, mut cut) = (false, false);
        loop {
            let available = match self.from.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let end = available.iter().position(|&b| b == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            let room = MAX_LINE_BYTES - self.buffer.len();
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            cut |= part.len() > room;
            let used = part.len() + usize::from(end.is_some());
            self.from.consume(used);
            if end.is_some() {
                break;
            }
        }
        if any {
            self.number += 1;
            with(&Line { number: self.number, text: String::from_utf8_lossy(&self.buffer), cut });
        }
        Ok(any)
    }
}

/// What a log's times count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The log's own start.
    Log,
    /// The zero of one of the machine's clocks, as a rule its boot.
    Boot,
    /// The Unix epoch.
    Wall,
}

/// Why a line made no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// It looks like nothing that the format has.
    Foreign,
    /// Columns that every line has are not there.
    Columns,
    /// A column holds no value of its kind.
    Value,
    /// No such line is as long.
    TooLong,
    /// A sound line, but of another event.
    OtherEvent,
}

impl Refused {
    /// The cause in words.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Foreign => "not of this format",
            Refused::Columns => "columns missing",
            Refused::Value => "no number or address where one belongs",
            Refused::TooLong => "too long",
            Refused::OtherEvent => "another event",
        }
    }

    /// Could there be a sample in such a line?
    pub fn may_hide_a_sample(self) -> bool {
        self != Refused::OtherEvent
    }
}

/// What a line says.
pub(super) enum Read {
    /// A sample.
    Observation(Box<Observation>),
    /// Nothing about samples: a header, a blank line.
    Nothing,
    /// That so many samples are missing.
    Lost(u64),
    /// It cannot be said.
    Refused(Refused),
}

/// A sample as a log has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observation {
    /// In the log's [`Clock`], ns.
    pub(super) time_ns: i64,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) family: Family,
    pub(super) cookie: Option<u64>,
    pub(super) snd_wscale: Option<u8>,
    pub(super) rcv_wscale: Option<u8>,
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    pub(super) unplaced: Unplaced,
    pub(super) state: State,
}

/// A reader of one format: fed with every line from the first on.
pub(super) trait Log {
    /// Reads a line.
    fn read(&mut self, line: &Line<'_>) -> Read;
    /// What its lines look like, for who has given something else.
    fn expected(&self) -> &'static str;
    /// What the times count from; asked once there was a sample.
    fn clock(&self) -> Clock;
    /// The system that wrote the log, where it says so.
    fn kernel(&self) -> String {
        String::new()
    }
    /// Which segments there are samples of; asked at the end.
    fn sampled(&self) -> Sampled;
    /// What the user must know about units.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], buffer: usize) -> Vec<(u64, String, bool)> {
        let mut lines = Lines::new(std::io::BufReader::with_capacity(buffer, bytes));
        let mut found = Vec::new();
        while lines.next(&mut |l| found.push((l.number, l.text.to_string(), l.cut))).unwrap() {}
        found
    }

    #[test]
    fn lines_are_the_same_for_any_buffer() {
        for buffer in [1, 3, 4096] {
            let found = all(b"one\n\ntw\xff\nlast", buffer);
            let expected = [(1, "one"), (2, ""), (3, "tw\u{fffd}"), (4, "last")];
            assert_eq!(found, expected.map(|(n, t)| (n, t.to_owned(), false)));
        }
        assert!(all(b"", 16).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_whole() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES + 1];
        bytes.extend(b"\nnext\n");
        let found = all(&bytes, 1000);
        assert_eq!((found[0].1.len(), found[0].2), (MAX_LINE_BYTES, true));
        assert_eq!(found[1], (2, "next".to_owned(), false));
    }
}
