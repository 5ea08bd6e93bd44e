//! Graphs for xplot, read by a parser of its language: every command, and what it draws, against the trace.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use tcpprobe_fixtures::bulk::Bulk;

use super::{Traced, export, tcpprobe};

/// Where in a graph, in µs and in sequence numbers.
type Place = (u64, i64);

/// A graph, as far as tests look at it.
#[derive(Default)]
struct Graph {
    title: String,
    /// Colour, from, to.
    lines: Vec<(String, Place, Place)>,
    /// Command, colour, time, height.
    marks: Vec<(String, String, u64, i64)>,
    /// Colour, time, height, text.
    texts: Vec<(String, u64, i64, String)>,
}

const COLOURS: [&str; 10] =
    ["white", "green", "red", "blue", "yellow", "purple", "orange", "magenta", "pink", "gray50"];
const MARKS: [&str; 14] = [
    "x", "dot", "plus", "box", "diamond", "utick", "ltick", "dtick", "rtick", "htick", "vtick", "uarrow", "darrow",
    "larrow",
];
const TEXTS: [&str; 5] = ["ctext", "ltext", "rtext", "atext", "btext"];

/// Reads a graph: the two coordinate types first, then commands of a line, texts with theirs on the next, `go` at the end.
fn parse(file: &str) -> Result<Graph> {
    let mut lines = file.lines();
    ensure!(lines.next() == Some("timeval double"), "no coordinate types");
    let mut graph = Graph::default();
    let mut colour = String::from("white");
    loop {
        let line = lines.next().context("no `go`")?;
        let words: Vec<&str> = line.split(' ').collect();
        let mut text = || lines.next().map(str::to_owned).context("no text behind a command that wants one");
        match words[..] {
            ["title"] => graph.title = text()?,
            ["xlabel" | "ylabel"] => _ = text()?,
            [name] if COLOURS.contains(&name) => colour = name.to_owned(),
            [name, x, y] if MARKS.contains(&name) => {
                graph.marks.push((name.to_owned(), colour.clone(), time(x)?, y.parse()?));
            }
            [name, x, y] if TEXTS.contains(&name) => {
                graph.texts.push((colour.clone(), time(x)?, y.parse()?, text()?));
            }
            ["line", x1, y1, x2, y2] => {
                graph.lines.push((colour.clone(), (time(x1)?, y1.parse()?), (time(x2)?, y2.parse()?)));
            }
            ["go"] => break,
            _ => bail!("no command of xplot: {line}"),
        }
    }
    ensure!(lines.next().is_none(), "something behind `go`");
    Ok(graph)
}

/// Seconds with six digits behind the point.
fn time(word: &str) -> Result<u64> {
    let (seconds, digits) = word.split_once('.').context("no point in a time")?;
    ensure!(digits.len() == 6, "{word}");
    Ok(seconds.parse::<u64>()? * 1_000_000 + digits.parse::<u64>()?)
}

impl Graph {
    fn heights(&self, colour: &str) -> BTreeSet<i64> {
        self.lines.iter().filter(|l| l.0 == colour).flat_map(|l| [l.1.1, l.2.1]).collect()
    }

    fn texts(&self, word: &str) -> usize {
        self.texts.iter().filter(|t| t.3 == word).count()
    }
}

pub(super) fn a_graph_has_what_the_samples_have() -> Result<()> {
    let traced = Traced::bulk(&Bulk { packets: 3_000, flows: 1, packets_a_flow: None, loss_every: 100, window: 20 })?;
    let graph = parse(&export(&traced.trace, &["--to", "xplot", "--flow", "1"])?.stdout)?;
    ensure!(graph.title == "10.0.0.1:10001 > 192.168.0.1:443 (flow 1)", "{}", graph.title);
    let db = traced.db()?;
    let mut statement = db.prepare(
        "SELECT ts_ns / 1000, seq, seq + len + (flags & 1) + (flags >> 1 & 1), kind = 'retransmit' FROM samples
         WHERE kind IN ('send', 'retransmit') AND len + (flags & 3) > 0 ORDER BY id",
    )?;
    let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?, r.get(2)?, r.get(3)?));
    let wanted: Vec<(u64, i64, i64, bool)> = statement.query_map([], row)?.collect::<Result<_, _>>()?;
    let segments = graph.lines.iter().filter(|l| l.0 == "white" || l.0 == "red");
    let found: Vec<_> = segments.map(|(c, from, to)| (from.0, from.1, to.1, c == "red")).collect();
    ensure!(found == wanted, "{} segments, not {}", found.len(), wanted.len());
    let sent_again = wanted.iter().filter(|w| w.3).count();
    ensure!(sent_again > 10 && graph.texts("R") == sent_again && graph.texts("SYN") == 1, "{sent_again} sent again");
    for arrow in ["uarrow", "darrow"] {
        ensure!(graph.marks.iter().filter(|m| m.0 == arrow).count() == wanted.len(), "{arrow}");
    }
    for (colour, height) in
        [("green", "snd_una"), ("yellow", "snd_una + snd_wnd"), ("blue", "snd_una + snd_cwnd * mss")]
    {
        let mut statement = db.prepare(&format!("SELECT DISTINCT {height} FROM samples"))?;
        let wanted: BTreeSet<i64> = statement.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
        ensure!(graph.heights(colour) == wanted, "{colour}: not every {height}");
    }
    let sacked: i64 = db.query_row("SELECT max(sacked_out) FROM samples", [], |r| r.get(0))?;
    ensure!(sacked > 0 && graph.texts(&format!("S{sacked}")) > 0, "no S{sacked}");
    Ok(())
}

pub(super) fn numbers_that_wrap_go_on_upwards() -> Result<()> {
    let traced = Traced::recorded("sequence_wrap")?;
    let graph = parse(&export(&traced.trace, &["--to", "xplot", "--flow", "1"])?.stdout)?;
    let heights: Vec<i64> = graph.lines.iter().flat_map(|l| [l.1.1, l.2.1]).collect();
    let (low, high) = (heights.iter().min().context("empty")?, heights.iter().max().context("empty")?);
    ensure!(*low < 1 << 32 && *high >= 1 << 32 && high - low < 1 << 24, "{low} to {high}");
    Ok(())
}

pub(super) fn a_folder_has_a_graph_of_each_flow_that_sent() -> Result<()> {
    let traced = Traced::bulk(&Bulk { packets: 500, flows: 3, packets_a_flow: None, loss_every: 0, window: 4 })?;
    // text that would be commands
    traced.db()?.execute("UPDATE flows SET local_addr = 'x' || char(10) || 'go' WHERE id = 2", [])?;
    let out = traced.path("graphs")?;
    let said = export(&traced.trace, &["--to", "xplot", "-o", &out])?.stderr;
    ensure!(said.contains("graphs: 3 graphs, "), "{said}");
    for flow in 1..=3 {
        let graph = parse(&std::fs::read_to_string(format!("{out}/flow-{flow}.xpl"))?)?;
        ensure!(graph.lines.len() > 100, "flow {flow}: {} lines", graph.lines.len());
    }
    let one = ["export", &traced.trace, "--to", "xplot"];
    let said = tcpprobe(&one)?.expect_code(1)?.stderr;
    ensure!(said.contains("3 flows, and a file has the graph of one: choose it with --flow"), "{said}");
    Ok(())
}
