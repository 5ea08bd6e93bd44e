//! Every scenario in `fixtures/scenarios`, through a real trace, a real capture, the join and SQL, on one thread and
//! on several. One test for each file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use tcpprobe_fixtures::rows::Expected;
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::join::{Joined, join};
use tcpprobe_trace::join::JoinWriter;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios");
    let trials = match files(&folder) {
        Ok(files) => files.into_iter().map(trial).collect(),
        Err(e) => vec![Trial::test("scenarios", move || Err(format!("{}: {e:#}", folder.display()).into()))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.insert(path);
        }
    }
    ensure!(!files.is_empty(), "no scenarios");
    Ok(files)
}

fn trial(path: PathBuf) -> Trial {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Trial::test(name.clone(), move || run(&path).map_err(|e| format!("scenario {name}: {e:#}").into()))
}

fn run(path: &Path) -> Result<()> {
    let scenario = Scenario::load(path)?;
    let folder = tempfile::tempdir()?;
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    scenario.write_trace(&trace)?;
    scenario.write_capture(&capture)?;

    let one = join_with(1, &trace, &capture)?;
    let several = join_with(4, &trace, &capture)?;
    ensure!(one.packets == several.packets, "one thread and four find different rows");
    ensure!(one.capture == several.capture, "one thread and four count differently");

    let mut writer = JoinWriter::begin(&trace)?;
    writer.write(&several.capture, several.packets.iter().copied())?;
    writer.commit()?;
    let db = Connection::open_with_flags(&trace, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let wrong = compare(&scenario, &db)?;
    ensure!(wrong.is_empty(), "{}\n{}\n\n{}\n", scenario.title, scenario.why.trim(), wrong.join("\n"));
    Ok(())
}

fn join_with(threads: usize, trace: &Path, capture: &Path) -> Result<Joined> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    Ok(pool.install(|| join(trace, capture))?)
}

/// What differs, in words.
fn compare(scenario: &Scenario, db: &Connection) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for packet in &scenario.packets {
        let mut unexpected = sockets_of(db, packet.number)?;
        for expected in &packet.expected {
            let name = &scenario.flows[expected.flow].name;
            let arrow = if expected.is_out { '>' } else { '<' };
            let here = format!("packet {} {name}{arrow}", packet.number);
            unexpected.remove(&(expected.flow as i64 + 1, expected.is_out));
            let row = row(db, packet.number, expected).with_context(|| here.clone())?;
            match row {
                None => wrong.push(format!("{here}: expected {}, got no row", words(scenario, expected))),
                Some(row) if !row.is(expected) => {
                    let (expected, got) = (words(scenario, expected), row.words(scenario));
                    wrong.push(format!("{here}: expected {expected}, got {got}"));
                }
                Some(_) => {}
            }
        }
        for (flow, is_out) in unexpected {
            let arrow = if is_out { '>' } else { '<' };
            let name = usize::try_from(flow - 1).ok().and_then(|f| scenario.flows.get(f)).map_or("?", |f| &f.name);
            wrong.push(format!("packet {}: a row for {name}{arrow} that none expects", packet.number));
        }
    }
    Ok(wrong)
}

fn sockets_of(db: &Connection, number: u64) -> Result<BTreeSet<(i64, bool)>> {
    let mut statement = db.prepare_cached("SELECT flow_id, dir = 'out' FROM packet_state WHERE number = ?1")?;
    let rows = statement.query_map([number as i64], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A row of `packet_state`, as far as it is compared.
struct Row {
    matched: String,
    sample: Option<(i64, i64)>,
    reason: Option<String>,
    retransmission: Option<bool>,
    values: Vec<(String, Value)>,
}

fn row(db: &Connection, number: u64, expected: &Expected) -> Result<Option<Row>> {
    let columns: String = expected.values.iter().map(|(name, _)| format!(", p.\"{name}\"")).collect();
    let mut statement = db.prepare_cached(&format!(
        "SELECT p.match, s.flow_id, s.serial, p.reason, p.retransmission{columns}
         FROM packet_state p LEFT JOIN samples s ON s.id = p.sample_id
         WHERE p.number = ?1 AND p.flow_id = ?2 AND p.dir = ?3"
    ))?;
    let direction = if expected.is_out { "out" } else { "in" };
    let mut rows = statement.query((number as i64, expected.flow as i64 + 1, direction))?;
    let Some(r) = rows.next()? else { return Ok(None) };
    let mut values = Vec::new();
    for (i, (name, _)) in expected.values.iter().enumerate() {
        values.push((name.clone(), r.get(5 + i)?));
    }
    let row = Row {
        matched: r.get(0)?,
        sample: r.get::<_, Option<i64>>(1)?.zip(r.get(2)?),
        reason: r.get(3)?,
        retransmission: r.get(4)?,
        values,
    };
    if rows.next()?.is_some() {
        bail!("two rows for one socket");
    }
    Ok(Some(row))
}

impl Row {
    fn is(&self, expected: &Expected) -> bool {
        let sample = expected.sample.map(|(flow, serial)| (flow as i64 + 1, serial as i64));
        let sample_fits = match &expected.sample {
            Some(_) => self.sample == sample,
            None => self.matched != "none" || self.sample.is_none(),
        };
        expected.matches.contains(&self.matched)
            && sample_fits
            && expected.reason.as_ref().is_none_or(|r| self.reason.as_ref() == Some(r))
            && expected.retransmission.is_none_or(|r| self.retransmission == Some(r))
            && expected.values.iter().zip(&self.values).all(|((_, e), (_, got))| *got == Value::Integer(*e))
    }

    fn words(&self, scenario: &Scenario) -> String {
        let mut text = self.matched.clone();
        if let Some((flow, serial)) = self.sample {
            let flow = usize::try_from(flow - 1).ok().and_then(|f| scenario.flows.get(f));
            text += &format!(" {}{serial}", flow.map_or("?", |f| f.name.as_str()));
        }
        if let Some(reason) = &self.reason {
            text += &format!(" ({reason})");
        }
        match self.retransmission {
            Some(true) => text += " rtx",
            Some(false) => text += " new",
            None => {}
        }
        for (name, value) in &self.values {
            match value {
                Value::Integer(i) => text += &format!(" {name}={i}"),
                other => text += &format!(" {name}={other:?}"),
            }
        }
        text
    }
}

fn words(scenario: &Scenario, e: &Expected) -> String {
    let mut text = e.matches.join("|");
    if let Some((flow, serial)) = e.sample {
        text += &format!(" {}{serial}", scenario.flows[flow].name);
    }
    if let Some(reason) = &e.reason {
        text += &format!(" ({reason})");
    }
    if let Some(rtx) = e.retransmission {
        text += if rtx { " rtx" } else { " new" };
    }
    for (name, value) in &e.values {
        text += &format!(" {name}={value}");
    }
    text
}
