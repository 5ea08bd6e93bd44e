//! `tcp:tcp_probe` in text: ftrace's `trace` file, `trace-cmd report`, `perf script`.
//!
//! `include/trace/events/tcp.h`, `TRACE_EVENT(tcp_probe)`: `src` is the socket's own address and `dest` the peer's, in
//! every kernel; the state is that before the segment is processed. `srtt` is in µs, `ssthresh` is
//! `tcp_current_ssthresh()`. What is printed besides has changed: Linux 4.16 printed `length` (`skb->len`, with the TCP
//! header), since then it is `data_len` (payload, cut to 16 bits); `sock_cookie` (hexadecimal), `family`, `skbaddr`
//! and `skaddr` came later. So `name=value` is taken in any order. `mark` is the segment's, not the socket's.

use std::net::SocketAddr;

use tcpprobe_trace::fields::index;
use tcpprobe_trace::sample::{Family, Kind, Phase, Sampled, State, Unplaced};

use super::line::{Clock, Line, Log, Observation, Read, Refused};
use super::text::{endpoint, number, seconds_ns, set, ssthresh};

const EVENT: &str = "tcp_probe:";

/// No machine has been up for so long; later times are those of the wall clock (`trace-cmd record --date`, the trace
/// clock `tai`, `perf record -k CLOCK_REALTIME`).
const WALL_NS: i64 = 1_000_000_000 * 1_000_000_000;

#[derive(Default)]
pub(super) struct Reader {
    first_ns: Option<i64>,
}

impl Reader {
    fn line(&mut self, line: &Line<'_>) -> Read {
        let text = line.text.trim();
        if text.is_empty() {
            return Read::Nothing;
        }
        let Some((time, values)) = event(text, |name| name == EVENT) else { return without_event(text) };
        if line.cut {
            return Read::Refused(Refused::TooLong);
        }
        let Some(time_ns) = seconds_ns(time) else { return Read::Refused(Refused::Value) };
        match observation(time_ns, values) {
            Ok(observation) => {
                self.first_ns.get_or_insert(time_ns);
                Read::Observation(Box::new(observation))
            }
            Err(why) => Read::Refused(why),
        }
    }
}

/// Time and values of an event whose name is wanted: `… TIME: NAME: VALUES`, perf's name with the subsystem before it.
fn event(text: &str, wanted: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    // a task may be called anything, so that only a name right behind a time counts
    let mut time: Option<&str> = None;
    let mut at = 0;
    for word in text.split_ascii_whitespace() {
        let start = at + text.get(at..)?.find(word)?;
        at = start + word.len();
        let name = word
            .rsplit_once(':')
            .and_then(|(front, _)| front.rsplit_once(':'))
            .map_or(word, |(system, _)| word.get(system.len() + 1..).unwrap_or(word));
        if let Some(time) = time.filter(|_| name.ends_with(':') && wanted(name)) {
            return Some((time, text.get(at..)?));
        }
        time = word.strip_suffix(':').filter(|w| w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.'));
    }
    None
}

/// A line without our event: one of another event, a word on lost events, or something else.
fn without_event(text: &str) -> Read {
    // # entries-in-buffer/entries-written: 100/250   #P:2
    if let Some(counts) = text.strip_prefix("# entries-in-buffer/entries-written:") {
        let mut numbers = counts.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
        let lost = numbers.next().zip(numbers.next()).map_or(0, |(kept, written)| written.saturating_sub(kept));
        return if lost > 0 { Read::Lost(lost) } else { Read::Nothing };
    }
    if text.starts_with('#') {
        return Read::Nothing;
    }
    // CPU:1 [LOST 12 EVENTS], CPU:1 [12 EVENTS DROPPED], … PERF_RECORD_LOST lost 12
    if text.contains("LOST") || text.contains("EVENTS DROPPED") {
        let place = text.find(['[', 'L']).and_then(|at| text.get(at..)).unwrap_or(text);
        let words = place.split(|c: char| !c.is_ascii_alphanumeric());
        let number = words.filter_map(|w| w.parse::<u64>().ok()).next_back();
        return Read::Lost(number.unwrap_or(1));
    }
    if event(text, |_| true).is_some() {
        return Read::Refused(Refused::OtherEvent);
    }
    // what trace-cmd report says before the events
    let is_head = text.starts_with("cpus=") || text.starts_with("version =") || text.ends_with("is empty");
    if is_head { Read::Nothing } else { Read::Refused(Refused::Foreign) }
}

fn observation(time_ns: i64, values: &str) -> Result<Observation, Refused> {
    let mut ends: [Option<(SocketAddr, Family)>; 2] = [None; 2];
    let (mut nxt, mut una, mut cwnd, mut current_ssthresh) = (None, None, None, None);
    let (mut len, mut cookie) = (None, None);
    let mut state = State::default();
    for (name, value) in values.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
        let number = || number(value).ok_or(Refused::Value);
        match name {
            "src" => ends[0] = Some(endpoint(value).ok_or(Refused::Value)?),
            "dest" => ends[1] = Some(endpoint(value).ok_or(Refused::Value)?),
            "data_len" => len = Some(number()?),
            "snd_nxt" => nxt = Some(number()?),
            "snd_una" => una = Some(number()?),
            "snd_cwnd" => cwnd = Some(number()?),
            "ssthresh" => current_ssthresh = Some(number()?),
            "snd_wnd" => set(&mut state, const { index("snd_wnd") }, Some(number()?)),
            "srtt" => set(&mut state, const { index("srtt_us") }, Some(number()?)),
            "rcv_wnd" => set(&mut state, const { index("rcv_wnd") }, Some(number()?)),
            "sock_cookie" => {
                let hex = value.strip_prefix("0x").unwrap_or(value);
                cookie = Some(u64::from_str_radix(hex, 16).map_err(|_| Refused::Value)?).filter(|&c| c != 0);
            }
            _ => {}
        }
    }
    let [Some((local, family)), Some((remote, _))] = ends else { return Err(Refused::Columns) };
    let (Some(nxt), Some(una), Some(cwnd)) = (nxt, una, cwnd) else { return Err(Refused::Columns) };
    set(&mut state, const { index("snd_nxt") }, Some(nxt));
    set(&mut state, const { index("snd_una") }, Some(una));
    set(&mut state, const { index("snd_cwnd") }, Some(cwnd));
    set(&mut state, const { index("snd_ssthresh") }, current_ssthresh.and_then(|s| ssthresh(s, cwnd)));
    Ok(Observation {
        time_ns,
        local,
        remote,
        family,
        cookie,
        snd_wscale: None,
        rcv_wscale: None,
        kind: Kind::Ack,
        phase: Phase::Before,
        unplaced: Unplaced { len, bytes_in_flight: None },
        state,
    })
}

impl Log for Reader {
    fn read(&mut self, line: &Line<'_>) -> Read {
        self.line(line)
    }

    fn expected(&self) -> &'static str {
        "tcp:tcp_probe in the text of ftrace, trace-cmd report or perf script"
    }

    fn sampled(&self) -> Sampled {
        Sampled::Received
    }

    fn clock(&self) -> Clock {
        if self.first_ns.is_some_and(|t| t >= WALL_NS) { Clock::Wall } else { Clock::Boot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Read {
        Reader::default().read(&Line { number: 1, text: text.into(), cut: false })
    }

    fn sample(text: &str) -> Observation {
        match read(text) {
            Read::Observation(o) => *o,
            Read::Refused(why) => panic!("{text}: {}", why.name()),
            Read::Nothing | Read::Lost(_) => panic!("{text}"),
        }
    }

    const NEW: &str = "family=AF_INET src=192.0.2.1:40000 dest=192.0.2.2:5201 mark=0x0 data_len=1448 snd_nxt=0x20 \
        snd_una=0x10 snd_cwnd=11 ssthresh=9 snd_wnd=65535 srtt=250 rcv_wnd=29200 sock_cookie=1f \
        skbaddr=00000000a35edd4e skaddr=000000005ef4f9e3";

    fn state(o: &Observation) -> [Option<i64>; 7] {
        ["snd_nxt", "snd_una", "snd_cwnd", "snd_ssthresh", "snd_wnd", "srtt_us", "rcv_wnd"]
            .map(|f| o.state.get(index(f)))
    }

    #[test]
    fn the_three_programs() {
        let lines = [
            format!("          iperf3-16352   [001] ..s2.   925.774253: tcp_probe: {NEW}"),
            format!("iperf3-16352 [001]   925.774253: tcp_probe:            {NEW}"),
            format!("iperf3 16352 [001]   925.774253: tcp:tcp_probe: {NEW}"),
            format!("925.774253: tcp:tcp_probe: {NEW}"),
            // a task with a space, a colon and our event's name in its own
            format!("a tcp_probe: b 9 [000]   925.774253: tcp:tcp_probe: {NEW}"),
        ];
        for line in lines {
            let o = sample(&line);
            assert_eq!(o.time_ns, 925_774_253_000, "{line}");
            assert_eq!((o.local.port(), o.remote.port(), o.cookie), (40_000, 5201, Some(0x1f)), "{line}");
            assert_eq!(state(&o), [0x20, 0x10, 11, 9, 65_535, 250, 29_200].map(Some), "{line}");
            assert_eq!(o.unplaced.len, Some(1448));
        }
        let ns = sample(&format!("x 1 [000] 925.774253117: tcp:tcp_probe: {NEW}"));
        assert_eq!(ns.time_ns, 925_774_253_117);
    }

    #[test]
    fn linux_4_16_had_fewer_fields_and_another_length() {
        let o = sample(
            "x-1 [000] d.s.. 10.5: tcp_probe: src=[2001:db8::1]:80 dest=[2001:db8::2]:4000 mark=0x0 length=1480 \
             snd_nxt=0x20 snd_una=0x0 snd_cwnd=40 ssthresh=30 snd_wnd=1 srtt=2 rcv_wnd=3",
        );
        assert_eq!((o.cookie, o.unplaced.len), (None, None));
        assert_eq!(state(&o), [Some(0x20), Some(0), Some(40), None, Some(1), Some(2), Some(3)]);
        // perf prints a zero without 0x
        assert_eq!(
            sample(&format!("x 1 [000] 1.5: tcp:tcp_probe: {}", NEW.replace("0x10", "0"))).state.get(index("snd_una")),
            Some(0)
        );
    }

    #[test]
    fn what_is_no_sample() {
        for line in [
            "# tracer: nop",
            "cpus=2",
            "version = 7",
            "CPU 1 is empty",
            "# entries-in-buffer/entries-written: 7/7   #P:2",
        ] {
            assert!(matches!(read(line), Read::Nothing), "{line}");
        }
        let lost = [
            ("CPU:1 [LOST 12 EVENTS]", 12),
            ("CPU:11 [LOST EVENTS]", 1),
            ("CPU:0 [34 EVENTS DROPPED]", 34),
            ("swapper 0 [000] 10.5: PERF_RECORD_LOST lost 56", 56),
            ("# entries-in-buffer/entries-written: 100/250   #P:2", 150),
        ];
        for (line, expected) in lost {
            assert!(matches!(read(line), Read::Lost(n) if n == expected), "{line}");
        }
        let refused = [
            ("x-1 [000] ..... 10.5: sched_switch: prev_comm=tcp_probe: next_comm=b", Refused::OtherEvent),
            ("x-1 [000] ..... 10.5: tcp_probe: src=192.0.2.1:1 snd_nxt=0x1", Refused::Columns),
            ("x-1 [000] ..... 10.5: tcp_probe: src=nowhere", Refused::Value),
            ("x-1 [000] ..... tcp_probe: src=192.0.2.1:1", Refused::Foreign),
            ("\tffffffff81a0 tcp_rcv_established+0x1 ([kernel.kallsyms])", Refused::Foreign),
        ];
        for (line, expected) in refused {
            assert!(matches!(read(line), Read::Refused(why) if why == expected), "{line}");
        }
    }

    #[test]
    fn the_wall_clock_is_recognised_by_its_times() {
        for (time, clock) in [("925.774253", Clock::Boot), ("1700000000.5", Clock::Wall)] {
            let mut reader = Reader::default();
            let line = Line { number: 1, text: format!("x-1 [000] {time}: tcp_probe: {NEW}").into(), cut: false };
            assert!(matches!(reader.read(&line), Read::Observation(_)));
            assert_eq!(reader.clock(), clock);
        }
    }
}
