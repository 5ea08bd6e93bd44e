//! Errors name what they are about: the trace that does not have what is asked for, the output that takes no more.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

/// A folder with the tutorial's recording.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let tutorial = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial");
        let folder = Folder(tempfile::tempdir().unwrap());
        for file in ["stall.db", "stall.pcap.gz"] {
            std::fs::copy(tutorial.join(file), folder.0.path().join(file)).unwrap();
        }
        folder
    }

    fn joined() -> Folder {
        let folder = Folder::new();
        let joined = folder.run("join stall.db stall.pcap.gz");
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        folder
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(env!("CARGO_BIN_EXE_tcpprobe")).args(words(arguments)).output().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// SQL has blanks, and stands last, behind a colon.
fn words(arguments: &str) -> Vec<&str> {
    match arguments.split_once(": ") {
        Some((before, sql)) => before.split(' ').chain([sql]).collect(),
        None => arguments.split(' ').collect(),
    }
}

fn error(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn what_a_trace_does_not_have() {
    let folder = Folder::new();
    for (arguments, wanted) in [
        ("export stall.db --to csv --flow 9", "no flow 9; there is flow 1"),
        ("export stall.db --to xplot --flow 9", "no flow 9; there is flow 1"),
        ("export stall.db --to tcpprobe --flow 9", "no flow 9; `tcpprobe show stall.db` lists them"),
        ("export stall.db --to pcapng --flow 9", "no flow 9; `tcpprobe show stall.db` lists them"),
        ("plot stall.db -o plot.svg --flow 9", "no flow 9; `tcpprobe show stall.db` lists them"),
        ("report stall.db -o page.html --flow 9", "no flow 9; `tcpprobe show stall.db` lists them"),
        ("export stall.db --to csv --session 9", "no flows in session 9; there is session 1"),
        (
            "export stall.db --to tcpprobe --session 9",
            "no flows in session 9; `tcpprobe show stall.db` says what it holds",
        ),
        ("export stall.db --to parquet -o columns --table packets", "no rows of these flows in packets; "),
        ("export stall.db --to pcapng", "no capture is joined; join one first: `tcpprobe join stall.db CAPTURE`"),
        ("plot stall.db -o plot.svg --flow 1 --x 9000..9001", "flow 1: no sample of it has a sender's state in this"),
    ] {
        let said = error(&folder.run(arguments));
        assert!(said.contains(&format!("stall.db: {wanted}")), "{arguments}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let folder = Folder::joined();
    let said = error(&folder.run("export stall.db --to pcapng --capture 9"));
    assert!(said.contains("stall.db: no capture \"9\"; choose one with --capture: 1 "), "{said}");
}

#[test]
fn standard_output_that_takes_no_more() {
    let folder = Folder::joined();
    for arguments in [
        "show stall.db",
        "sql --list",
        "sql stall.db: SELECT * FROM samples",
        "sql stall.db --format json: SELECT * FROM samples",
        "sql stall.db --format csv: SELECT * FROM samples",
        "check",
        "check --format json",
        "generate bash",
        "export stall.db --to tcpprobe",
        "export stall.db --to pcapng",
        "export stall.db --to xplot",
        "export stall.db --to csv",
        "export stall.db --to json",
        "plot stall.db --flow 1 --format svg -o -",
        "plot stall.db --flow 1 --format png -o -",
        "report stall.db -o -",
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = folder.command(env!("CARGO_BIN_EXE_tcpprobe"));
        let said = error(&command.args(words(arguments)).stdout(full).output().unwrap());
        assert!(said.contains("standard output: No space left on device"), "{arguments}: {said}");
        assert!(!said.contains("output: standard"), "{arguments}: {said}");
    }
}

#[test]
fn a_file_or_folder_that_takes_no_more() {
    let folder = Folder::joined();
    let before = folder.names();
    for (arguments, output) in [
        ("export stall.db --to tcpprobe -o", "lines"),
        ("export stall.db --to pcapng -o", "annotated.pcapng"),
        ("export stall.db --to xplot -o", "flow.xpl"),
        ("export stall.db --to xplot -o", "graphs"),
        ("export stall.db --to csv -o", "samples.csv"),
        ("export stall.db --to json -o", "samples.json"),
        ("export stall.db --to parquet -o", "samples.parquet"),
        ("export stall.db --to parquet -o", "columns"),
        ("plot stall.db --flow 1 -o", "flow.svg"),
        ("plot stall.db --flow 1 -o", "flow.html"),
        ("report stall.db -o", "page.html"),
    ] {
        let mut limited = folder.command("prlimit");
        limited.args(["--fsize=4096", env!("CARGO_BIN_EXE_tcpprobe")]).args(words(arguments)).arg(output);
        let said = error(&limited.output().unwrap());
        assert!(said.contains(&format!("cannot make {output}: ")), "{arguments} {output}: {said}");
        assert!(said.contains("File too large"), "{arguments} {output}: {said}");
        assert_eq!(folder.names(), before, "{arguments} {output} left something");
    }
}
