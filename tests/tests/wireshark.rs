//! `tcpprobe export --to pcapng` and `wireshark/tcpprobe.lua`, by what Wireshark's own programs read of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::capture::Capture;
use tcpprobe_replay::export::pcapng::columns;
use tcpprobe_tests::{preconditions, tools};

const LIMIT: Duration = Duration::from_secs(60);
const LUA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wireshark/tcpprobe.lua");
/// A test's name and its steps.
type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("one_socket_recorded_each_field_is_that_of_sql", one_socket),
    ("both_sockets_recorded_the_receiver_is_the_peer", both_sockets),
    ("a_filter_gives_the_rows_that_sql_gives", filter),
    ("packets_are_those_of_the_capture", packets_stay),
    ("microseconds_stay", microseconds_stay),
    ("blocks_comments_and_simple_packets_stay", blocks_comments_and_simple_packets_stay),
    ("text_of_the_trace_stays_in_its_field", hostile_text),
    ("another_capture_is_refused", another_capture),
];

fn main() -> ExitCode {
    let missing = preconditions::missing_program(&["tshark", "capinfos"]);
    let trials = TESTS.iter().map(|&(name, test)| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => test().map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into()),
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A scenario, recorded, captured and joined.
struct Joined {
    _folder: tempfile::TempDir,
    trace: PathBuf,
    capture: PathBuf,
    annotated: PathBuf,
}

fn joined(scenario: &str, change: impl Fn(&Path)) -> Result<Joined> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let (trace, capture, annotated) = (file("trace.db"), file("trace.pcap"), file("annotated.pcapng"));
    let path = format!("{}/../fixtures/scenarios/{scenario}.toml", env!("CARGO_MANIFEST_DIR"));
    let scenario = Scenario::load(Path::new(&path)).unwrap();
    scenario.write_trace(&trace).unwrap();
    scenario.write_capture(&capture).unwrap();
    change(&capture);
    tcpprobe(&["join", text(&trace), text(&capture)], 0)?;
    Ok(Joined { _folder: folder, trace, capture, annotated })
}

impl Joined {
    fn export(&self) -> Result<String> {
        let arguments = ["export", text(&self.trace), "--to", "pcapng", "-o", text(&self.annotated)];
        Ok(tcpprobe(&arguments, 0)?.stderr)
    }

    /// Lines of tshark without blanks, one for each packet that it shows.
    fn tshark(&self, more: &[&str], fields: &[String]) -> Result<Vec<String>> {
        let mut command = Command::new("tshark");
        command.args(["-X", &format!("lua_script:{LUA}"), "-r"]).arg(&self.annotated).args(more);
        command.args(["-T", "fields", "-E", "separator=|"]);
        command.args(fields.iter().flat_map(|f| ["-e", f.as_str()]));
        let finished = tools::run(&mut command, LIMIT)?.expect_code(0)?;
        let complaints: Vec<_> = finished.stderr.lines().filter(|l| !l.starts_with("Running as user")).collect();
        ensure!(complaints.is_empty(), "{complaints:?}");
        Ok(finished.stdout.lines().map(str::to_owned).collect())
    }

    fn sql(&self, statement: &str) -> Vec<String> {
        let db = rusqlite::Connection::open(&self.trace).unwrap();
        let mut statement = db.prepare(statement).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let value = |i| match row.get_ref(i).unwrap() {
                rusqlite::types::ValueRef::Null => String::new(),
                rusqlite::types::ValueRef::Integer(n) => n.to_string(),
                other => other.as_str().unwrap().to_owned(),
            };
            Ok((0..columns).map(value).collect::<Vec<_>>().join("|"))
        });
        rows.unwrap().map(std::result::Result::unwrap).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tcpprobe(arguments: &[&str], code: i32) -> Result<tools::Finished> {
    tools::run(Command::new(tools::tcpprobe()?).args(arguments), LIMIT)?.expect_code(code)
}

fn fields(prefix: &str) -> Vec<String> {
    std::iter::once("frame.number".into()).chain(columns().iter().map(|c| format!("{prefix}{}", c.name))).collect()
}

fn number() -> [String; 1] {
    ["frame.number".into()]
}

/// Each column of the rows where this holds.
fn rows(condition: &str) -> String {
    let names: String = columns().iter().map(|c| format!(", \"{}\"", c.name)).collect();
    format!("SELECT number{names} FROM packet_state WHERE {condition} ORDER BY number")
}

fn same(found: &[String], expected: &[String]) -> Result<()> {
    ensure!(!expected.is_empty(), "nothing to compare");
    ensure!(found == expected, "tshark:\n{}\nSQL:\n{}", found.join("\n"), expected.join("\n"));
    Ok(())
}

fn one_socket() -> Result<()> {
    // with gaps in the samples: matches of all kinds, reasons with blanks, NULL
    for scenario in ["hole", "handshake_and_fin", "copies", "fin_stripped"] {
        let joined = joined(scenario, |_| ())?;
        joined.export()?;
        let found = joined.tshark(&["-Y", "tcpprobe"], &fields("tcpprobe."))?;
        same(&found, &joined.sql(&rows("1")))?;
        ensure!(joined.tshark(&["-Y", "tcpprobe.peer.match"], &number())?.is_empty(), "a peer was made up");
    }
    Ok(())
}

fn both_sockets() -> Result<()> {
    let joined = joined("both_ends_recorded", |_| ())?;
    joined.export()?;
    same(&joined.tshark(&[], &fields("tcpprobe."))?, &joined.sql(&rows("dir = 'out'")))?;
    same(&joined.tshark(&[], &fields("tcpprobe.peer."))?, &joined.sql(&rows("dir = 'in'")))
}

fn filter() -> Result<()> {
    let joined = joined("hole", |_| ())?;
    joined.export()?;
    for (filter, condition) in [
        ("tcpprobe.match == \"exact\"", "match = 'exact'"),
        ("tcpprobe.match != \"exact\"", "match != 'exact'"),
        ("tcpprobe.delay_ns > 0 && tcpprobe.dir == \"out\"", "delay_ns > 0 AND dir = 'out'"),
        ("tcpprobe.sample_ts_ns > 1", "sample_ts_ns > 1"),
    ] {
        let sql = format!("SELECT number FROM packet_state WHERE {condition} ORDER BY number");
        same(&joined.tshark(&["-Y", filter], &number())?, &joined.sql(&sql))?;
    }
    Ok(())
}

/// Frames as our reader gives them: number, time, length, bytes.
fn frames(path: &Path) -> Vec<(u64, Option<i64>, u32, Vec<u8>)> {
    let mut capture = Capture::open(path).unwrap();
    let mut frames = Vec::new();
    while let Some(f) = capture.next_frame().unwrap() {
        frames.push((f.number, f.ts_ns, f.orig_len, f.data.to_vec()));
    }
    frames
}

fn packets_stay() -> Result<()> {
    let joined = joined("hole", |_| ())?;
    joined.export()?;
    ensure!(frames(&joined.annotated) == frames(&joined.capture), "packets differ");
    // a reader of its own: tshark's bytes and times of both files
    let hex = |file: &Path| -> Result<String> {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(file).args(["-x", "-t", "e"]);
        Ok(tools::run(&mut command, LIMIT)?.expect_code(0)?.stdout)
    };
    let (before, after) = (hex(&joined.capture)?, hex(&joined.annotated)?);
    ensure!(!before.is_empty() && before == after, "{before}\n{after}");
    tools::run(Command::new("capinfos").arg(&joined.annotated), LIMIT)?.expect_code(0)?;
    let again = ["export", text(&joined.trace), "--to", "pcapng", "-o", text(&joined.annotated)];
    ensure!(tcpprobe(&again, 1)?.stderr.contains("never overwritten"), "the file was overwritten");
    Ok(())
}

/// The magic number alone makes a capture one in µs.
fn microseconds_stay() -> Result<()> {
    let joined = joined("hole", |capture| {
        let mut bytes = std::fs::read(capture).unwrap();
        bytes[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        std::fs::write(capture, bytes).unwrap();
    })?;
    joined.export()?;
    ensure!(frames(&joined.annotated) == frames(&joined.capture), "packets differ");
    let said = tools::run(Command::new("capinfos").arg(&joined.annotated), LIMIT)?.expect_code(0)?.stdout;
    ensure!(said.contains("microseconds (6)"), "{said}");
    Ok(())
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 12) as u32;
    [&kind.to_be_bytes(), &len.to_be_bytes(), body, &len.to_be_bytes()].concat()
}

/// The capture as big-endian pcapng: a comment on each packet, an unknown block, the last one in a simple packet block.
fn as_big_endian_pcapng(path: &Path) {
    let frames = frames(path);
    // byte-order magic, version 1.0, a section length that is true of no file with more options
    let mut out = block(0x0a0d_0d0a, b"\x1a\x2b\x3c\x4d\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00");
    // Ethernet, the snaplen by which a simple packet block is cut, if_tsresol 9
    let snaplen = frames.iter().map(|(.., data)| data.len() as u32).max().unwrap();
    let options = b"\x00\x09\x00\x01\x09\x00\x00\x00\x00\x00\x00\x00";
    out.extend(block(1, &[b"\x00\x01\x00\x00", &snaplen.to_be_bytes()[..], options].concat()));
    out.extend(block(0x7777_7777, b"unknown!"));
    for (number, ts_ns, orig_len, data) in &frames {
        let padding = vec![0; data.len().next_multiple_of(4) - data.len()];
        if *number == frames.len() as u64 {
            out.extend(block(3, &[&orig_len.to_be_bytes(), &data[..], &padding].concat()));
            continue;
        }
        let ts = ts_ns.unwrap().cast_unsigned().to_be_bytes();
        let head = [&[0; 4], &ts[..], &(data.len() as u32).to_be_bytes(), &orig_len.to_be_bytes()].concat();
        out.extend(block(6, &[&head[..], data, &padding, b"\x00\x01\x00\x04mine\x00\x00\x00\x00"].concat()));
    }
    std::fs::write(path, out).unwrap();
}

fn blocks_comments_and_simple_packets_stay() -> Result<()> {
    let joined = joined("hole", as_big_endian_pcapng)?;
    let said = joined.export()?;
    ensure!(frames(&joined.annotated) == frames(&joined.capture), "packets differ");
    let last = frames(&joined.capture).len();
    let with_row: usize = joined.sql(&format!("SELECT count(*) FROM packets WHERE number = {last}"))[0].parse()?;
    ensure!(said.contains("1 of recorded flows left as they are") == (with_row == 1), "{said}");
    let bytes = std::fs::read(&joined.annotated)?;
    ensure!(bytes.windows(20).any(|w| w == block(0x7777_7777, b"unknown!")), "the unknown block is gone");
    let found = joined.tshark(&["-Y", "tcpprobe"], &fields("tcpprobe."))?;
    same(&found, &joined.sql(&rows(&format!("number < {last}"))))?;
    let comments = joined.tshark(&["-Y", "frame.comment == \"mine\""], &number())?;
    ensure!(comments.len() == last - 1, "{comments:?}");
    Ok(())
}

fn hostile_text() -> Result<()> {
    let joined = joined("hole", |_| ())?;
    let db = rusqlite::Connection::open(&joined.trace)?;
    let evil = "x\" snd_cwnd=7777 match=\"y\"\n\u{1b}[2J%41=é";
    // whoever makes a trace may write what they like
    ensure!(db.execute("UPDATE packet_rows SET tunnel = ?1", [evil])? > 0);
    joined.export()?;
    ensure!(joined.tshark(&["-Y", "tcpprobe.snd_cwnd == 7777 || tcpprobe.match == \"y\""], &number())?.is_empty());
    let found = joined.tshark(&["-c", "1"], &["tcpprobe.tunnel".to_owned()])?;
    // what is not printable stays as %XX
    ensure!(found == ["x\" snd_cwnd=7777 match=\"y\"%0A%1B[2J%41=%C3%A9"], "{found:?}");
    Ok(())
}

fn another_capture() -> Result<()> {
    let joined = joined("hole", |_| ())?;
    let bytes = std::fs::read(&joined.capture)?;
    let mut later = bytes.clone();
    later[24] ^= 1; // the first record's seconds
    for (changed, why) in [(later, "packet 1 has another time"), (bytes[..24].to_vec(), "it has no packet")] {
        std::fs::write(&joined.capture, changed)?;
        let arguments = ["export", text(&joined.trace), "--to", "pcapng", "-o", text(&joined.annotated)];
        let said = tcpprobe(&arguments, 1)?.stderr;
        ensure!(said.contains("not the capture that was joined") && said.contains(why), "{said}");
        ensure!(!joined.annotated.exists(), "a part of a file was left");
    }
    let moved = joined.capture.with_file_name("moved");
    std::fs::write(&moved, bytes)?;
    std::fs::remove_file(&joined.capture)?;
    let arguments = ["export", text(&joined.trace), "--to", "pcapng", "-o", text(&joined.annotated)];
    ensure!(tcpprobe(&arguments, 1)?.stderr.contains("--pcap FILE"));
    tcpprobe(&[&arguments[..], &["--pcap", text(&moved), "--capture", "1"]].concat(), 0)?;
    Ok(())
}
