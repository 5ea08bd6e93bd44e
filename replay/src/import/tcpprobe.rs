//! Lines of `/proc/net/tcpprobe`, as the kernel module `tcp_probe` printed them until Linux 4.15.
//!
//! `net/ipv4/tcp_probe.c`, `tcpprobe_sprint()`: time since the file was opened, the socket's own address, the peer's,
//! `skb->len` (with the TCP header, and cut to 16 bits), `snd_nxt`, `snd_una`, `snd_cwnd`, `tcp_current_ssthresh()`,
//! `snd_wnd`, `srtt`; since Linux 3.12 also `rcv_wnd`. Taken at the entry of `tcp_rcv_established()`: the state before
//! the segment was processed. `srtt` was in ticks (`tcp_sock.srtt >> 3`) until Linux 3.14, and is in µs
//! (`srtt_us >> 3`) since: every log of 10 columns is in ticks, one of 11 columns may be.

use tcpprobe_trace::fields::index;
use tcpprobe_trace::sample::{Kind, Phase, Sampled, State, Unplaced};

use super::line::{Clock, Line, Log, Observation, Read, Refused};
use super::text::{endpoint, number, seconds_ns, set, ssthresh};

/// Columns without and with `rcv_wnd`.
const COLUMNS: [usize; 2] = [10, 11];

/// With `full=0` no two lines in a row have the same cwnd, but for those that the module's buffer had no room for.
const MAX_REPEATS_PER_MILLE: u64 = 10;
/// Fewer lines say nothing about it.
const MIN_LINES: u64 = 20;

pub(super) struct Reader {
    hz: Option<u32>,
    lines: u64,
    repeats: u64,
    last_cwnd: Option<u32>,
    in_ticks: bool,
}

impl Reader {
    pub(super) fn new(hz: Option<u32>) -> Reader {
        Reader { hz, lines: 0, repeats: 0, last_cwnd: None, in_ticks: false }
    }

    fn observation(&mut self, text: &str) -> Result<Observation, Refused> {
        let mut columns = [""; COLUMNS[1]];
        let mut found = 0;
        for word in text.split_ascii_whitespace() {
            *columns.get_mut(found).ok_or(Refused::Foreign)? = word;
            found += 1;
        }
        let time_ns = seconds_ns(columns[0]).ok_or(Refused::Foreign)?;
        if !COLUMNS.contains(&found) {
            return Err(Refused::Columns);
        }
        let value = |at: usize| number(columns[at]).ok_or(Refused::Value);
        let (local, family) = endpoint(columns[1]).ok_or(Refused::Value)?;
        let (remote, _) = endpoint(columns[2]).ok_or(Refused::Value)?;
        // with a header of a length that is not known: how much of it was payload cannot be said
        value(3)?;
        let cwnd = value(6)?;
        let is_long = found == COLUMNS[1];
        let srtt = value(9)?;
        self.in_ticks |= !is_long;
        let srtt_us = match self.hz {
            Some(hz) => u32::try_from(u64::from(srtt) * 1_000_000 / u64::from(hz.max(1))).ok(),
            None => is_long.then_some(srtt),
        };
        let mut state = State::default();
        set(&mut state, const { index("snd_nxt") }, Some(value(4)?));
        set(&mut state, const { index("snd_una") }, Some(value(5)?));
        set(&mut state, const { index("snd_cwnd") }, Some(cwnd));
        set(&mut state, const { index("snd_ssthresh") }, ssthresh(value(7)?, cwnd));
        set(&mut state, const { index("snd_wnd") }, Some(value(8)?));
        set(&mut state, const { index("srtt_us") }, srtt_us);
        set(&mut state, const { index("rcv_wnd") }, if is_long { Some(value(10)?) } else { None });
        self.lines += 1;
        self.repeats += u64::from(self.last_cwnd == Some(cwnd));
        self.last_cwnd = Some(cwnd);
        Ok(Observation {
            time_ns,
            local,
            remote,
            family,
            cookie: None,
            snd_wscale: None,
            rcv_wscale: None,
            kind: Kind::Ack,
            phase: Phase::Before,
            unplaced: Unplaced::default(),
            state,
        })
    }
}

impl Log for Reader {
    fn read(&mut self, line: &Line<'_>) -> Read {
        let text = line.text.trim();
        // people comment their logs, as gnuplot lets them
        if text.is_empty() || text.starts_with('#') {
            return Read::Nothing;
        }
        if line.cut {
            return Read::Refused(Refused::TooLong);
        }
        self.observation(text).map_or_else(Read::Refused, |o| Read::Observation(Box::new(o)))
    }

    fn expected(&self) -> &'static str {
        "lines of /proc/net/tcpprobe (10 or 11 columns: time, source, destination, length, snd_nxt, …)"
    }

    fn clock(&self) -> Clock {
        Clock::Log
    }

    fn sampled(&self) -> Sampled {
        let few_repeats = self.repeats * 1000 <= self.lines * MAX_REPEATS_PER_MILLE;
        if self.lines >= MIN_LINES && few_repeats { Sampled::Changes } else { Sampled::Received }
    }

    fn notes(&self) -> Vec<String> {
        let note = match (self.in_ticks, self.hz) {
            (_, Some(hz)) => format!("srtt taken as ticks of 1/{hz} s"),
            (true, None) => {
                "srtt left NULL: such a log (Linux 3.11 and older) has it in ticks; --hz N says how long they are"
                    .into()
            }
            (false, None) => {
                "srtt taken as µs, as Linux 3.15 and newer have it; for a log of 3.12 to 3.14 give --hz N".into()
            }
        };
        vec![note]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hz: Option<u32>, text: &str) -> Result<Observation, Refused> {
        let line = Line { number: 1, text: text.into(), cut: false };
        match Reader::new(hz).read(&line) {
            Read::Observation(o) => Ok(*o),
            Read::Refused(why) => Err(why),
            Read::Nothing | Read::Lost(_) => panic!("{text}"),
        }
    }

    fn values(o: &Observation) -> [Option<i64>; 7] {
        ["snd_nxt", "snd_una", "snd_cwnd", "snd_ssthresh", "snd_wnd", "srtt_us", "rcv_wnd"]
            .map(|f| o.state.get(index(f)))
    }

    #[test]
    fn eleven_columns() {
        let line =
            "1.000000250 192.0.2.1:40000 198.51.100.2:5201 32 0xffffff00 0xfffff000 12 2147483647 65535 10250 29200";
        let o = read(None, line).unwrap();
        assert_eq!(o.time_ns, 1_000_000_250);
        assert_eq!((o.local.to_string(), o.remote.to_string()), ("192.0.2.1:40000".into(), "198.51.100.2:5201".into()));
        assert_eq!((o.kind, o.phase, o.unplaced), (Kind::Ack, Phase::Before, Unplaced::default()));
        let expected = [0xffff_ff00, 0xffff_f000, 12, 2_147_483_647, 65_535, 10_250, 29_200];
        assert_eq!(values(&o), expected.map(Some));
    }

    #[test]
    fn ten_columns_have_ticks_and_no_rcv_wnd() {
        let line = "0.5 192.0.2.1:40000 198.51.100.2:5201 1500 0x0 0x0 40 30 65535 25";
        let o = read(None, line).unwrap();
        assert_eq!(values(&o)[3..], [None, Some(65_535), None, None], "30 is three quarters of 40");
        assert_eq!(values(&read(Some(250), line).unwrap())[5], Some(100_000), "25 ticks of 4 ms");
    }

    #[test]
    fn ipv6_and_ipv4_mapped_into_it() {
        let o = read(None, "0.1 [2001:db8::1]:80 [2001:db8::2]:4000 32 0x1 0x1 10 7 8 9 10").unwrap();
        assert_eq!(o.local.to_string(), "[2001:db8::1]:80");
        let o = read(None, "0.1 [::ffff:192.0.2.1]:80 [::ffff:192.0.2.2]:4000 32 0x1 0x1 10 7 8 9 10").unwrap();
        assert_eq!((o.local.to_string(), o.family.name()), ("192.0.2.1:80".into(), "inet6"));
    }

    #[test]
    fn refused() {
        let cases = [
            ("hello", Refused::Foreign),
            ("1.0 192.0.2.1:1 192.0.2.2:2 32 0x1 0x1 10 7 8", Refused::Columns),
            ("1.0 192.0.2.1:1 192.0.2.2:2 32 0x1 0x1 10 7 8 9 10 11", Refused::Foreign),
            ("1.0 192.0.2.1 192.0.2.2:2 32 0x1 0x1 10 7 8 9 10", Refused::Value),
            ("1.0 192.0.2.1:1 192.0.2.2:2 32 0x1 0x1ffffffff 10 7 8 9 10", Refused::Value),
            ("1.0 192.0.2.1:1 192.0.2.2:2 32 0x1 0x1 -1 7 8 9 10", Refused::Value),
        ];
        for (line, why) in cases {
            assert_eq!(read(None, line), Err(why), "{line}");
        }
    }

    fn sampled(cwnds: impl IntoIterator<Item = u32>) -> Sampled {
        let mut reader = Reader::new(None);
        for cwnd in cwnds {
            reader.observation(&format!("0.1 192.0.2.1:1 192.0.2.2:2 32 0x1 0x1 {cwnd} 7 8 9 10")).unwrap();
        }
        reader.sampled()
    }

    #[test]
    fn a_log_of_changes_only_is_seen_to_be_one() {
        assert_eq!(sampled(10..40), Sampled::Changes);
        assert_eq!(sampled((10..40).flat_map(|c| [c, c])), Sampled::Received);
        assert_eq!(sampled(10..15), Sampled::Received, "too few lines");
    }
}
