//! Logs of FreeBSD's siftr(4).
//!
//! `sys/netinet/siftr.c`, `siftr_process_pkt()`: a line for each TCP packet that passes the host's packet filter hooks,
//! in (`i`) before TCP processes it, out (`o`) on its way out. Until version 1.2.x the second column is a hash
//! (`0x…`), which 1.3.0 no longer has; behind it the columns are the same: time, own address and port, peer's,
//! `snd_ssthresh` and `snd_cwnd` in bytes, one without a constant meaning (bandwidth window, flags), `snd_wnd`, `rcv_wnd`,
//! both window scales, the connection's state, the MSS, `srtt`, SACK, flags, the retransmission timeout, four figures
//! of the socket's buffers, bytes in flight; then what newer versions added.
//!
//! `srtt` is in ticks times `TCP_RTT_SCALE`, the timeout in ticks, where the header line gives `hz`; 1.3.0 gives
//! neither and has both in µs. There are no sequence numbers, and it is not said whether what goes out was sent before.

use tcpprobe_trace::fields::index;
use tcpprobe_trace::sample::{Family, Kind, Phase, Sampled, State, Unplaced};

use super::line::{Clock, Line, Log, Observation, Read, Refused};
use super::text::{number, seconds_ns, set, unmapped};

/// Columns, without the hash, of the oldest version; newer ones have added to the end.
const MIN_COLUMNS: usize = 24;
const MAX_COLUMNS: usize = 40;

/// Position of a column, without the hash.
mod column {
    pub(super) const TIME: usize = 1;
    pub(super) const LOCAL: usize = 2;
    pub(super) const REMOTE: usize = 4;
    pub(super) const SSTHRESH: usize = 6;
    pub(super) const CWND: usize = 7;
    pub(super) const SND_WND: usize = 9;
    pub(super) const RCV_WND: usize = 10;
    pub(super) const SND_SCALE: usize = 11;
    pub(super) const RCV_SCALE: usize = 12;
    pub(super) const STATE: usize = 13;
    pub(super) const MSS: usize = 14;
    pub(super) const SRTT: usize = 15;
    pub(super) const RTO: usize = 18;
    pub(super) const IN_FLIGHT: usize = 23;
}

/// `TCP_MAXWIN << TCP_MAX_WINSHIFT`: a threshold that has not been set.
const SSTHRESH_INFINITE: u32 = 65_535 << 14;
/// Linux's (`TCP_INFINITE_SSTHRESH`).
const LINUX_INFINITE: u32 = 0x7fff_ffff;

/// `TCPS_*` of `sys/netinet/tcp_fsm.h` as `TCP_*` of Linux's `tcp_states.h`, by number.
const STATES: [u32; 11] = [7, 10, 2, 3, 1, 8, 4, 11, 9, 5, 6];

/// `TCP_RTT_SCALE`, where the header line does not give it.
const RTT_SCALE: u32 = 32;

pub(super) struct Reader {
    given_hz: Option<u32>,
    header: bool,
    hz: Option<u32>,
    rtt_scale: Option<u32>,
    version: Option<String>,
    system: Vec<String>,
    without_mss: u64,
    without_ticks: bool,
}

impl Reader {
    pub(super) fn new(hz: Option<u32>) -> Reader {
        Reader {
            given_hz: hz,
            header: false,
            hz: None,
            rtt_scale: None,
            version: None,
            system: Vec::new(),
            without_mss: 0,
            without_ticks: false,
        }
    }

    /// `name=value` between tabs: what the system was, or what was left out of the log.
    fn head_or_foot(&mut self, text: &str) -> Read {
        let mut lost = 0;
        let mut known = false;
        if text.starts_with("enable_time_secs=") {
            known = true;
            self.header = true;
            (self.hz, self.rtt_scale) = (None, None);
            self.system.clear();
        }
        for (name, value) in text.split('\t').filter_map(|word| word.split_once('=')) {
            match name {
                "hz" => self.hz = number(value).filter(|&n| n > 0),
                "tcp_rtt_scale" => self.rtt_scale = number(value).filter(|&n| n > 0),
                "siftrver" => self.version = Some(value.to_owned()),
                "sysname" | "sysver" => self.system.push(value.to_owned()),
                "disable_time_secs" => known = true,
                // a packet without a socket has no state that could be missing: the counts of inpcb and tcpcb
                name if name.starts_with("num_") && (name.ends_with("_pkts_malloc") || name.ends_with("_pkts_mtx")) => {
                    lost += number(value).map_or(0, u64::from);
                }
                _ => {}
            }
        }
        match (known, lost) {
            (false, _) => Read::Refused(Refused::Foreign),
            (true, 0) => Read::Nothing,
            (true, lost) => Read::Lost(lost),
        }
    }

    fn observation(&mut self, text: &str) -> Result<Observation, Refused> {
        let mut columns = [""; MAX_COLUMNS];
        let mut found = 0;
        let mut has_hash = false;
        for word in text.split(',') {
            if found == 1 && !has_hash && word.starts_with("0x") {
                has_hash = true;
                continue;
            }
            *columns.get_mut(found).ok_or(Refused::Columns)? = word.trim();
            found += 1;
        }
        let (kind, phase) = match columns[0] {
            "i" => (Kind::Ack, Phase::Before),
            "o" => (Kind::Send, Phase::Transmit),
            _ => return Err(Refused::Foreign),
        };
        if found < MIN_COLUMNS {
            return Err(Refused::Columns);
        }
        let value = |at: usize| number(columns[at]).ok_or(Refused::Value);
        let end = |at: usize| {
            let ip: std::net::IpAddr = columns[at].parse().map_err(|_| Refused::Value)?;
            let port = columns[at + 1].parse().map_err(|_| Refused::Value)?;
            Ok((unmapped(ip, port), if ip.is_ipv4() { Family::Inet } else { Family::Inet6 }))
        };
        let scale = |at: usize| Ok(u8::try_from(value(at)?).ok().filter(|&s| s <= 14));
        let time_ns = seconds_ns(columns[column::TIME]).ok_or(Refused::Value)?;
        let (local, family) = end(column::LOCAL)?;
        let (remote, _) = end(column::REMOTE)?;
        let mss = value(column::MSS)?;
        let tcp_state =
            usize::try_from(value(column::STATE)?).ok().and_then(|s| STATES.get(s)).ok_or(Refused::Value)?;
        let ssthresh = match value(column::SSTHRESH)? {
            SSTHRESH_INFINITE.. => Some(LINUX_INFINITE),
            bytes => bytes.checked_div(mss),
        };
        let (srtt_us, rto_us) = self.times(has_hash, value(column::SRTT)?, value(column::RTO)?);
        let mut state = State::default();
        set(&mut state, const { index("snd_cwnd") }, value(column::CWND)?.checked_div(mss));
        set(&mut state, const { index("snd_ssthresh") }, ssthresh);
        set(&mut state, const { index("snd_wnd") }, Some(value(column::SND_WND)?));
        set(&mut state, const { index("rcv_wnd") }, Some(value(column::RCV_WND)?));
        set(&mut state, const { index("srtt_us") }, srtt_us);
        set(&mut state, const { index("rto_us") }, rto_us);
        set(&mut state, const { index("mss") }, Some(mss));
        set(&mut state, const { index("sk_state") }, Some(*tcp_state));
        let observation = Observation {
            time_ns,
            local,
            remote,
            family,
            cookie: None,
            snd_wscale: scale(column::SND_SCALE)?,
            rcv_wscale: scale(column::RCV_SCALE)?,
            kind,
            phase,
            unplaced: Unplaced { len: None, bytes_in_flight: Some(value(column::IN_FLIGHT)?) },
            state,
        };
        self.without_mss += u64::from(mss == 0);
        Ok(observation)
    }

    /// Smoothed round-trip time and retransmission timeout in µs.
    fn times(&mut self, has_hash: bool, srtt: u32, rto: u32) -> (Option<u32>, Option<u32>) {
        let in_us = self.header && self.hz.is_none() && !has_hash;
        if in_us {
            return (Some(srtt), Some(rto));
        }
        let Some(hz) = self.hz.or(self.given_hz) else {
            self.without_ticks = true;
            return (None, None);
        };
        let us = |ticks: u32, per_tick: u32| {
            u32::try_from(u64::from(ticks) * 1_000_000 / (u64::from(hz.max(1)) * u64::from(per_tick))).ok()
        };
        (us(srtt, self.rtt_scale.unwrap_or(RTT_SCALE)), us(rto, 1))
    }
}

impl Log for Reader {
    fn read(&mut self, line: &Line<'_>) -> Read {
        let text = line.text.trim();
        if text.is_empty() {
            return Read::Nothing;
        }
        // the last line lists every flow behind its counts, and may be of any length
        if text.starts_with("enable_time_secs=") || text.starts_with("disable_time_secs=") {
            return self.head_or_foot(text);
        }
        if line.cut {
            return Read::Refused(Refused::TooLong);
        }
        self.observation(text).map_or_else(Read::Refused, |o| Read::Observation(Box::new(o)))
    }

    fn expected(&self) -> &'static str {
        "a siftr log (i,… and o,… with 24 columns or more)"
    }

    fn sampled(&self) -> Sampled {
        Sampled::All
    }

    fn clock(&self) -> Clock {
        Clock::Wall
    }

    fn kernel(&self) -> String {
        self.system.join(" ")
    }

    fn notes(&self) -> Vec<String> {
        let version = self.version.as_ref().map_or_else(|| "siftr".to_owned(), |v| format!("siftr {v}"));
        let mut notes =
            vec![format!("{version}: cwnd and ssthresh are in bytes there; divided by the MSS, rounded down")];
        if self.without_mss > 0 {
            notes.push(format!("{} samples without an MSS: their cwnd and ssthresh are NULL", self.without_mss));
        }
        if self.without_ticks {
            notes.push(
                "srtt and rto left NULL: they are in ticks, and no header says how long these are; --hz N does".into(),
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_1_2: &str = "enable_time_secs=1700000000\tenable_time_usecs=000001\tsiftrver=1.2.4\thz=1000\t\
        tcp_rtt_scale=32\tsysname=FreeBSD\tsysver=1302001\tipmode=4";
    const HEADER_1_3: &str = "enable_time_secs=1700000000\tenable_time_usecs=000001\tsiftrver=1.3.0\tsysname=FreeBSD\tsysver=1400097\tipmode=6";

    fn with_header(header: &str) -> Reader {
        let mut reader = Reader::new(None);
        assert!(matches!(reader.read(&Line { number: 1, text: header.into(), cut: false }), Read::Nothing));
        reader
    }

    fn read(reader: &mut Reader, text: &str) -> Result<Observation, Refused> {
        match reader.read(&Line { number: 2, text: text.into(), cut: false }) {
            Read::Observation(o) => Ok(*o),
            Read::Refused(why) => Err(why),
            Read::Nothing | Read::Lost(_) => panic!("{text}"),
        }
    }

    fn values(o: &Observation) -> [Option<i64>; 8] {
        ["snd_cwnd", "snd_ssthresh", "snd_wnd", "rcv_wnd", "srtt_us", "rto_us", "mss", "sk_state"]
            .map(|f| o.state.get(index(f)))
    }

    // direction,hash,time,ends,ssthresh,cwnd,bwnd,snd_wnd,rcv_wnd,scales,state,mss,srtt,sack,flags,rto,buffers,in flight
    const LINE_1_2_3: &str = "o,0x00000000,1700000001.000250,192.0.2.1,40000,192.0.2.2,5201,1073725440,14607,0,65535,\
        66000,6,7,4,1460,3200,1,992,230,33304,2920,65700,0,2920";

    #[test]
    fn version_1_2_counts_in_ticks() {
        for added in ["", ",0", ",0,77,2"] {
            let mut reader = with_header(HEADER_1_2);
            let o = read(&mut reader, &format!("{LINE_1_2_3}{added}")).unwrap();
            assert_eq!(o.time_ns, 1_700_000_001_000_250_000);
            assert_eq!((o.kind, o.phase), (Kind::Send, Phase::Transmit));
            assert_eq!((o.snd_wscale, o.rcv_wscale), (Some(6), Some(7)));
            assert_eq!(o.unplaced.bytes_in_flight, Some(2920));
            // 3200 / 32 ticks of 1 ms; 230 ticks
            let expected = [10, 0x7fff_ffff, 65_535, 66_000, 100_000, 230_000, 1460, 1];
            assert_eq!(values(&o), expected.map(Some));
            assert_eq!(reader.kernel(), "FreeBSD 1302001");
        }
    }

    #[test]
    fn version_1_3_has_no_hash_and_counts_in_microseconds() {
        let line = "i,1700000001.000250,2001:db8::1,40000,2001:db8::2,5201,14600,29200,1024,65535,66000,6,7,8,1460,\
            100000,1,992,230000,33304,2920,65700,0,2920,0,77,2";
        let o = read(&mut with_header(HEADER_1_3), line).unwrap();
        assert_eq!((o.kind, o.phase, o.family), (Kind::Ack, Phase::Before, Family::Inet6));
        assert_eq!(o.remote.to_string(), "[2001:db8::2]:5201");
        // LAST_ACK is 8 there and 9 here
        assert_eq!(values(&o), [20, 10, 65_535, 66_000, 100_000, 230_000, 1460, 9].map(Some));
    }

    #[test]
    fn ipv6_in_full_as_1_2_wrote_it() {
        let line = LINE_1_2_3.replace("192.0.2.1", "2001:db8:0:0:0:0:0:1").replace("192.0.2.2", "2001:db8:0:0:0:0:0:2");
        assert_eq!(read(&mut with_header(HEADER_1_2), &line).unwrap().local.to_string(), "[2001:db8::1]:40000");
    }

    #[test]
    fn without_a_header_ticks_have_no_length() {
        let mut reader = Reader::new(None);
        assert_eq!(values(&read(&mut reader, LINE_1_2_3).unwrap())[4..6], [None, None]);
        assert!(reader.notes().iter().any(|n| n.contains("--hz")));
        let mut given = Reader::new(Some(100));
        assert_eq!(values(&read(&mut given, LINE_1_2_3).unwrap())[4..6], [Some(1_000_000), Some(2_300_000)]);
    }

    #[test]
    fn no_mss_no_packets() {
        let o = read(&mut with_header(HEADER_1_2), &LINE_1_2_3.replace(",1460,", ",0,").replace("1073725440", "1460"));
        assert_eq!(values(&o.unwrap())[..2], [None, None]);
    }

    #[test]
    fn what_the_last_line_says_was_skipped() {
        let foot = "disable_time_secs=1700000009\tdisable_time_usecs=1\tnum_inbound_tcp_pkts=10\t\
            num_outbound_tcp_pkts=9\ttotal_tcp_pkts=19\tnum_inbound_skipped_pkts_malloc=1\t\
            num_outbound_skipped_pkts_malloc=2\tnum_inbound_skipped_pkts_mtx=4\tnum_outbound_skipped_pkts_mtx=8\t\
            num_inbound_skipped_pkts_tcpcb=16\tnum_outbound_skipped_pkts_tcpcb=32\tnum_inbound_skipped_pkts_inpcb=64\t\
            num_outbound_skipped_pkts_inpcb=128\ttotal_skipped_tcp_pkts=255\tflow_list=192.0.2.1;40000-192.0.2.2;5201,";
        let mut reader = with_header(HEADER_1_2);
        // cut within the list of flows
        assert!(matches!(reader.read(&Line { number: 9, text: foot.into(), cut: true }), Read::Lost(15)));
    }

    #[test]
    fn refused() {
        let short = LINE_1_2_3.rsplit_once(',').unwrap().0.to_owned();
        let cases = [
            ("x,1,2".to_owned(), Refused::Foreign),
            (short, Refused::Columns),
            (LINE_1_2_3.replace("192.0.2.1", "here"), Refused::Value),
            (LINE_1_2_3.replace(",4,1460", ",11,1460"), Refused::Value),
            (format!("{LINE_1_2_3}{}", ",0".repeat(40)), Refused::Columns),
        ];
        for (line, why) in cases {
            assert_eq!(read(&mut with_header(HEADER_1_2), &line), Err(why), "{line}");
        }
    }
}
