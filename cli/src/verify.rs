//! `tcpprobe verify`: prints what in a trace contradicts itself, or how TCP works, one line each.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use serde::Serialize;
use tcpprobe_trace::verify::{JOIN, Place, RECORDING, Report, Violation, verify};

use crate::Outcome;
use crate::args::{VerifyArgs, VerifyFormat};
use crate::output::standard;
use crate::record::recover::before_reading;
use crate::sql::printable;
use crate::words::{count, counted, say};

pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    before_reading(&args.trace);
    let mut printer = Printer { out: BufWriter::new(standard()), format: args.format, left: args.limit, printed: 0 };
    let report = verify(&args.trace, &mut |violation| printer.add(violation))?;
    match printer.end() {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        ended => ended?,
    }
    let printed = printer.printed;
    // what is still in the buffer has no reader
    let (_, _) = printer.out.into_parts();
    summary(args, &report, printed);
    Ok(if report.violated() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Printer<W: Write> {
    out: BufWriter<W>,
    format: VerifyFormat,
    left: u64,
    printed: u64,
}

/// A violation as CSV and JSON have it.
#[derive(Serialize)]
struct Record<'a> {
    check: &'a str,
    session_id: Option<i64>,
    flow_id: Option<i64>,
    sample_id: Option<i64>,
    serial: Option<i64>,
    capture: Option<&'a str>,
    number: Option<i64>,
    text: &'a str,
}

const COLUMNS: [&str; 8] = ["check", "session_id", "flow_id", "sample_id", "serial", "capture", "number", "text"];

impl<W: Write> Printer<W> {
    fn add(&mut self, violation: &Violation) -> std::io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        match self.print(violation) {
            // `tcpprobe verify … | head`: what is not read is counted all the same, and the exit code stays true
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => self.left = 0,
            printed => printed?,
        }
        Ok(())
    }

    fn print(&mut self, violation: &Violation) -> std::io::Result<()> {
        self.left -= 1;
        let Violation { check, place, text } = violation;
        let record = Record {
            check,
            session_id: place.session_id,
            flow_id: place.flow_id,
            sample_id: place.sample_id,
            serial: place.serial,
            capture: place.capture.as_deref(),
            number: place.number,
            text,
        };
        match self.format {
            VerifyFormat::Text => {
                writeln!(self.out, "{}", printable(&format!("{check}: {}{text}", whereabouts(place))))?;
            }
            VerifyFormat::Csv => {
                if self.printed == 0 {
                    writeln!(self.out, "{}", COLUMNS.join(","))?;
                }
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(&mut self.out);
                writer.serialize(record).map_err(std::io::Error::other)?;
                writer.flush()?;
            }
            VerifyFormat::Json => {
                writeln!(self.out, "{}", if self.printed == 0 { "[" } else { "," })?;
                serde_json::to_writer(&mut self.out, &record)?;
            }
        }
        self.printed += 1;
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        match (self.format, self.printed) {
            (VerifyFormat::Csv, 0) => writeln!(self.out, "{}", COLUMNS.join(","))?,
            (VerifyFormat::Json, 0) => writeln!(self.out, "[]")?,
            (VerifyFormat::Json, _) => writeln!(self.out, "\n]")?,
            _ => {}
        }
        self.out.flush()
    }
}

/// `capture.pcap packet 12, flow 1, sample 7: `; a sample is named as in its flow, by its serial.
fn whereabouts(place: &Place) -> String {
    let packet = place.capture.as_ref().map(|c| match place.number {
        Some(number) => format!("{c} packet {number}"),
        None => c.clone(),
    });
    let sample = match (place.serial, place.sample_id) {
        (Some(serial), _) => Some(format!("sample {serial}")),
        (None, Some(id)) => Some(format!("sample with id {id}")),
        (None, None) => None,
    };
    // a flow is of one session
    let session = place.session_id.filter(|_| place.flow_id.is_none()).map(|s| format!("session {s}"));
    let flow = place.flow_id.map(|f| format!("flow {f}"));
    let parts: Vec<String> = [packet, session, flow, sample].into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { parts.join(", ") + ": " }
}

fn summary(args: &VerifyArgs, report: &Report, printed: u64) {
    let trace = args.trace.display();
    say!(
        "{trace}: {}, {}, {}, {}, {}",
        counted(report.sessions, "session"),
        counted(report.flows, "flow"),
        counted(report.samples, "sample"),
        counted(report.captures, "capture"),
        counted(report.packets, "packet row")
    );
    match report.captures {
        0 => say!(
            "  {} of the recording; no capture is joined: `tcpprobe join {trace} CAPTURE`",
            checks(RECORDING.len())
        ),
        _ => say!("  {} of the recording, {} of the join", checks(RECORDING.len()), JOIN.len()),
    }
    for session in &report.incomplete {
        say!("  session {session} is still being recorded, or broke off: checked as far as it goes");
    }
    let all = report.violated();
    if all == 0 {
        say!("  no violation");
        return;
    }
    let shown = if printed < all { format!(", the first {} printed (--limit)", count(printed)) } else { String::new() };
    say!("  {}{shown}", counted(all, "violation"));
    for check in report.checks() {
        if let Some(n) = report.violations.get(check.name) {
            say!("  {:>12}  {}: {}", count(*n), check.name, check.rule);
        }
    }
}

fn checks(n: usize) -> String {
    counted(n as u64, "check")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unread;

    impl Write for Unread {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn violations_are_counted_on_when_no_one_reads_them() {
        let violation = Violation { check: "values", place: Place::default(), text: "wrong".into() };
        for format in [VerifyFormat::Text, VerifyFormat::Csv, VerifyFormat::Json] {
            let out = BufWriter::with_capacity(0, Unread);
            let mut printer = Printer { out, format, left: 100, printed: 0 };
            for _ in 0..3 {
                printer.add(&violation).unwrap();
            }
            assert_eq!((printer.left, printer.printed), (0, 0));
        }
    }
}
