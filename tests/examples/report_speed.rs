//! How long a browser takes to draw the graph of a page that `tcpprobe plot … -o PAGE.html` made: prints the
//! milliseconds from the navigation until everything is on the screen. Needs chromium and chromedriver.

#![allow(clippy::print_stdout, reason = "a command-line program")]

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/report/browser.rs"]
mod browser;

use anyhow::Context as _;
use browser::{Browser, DESKTOP};

fn main() -> anyhow::Result<()> {
    let page = std::env::args().nth(1).context("usage: report_speed PAGE")?;
    let browser = Browser::open(&std::fs::canonicalize(page)?, DESKTOP)?;
    browser.until("performance.getEntriesByName('drawn').length")?;
    let packets = browser.value("flowsShown.reduce((n, f) => n + f.segments.t_ns.length + f.acks.t_ns.length, 0)")?;
    let drawn_ms = browser.value("performance.getEntriesByName('drawn')[0].startTime")?;
    let ms = drawn_ms.as_f64().context("no time")?;
    println!("{packets} segments and ACKs: {ms:.0} ms");
    Ok(())
}
