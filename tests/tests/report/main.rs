//! `tcpprobe report` and `tcpprobe plot … .html`, as a browser shows them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod browser;
mod trace;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};
use tcpprobe_tests::preconditions;

use browser::{Browser, DESKTOP, Screen};
use trace::Trace;

const PHONE: Screen = Screen { width: 360, height: 740, scheme: "dark" };
/// WebDriver's codes of keys.
const ESCAPE: &str = "\u{e00c}";
const ENTER: &str = "\u{e007}";
const DOWN: &str = "\u{e015}";
const LEFT: &str = "\u{e012}";
/// A test's name and its steps.
type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("a_page_loads_without_a_complaint_and_asks_for_nothing", loads),
    ("a_hover_shows_the_numbers_of_sql", hover),
    ("the_graph_zooms_by_keys_and_by_a_drag", zoom),
    ("the_table_of_flows_is_searched_and_sorted", search_and_sort),
    ("waits_are_those_of_sql_and_lead_to_their_place", waits),
    ("a_phone_shows_all_without_scrolling_sideways", phone),
    ("dark_and_light_follow_the_system_and_the_button", theme),
    ("a_keyboard_is_enough", keyboard),
    ("text_of_a_trace_stays_text", hostile_text),
    ("flows_are_compared_on_the_same_axes", compare),
    ("what_is_not_there_is_said", what_is_not_there),
];

fn main() -> ExitCode {
    let missing = preconditions::missing_program(&["chromium", "chromedriver"]);
    let trials = TESTS.iter().map(|&(name, test)| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => test().map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into()),
        })
    });
    // a browser that draws by software takes all processors that there are
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn open_flow(browser: &Browser, row: usize) -> Result<()> {
    browser.click(&format!("#flow-table tbody tr:nth-child({row}) button"))?;
    drawn(browser)
}

fn drawn(browser: &Browser) -> Result<()> {
    browser.until("document.querySelector('#graph .scatterlayer .trace')")
}

fn range(browser: &Browser, letter: &str) -> Result<(f64, f64)> {
    let range = browser.value(&format!("graph.layout.{letter}axis.range"))?;
    Ok((range[0].as_f64().context("no range")?, range[1].as_f64().context("no range")?))
}

/// The column of a table by the text of its cells' values, in the order that is shown.
fn column(browser: &Browser, table: &str, position: usize) -> Result<Vec<String>> {
    let cells = format!(
        "[...document.querySelectorAll('{table} tbody tr:not([hidden]) td:nth-child({position})')].map(c => c.dataset.value ?? '')"
    );
    let values = browser.value(&cells)?;
    Ok(values.as_array().context("no table")?.iter().map(|v| v.as_str().unwrap().to_owned()).collect())
}

/// Where a point of the graph is on the screen.
fn place(browser: &Browser, x: f64, y: f64) -> Result<(f64, f64)> {
    let place = browser.value(&format!(
        "(() => {{ const l = graph._fullLayout, box = graph.getBoundingClientRect();
return [box.left + l.xaxis._offset + l.xaxis.l2p({x}), box.top + l.yaxis._offset + l.yaxis.l2p({y})]; }})()"
    ))?;
    Ok((place[0].as_f64().context("no place")?, place[1].as_f64().context("no place")?))
}

fn loads() -> Result<()> {
    let trace = Trace::stall(true)?;
    let browser = trace.report(DESKTOP)?;
    ensure!(browser.text("h1")?.contains("trace.db"));
    open_flow(&browser, 1)?;
    browser.is_clean()?;
    let drawn = browser.value("graph.data.reduce((n, trace) => n + trace.x.length, 0)")?;
    ensure!(drawn.as_u64() > Some(1_000), "an empty graph: {drawn}");
    ensure!(browser.text("#flow-source")?.contains("stall.pcap.gz"));
    Ok(())
}

fn hover() -> Result<()> {
    let trace = Trace::stall(true)?;
    let packet = trace
        .sql(
            "SELECT p.number, p.len, p.match, p.snd_cwnd, p.snd_ssthresh, p.bytes_in_flight, p.srtt_us, p.seq - (SELECT seq
FROM packet_state s WHERE s.flags & 2 AND s.dir = 'out') AS start, p.ca_state FROM packet_state p
WHERE p.dir = 'out' AND p.retransmission = 1 ORDER BY p.number LIMIT 1 OFFSET 5",
        )?
        .remove(0);
    let browser = trace.report(DESKTOP)?;
    open_flow(&browser, 1)?;
    let time = browser.value(&format!(
        "(() => {{ const s = readData('flow-1').segments; return s.t_ns[s.number.indexOf({})] / 1e9; }})()",
        packet["number"]
    ))?;
    let (x, y) = (time.as_f64().context("the packet is not there")?, packet["start"].as_f64().unwrap());
    browser.value(&format!(
        "Plotly.relayout(graph, {{ 'xaxis.range': [{x} - 5e-4, {x} + 5e-4], 'yaxis.range': [{y} - 4000, {y} + 4000] }}) && 1"
    ))?;
    browser.until("graph.layout.xaxis.range[1] - graph.layout.xaxis.range[0] < 0.0011")?;
    browser.mouse(place(&browser, x, y)?, None)?;
    browser.until("!document.getElementById('tip').hidden")?;
    let tip = browser.text("#tip")?.replace(',', "");
    let name = ["Open", "Disorder", "CWR", "Recovery", "Loss"][packet["ca_state"].as_u64().unwrap() as usize];
    for line in [
        format!("packet {} · match {}", packet["number"], packet["match"].as_str().unwrap()),
        "retransmission".to_owned(),
        format!("seq {} – {} {} bytes", packet["start"], y + packet["len"].as_f64().unwrap(), packet["len"]),
        format!("snd_cwnd {}", packet["snd_cwnd"]),
        format!("snd_ssthresh {}", packet["snd_ssthresh"]),
        format!("bytes_in_flight {}", packet["bytes_in_flight"]),
        format!("srtt {:.3} ms", packet["srtt_us"].as_f64().unwrap() / 1e3),
        format!("ca_state {name}"),
    ] {
        ensure!(tip.lines().any(|l| l == line), "`{line}` in:\n{tip}");
    }
    Ok(())
}

fn zoom() -> Result<()> {
    let browser = Trace::stall(true)?.report(DESKTOP)?;
    open_flow(&browser, 1)?;
    let whole = range(&browser, "x")?;
    let length = |r: (f64, f64)| r.1 - r.0;
    browser.keys("+")?;
    let zoomed = range(&browser, "x")?;
    ensure!((length(zoomed) * 2.0 - length(whole)).abs() < 1e-6, "{whole:?} {zoomed:?}");
    browser.keys(LEFT)?;
    let earlier = range(&browser, "x")?;
    ensure!(earlier.0 < zoomed.0 && (length(earlier) - length(zoomed)).abs() < 1e-6, "{zoomed:?} {earlier:?}");
    browser.keys("-")?;
    ensure!((length(range(&browser, "x")?) - length(whole)).abs() < 1e-6);
    browser.keys("0")?;
    ensure!(range(&browser, "x")? == whole);
    let (from, to) = (place(&browser, 0.5, 5e5)?, place(&browser, 1.5, 2e6)?);
    browser.mouse(from, Some(to))?;
    browser.until(&format!("graph.layout.xaxis.range[0] !== {}", whole.0))?;
    let ((left, right), (low, high)) = (range(&browser, "x")?, range(&browser, "y")?);
    let near = |a: f64, b: f64, by: f64| (a - b).abs() < by;
    ensure!(near(left, 0.5, 0.02) && near(right, 1.5, 0.02), "{left} to {right}");
    ensure!(near(low, 5e5, 3e4) && near(high, 2e6, 3e4), "{low} to {high}");
    browser.click("[data-key='0']")?;
    ensure!(range(&browser, "x")? == whole);
    browser.is_clean()?;
    Ok(())
}

fn search_and_sort() -> Result<()> {
    let trace = Trace::bulk()?;
    let browser = trace.report(DESKTOP)?;
    let flows = |order: &str| -> Result<Vec<String>> {
        let rows = trace.sql(&format!("SELECT flow_id, local_port FROM flow_summary ORDER BY {order}"))?;
        Ok(rows.iter().map(|row| row["flow_id"].to_string()).collect())
    };
    ensure!(column(&browser, "#flow-table", 1)? == flows("bytes_acked DESC, samples DESC, flow_id")?);
    browser.click("#flow-table th:nth-child(1) button")?;
    ensure!(column(&browser, "#flow-table", 1)? == flows("flow_id DESC")?);
    browser.click("#flow-table th:nth-child(1) button")?;
    ensure!(column(&browser, "#flow-table", 1)? == flows("flow_id")?);
    ensure!(browser.value("document.querySelector('#flow-table th').getAttribute('aria-sort')")? == "ascending");
    browser.keys("/")?;
    browser.keys("10007")?;
    ensure!(column(&browser, "#flow-table", 1)? == ["7"], "the port 10007 is flow 7's");
    ensure!(browser.text("#found")? == "1 of 12 flows");
    browser.keys(ENTER)?;
    drawn(&browser)?;
    ensure!(browser.text("#flow-title")?.starts_with("Flow 7: "));
    browser.is_clean()?;
    Ok(())
}

fn waits() -> Result<()> {
    let trace = Trace::stall(false)?;
    let expected = trace.sql("SELECT * FROM waiting_totals WHERE flow_id = 1 ORDER BY total_ns DESC")?;
    ensure!(expected.len() == 5, "the recording has waits of all reasons");
    let browser = trace.report(DESKTOP)?;
    open_flow(&browser, 1)?;
    for (position, name) in [(1, "reason"), (2, "gaps"), (3, "total_ns"), (4, "longest_ns")] {
        let of_sql: Vec<_> =
            expected.iter().map(|r| r[name].as_str().map_or(r[name].to_string(), str::to_owned)).collect();
        ensure!(column(&browser, "#waiting-totals", position)? == of_sql, "{name}: {of_sql:?}");
    }
    let longest = trace.sql(
        "SELECT (ts_ns - (SELECT first_ns FROM flows)) / 1e9 AS start, gap_ns / 1e9 AS length FROM why_waiting
ORDER BY gap_ns DESC LIMIT 1",
    )?;
    browser.click("#waiting-longest tbody button")?;
    let (from, to) = range(&browser, "x")?;
    let (start, length) = (longest[0]["start"].as_f64().unwrap(), longest[0]["length"].as_f64().unwrap());
    ensure!(from < start && start + length < to && to - from < 2.0 * length, "{from} to {to}: {longest:?}");
    ensure!(browser.text("#flow-source")?.contains("no capture was joined"));
    Ok(())
}

fn phone() -> Result<()> {
    let browser = Trace::stall(true)?.report(PHONE)?;
    let fits = || -> Result<()> {
        let width = browser.value("document.scrollingElement.scrollWidth")?;
        ensure!(width.as_u64() <= Some(360), "{width} wide");
        Ok(())
    };
    fits()?;
    open_flow(&browser, 1)?;
    fits()?;
    Ok(())
}

fn theme() -> Result<()> {
    let trace = Trace::stall(false)?;
    let page = trace.page(&["report", "trace.db"])?.0;
    let ground = |browser: &Browser| browser.value("getComputedStyle(document.body).backgroundColor");
    let light = Browser::open(&page, DESKTOP)?;
    let (white, paper) = (ground(&light)?, "graph.layout.paper_bgcolor");
    open_flow(&light, 1)?;
    let white_paper = light.value(paper)?;
    light.click("#theme")?;
    let black = ground(&light)?;
    ensure!(black != white && light.value(paper)? != white_paper, "the button changes page and graph");
    let dark = Browser::open(&page, Screen { scheme: "dark", ..DESKTOP })?;
    ensure!(ground(&dark)? == black);
    dark.click("#theme")?;
    ensure!(ground(&dark)? == white);
    Ok(())
}

fn keyboard() -> Result<()> {
    let browser = Trace::bulk()?.report(DESKTOP)?;
    browser.keys(DOWN)?;
    browser.keys(DOWN)?;
    let second = browser.value("document.activeElement.textContent")?;
    browser.keys(ENTER)?;
    drawn(&browser)?;
    ensure!(browser.text("#flow-title")?.starts_with(&format!("Flow {}: ", second.as_str().unwrap())));
    let before = range(&browser, "x")?;
    browser.keys("+")?;
    ensure!(range(&browser, "x")? != before);
    browser.keys(ESCAPE)?;
    browser.until("document.getElementById('detail').hidden")?;
    ensure!(browser.value("document.activeElement.textContent")? == second, "back where it was");
    let without_name =
        "[...document.querySelectorAll('button, input')].filter(e => !e.textContent && !e.labels?.length).length";
    ensure!(browser.value(without_name)? == 0, "each control has a name");
    Ok(())
}

fn hostile_text() -> Result<()> {
    let evil = "</script><img src=x onerror=\"document.title=1\"><!--\u{2028}&lt;\u{1b}[2J";
    for shown_by in ["report", "plot"] {
        let trace = Trace::stall(true)?;
        trace.change(&format!(
            "UPDATE sessions SET host = '{evil}', command = '{evil}', kernel = '{evil}'; UPDATE captures SET path = '{evil}';
UPDATE flows SET congestion = '{evil}'"
        ));
        let flow: &[&str] = if shown_by == "plot" { &["--flow", "1"] } else { &[] };
        let browser = Browser::open(&trace.page(&[&[shown_by, "trace.db"], flow].concat())?.0, DESKTOP)?;
        if shown_by == "report" {
            ensure!(browser.text("#tables")?.contains("<img src=x onerror"), "it is shown, as text");
            open_flow(&browser, 1)?;
        }
        ensure!(browser.text("#flow-title")?.contains("<img src=x onerror"), "it is shown, as text");
        ensure!(browser.value("document.querySelectorAll('img').length")? == 0);
        ensure!(browser.value("document.title")? != "1");
        ensure!(!browser.text("body")?.contains('\u{1b}'));
        browser.is_clean()?;
    }
    Ok(())
}

fn compare() -> Result<()> {
    let trace = Trace::bulk()?;
    let both = ["plot", "trace.db", "--flow", "2", "--flow", "5", "--x", "0.001..0.003", "--y", "10k.."];
    let browser = Browser::open(&trace.page(&both)?.0, DESKTOP)?;
    drawn(&browser)?;
    let title = browser.text("#flow-title")?;
    ensure!(title.contains("Flow 2: ") && title.contains("Flow 5: "), "{title}");
    ensure!(range(&browser, "x")? == (0.001, 0.003) && range(&browser, "y")?.0 == 10_000.0);
    let rtt_ms = trace.sql("SELECT max(srtt_us) / 1e3 AS most FROM samples WHERE flow_id IN (2, 5)")?.remove(0);
    let shown = browser.value("graph._fullLayout.yaxis3.range")?[1].as_f64().context("no range")?;
    let most = rtt_ms["most"].as_f64().context("no RTT")?;
    ensure!(shown > most && shown < 2.0 * most, "an RTT of {most} ms on an axis up to {shown}");
    browser.keys("+")?;
    ensure!(browser.value("graph._fullLayout.xaxis2.range")? == browser.value("graph._fullLayout.xaxis.range")?);
    browser.is_clean()?;
    Ok(())
}

fn what_is_not_there() -> Result<()> {
    let trace = Trace::bulk()?;
    let (page, said) = trace.page(&["report", "trace.db", "--graphs", "2"])?;
    ensure!(said.contains("left out: the graphs of 10 of 12 flows"), "{said}");
    ensure!(said.contains("12 flows, 2 graphs") && said.contains(" MB"), "{said}");
    let browser = Browser::open(&page, DESKTOP)?;
    ensure!(browser.text("#left-out")?.contains("the graphs of 10 of 12 flows"));
    ensure!(browser.value("document.querySelectorAll('#flow-table td button').length")? == 2);
    drop(browser);
    for (arguments, word) in [
        (&["report", "trace.db", "-o", "page.html"][..], "never overwritten"),
        (&["report", "trace.db", "-o", "other.html", "--flow", "99"], "no flow 99"),
    ] {
        let said = trace.tcpprobe(arguments, 1)?.stderr;
        ensure!(said.contains(word), "{said}");
    }
    ensure!(!trace.folder.path().join("other.html").exists(), "half a page");
    let empty = Trace::stall(false)?;
    empty.change(
        "PRAGMA foreign_keys = OFF; DELETE FROM sample_rows; DELETE FROM sample_runs; DELETE FROM flows; DELETE FROM losses;",
    );
    let browser = empty.report(DESKTOP)?;
    ensure!(browser.text("main")?.contains("This trace holds no flows"));
    browser.is_clean()?;
    Ok(())
}
