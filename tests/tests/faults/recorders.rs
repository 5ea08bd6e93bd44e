//! Two recorders at once, and readers beside one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rusqlite::{Connection, OpenFlags};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools;

use crate::kept::{Endless, expect_next_works, expect_whole, record_into, tcpprobe};

/// The second one is refused and says who has the trace; the first one goes on. Also where nothing is recorded yet, by
/// another name of the trace, and for an import.
pub(crate) fn on_one_trace(scene: &Scene, _rounds: u32) -> Result<()> {
    let (trace, other_name) = (scene.file("one.db"), scene.file("same").join("one.db"));
    let first = record_into(scene, &trace, &["--no-pcap"])?;
    let pid = first.pid().to_string();
    std::os::unix::fs::symlink(".", scene.file("same"))?;
    let log = scene.file("log");
    std::fs::write(&log, "1.0 192.0.2.1:40000 192.0.2.2:5201 132 0x2000 0x1000 11 7 65535 250 29200\n")?;
    let refused = |name: &std::path::Path, pcaps: usize| -> Result<()> {
        let mut second = scene.lab.command(Ns::A, tools::tcpprobe()?);
        second.args(["record", "--duration", "1s", "--port", &scene.port.to_string(), "-w"]).arg(name);
        let said = tools::run(&mut second, STEP_LIMIT)?.expect_code(1)?.stderr;
        ensure!(said.contains(&format!("{}: process {pid} writes samples into this trace", name.display())), "{said}");
        let made = std::fs::read_dir(scene.file(""))?
            .filter_map(|e| e.ok())
            .filter(|e| e.path().extension().is_some_and(|x| x == "pcap"));
        ensure!(made.count() == pcaps, "the refused recording has made a capture");
        Ok(())
    };
    refused(&trace, 0)?;
    let traffic = Endless::start(scene)?;
    refused(&trace, 0)?;
    refused(&other_name, 0)?;
    let said = tcpprobe(&trace, "import", &[&log.display().to_string()])?.expect_code(1)?.stderr;
    ensure!(said.contains(&format!("process {pid} writes samples")), "{said}");
    let shown = tcpprobe(&trace, "show", &[])?.expect_code(0)?;
    ensure!(!shown.stderr.contains("tcpprobe: "), "a reader is refused: {}", shown.stderr);
    drop(traffic);
    Scene::stop(first)?;
    ensure!(expect_whole(&trace, true)? > 0, "the first recording has nothing");
    // a killed one leaves the trace to the next
    record_into(scene, &trace, &["--no-pcap"])?.stop(Signal::SIGKILL, STEP_LIMIT)?;
    expect_next_works(scene, &trace)
}

/// Both see the same segments.
pub(crate) fn on_two_traces(scene: &Scene, _rounds: u32) -> Result<()> {
    let traces = [scene.file("one.db"), scene.file("two.db")];
    let recorders = [record_into(scene, &traces[0], &[])?, record_into(scene, &traces[1], &[])?];
    scene.send(scene.transfer(2_000_000))?;
    let mut counted = Vec::new();
    for (recorder, trace) in recorders.into_iter().zip(&traces) {
        Scene::stop(recorder)?;
        expect_whole(trace, true)?;
        let db = Connection::open(trace)?;
        // what was sent by both, which the kernel's own counters know, less what it did not show to one of them
        let sql = "SELECT (SELECT count(*) FROM samples WHERE phase = 'transmit')
                   + (SELECT coalesce(sum(count), 0) FROM losses WHERE cause = 'not_shown')";
        counted.push(db.query_row(sql, [], |r| r.get::<_, i64>(0))?);
    }
    ensure!(counted[0] == counted[1] && counted[0] > 0, "they recorded {counted:?} transmissions");
    Ok(())
}

/// Queries in a loop, and one that reads all the time: the writer goes on, and the log is given back at the end.
pub(crate) fn readers(scene: &Scene, _rounds: u32) -> Result<()> {
    let trace = scene.file("read.db");
    let recorder = record_into(scene, &trace, &["--no-pcap", "--duration", "6s"])?;
    let traffic = Endless::start(scene)?;
    let (over, queries) = (AtomicBool::new(false), AtomicU64::new(0));
    let read = |hold: bool| -> Result<Vec<i64>> {
        let mut seen = Vec::new();
        let db = Connection::open_with_flags(&trace, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        if hold {
            db.execute_batch("BEGIN")?;
        }
        while !over.load(Ordering::Acquire) {
            let count = db.query_row("SELECT count(*) FROM samples", [], |r| r.get::<_, i64>(0))?;
            queries.fetch_add(1, Ordering::Relaxed);
            seen.push(count);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(seen)
    };
    let (finished, held, free) = std::thread::scope(|threads| {
        let holding = threads.spawn(|| read(true));
        let querying = threads.spawn(|| read(false));
        let finished = recorder.wait(STEP_LIMIT);
        over.store(true, Ordering::Release);
        (finished, holding.join(), querying.join())
    });
    drop(traffic);
    finished?.expect_code(0)?;
    let (Ok(held), Ok(free)) = (held, free) else { anyhow::bail!("a reader failed") };
    let (held, free) = (held?, free?);
    ensure!(held.first() == held.last(), "a transaction does not see one state");
    ensure!(free.is_sorted() && free.first() < free.last(), "readers do not see what is committed");
    ensure!(expect_whole(&trace, true)? > 0, "nothing was recorded");
    eprintln!("{} queries beside the recording", queries.load(Ordering::Relaxed));
    Ok(())
}
