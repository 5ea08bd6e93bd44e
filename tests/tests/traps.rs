//! `docs/join.md` names the tests of each trap: they exist, and no trap is without one.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How many there are.
const TRAPS: usize = 52;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The Rust sources below a folder of the workspace.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn sources_of(folders: &[&str]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in folders {
        sources(&root().join(folder), &mut all);
    }
    all
}

/// Functions under `#[test]`; other attributes and comments may stand between.
fn test_functions(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        match line.strip_prefix("fn ") {
            Some(rest) => std::mem::take(&mut is_test).then(|| rest.split('(').next().unwrap_or(rest)),
            None => {
                is_test = line == "#[test]" || (is_test && (line.starts_with('#') || line.starts_with("//")));
                None
            }
        }
    })
}

/// What stands in quotes behind a word.
fn quoted<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(word).skip(1).filter_map(|rest| rest.strip_prefix('"')?.split('"').next())
}

fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("fixtures/scenarios")).unwrap() {
        names.insert(entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned());
    }
    for path in sources_of(&["probes", "trace", "replay", "cli", "fixtures", "tests"]) {
        names.extend(test_functions(&std::fs::read_to_string(path).unwrap()).map(str::to_owned));
    }
    for listed in ["tests/tests/namespaces/main.rs", "tests/tests/wireshark.rs"].map(read) {
        // a test's row may be on one line or on several
        let rows =
            listed.split("const TESTS").nth(1).unwrap().split("\n];").next().unwrap().replace("(\n        ", "(");
        names.extend(quoted(&rows, "(").map(str::to_owned));
    }
    // of the kernel matrix, one on each kernel
    let runs = read("tests/tests/kernels/main.rs");
    names
        .extend(quoted(runs.split("const RUNS").nth(1).unwrap().split("\n];").next().unwrap(), "(").map(str::to_owned));
    for world in quoted(&read("fixtures/src/sim/worlds.rs"), "name: ") {
        names.extend([format!("world_{world}"), format!("thinned_{world}")]);
    }
    // those that have a structure for each test
    for path in sources_of(&["tests/tests"]) {
        names.extend(quoted(&std::fs::read_to_string(path).unwrap(), "name: ").map(str::to_owned));
    }
    names
}

/// Numbers and tests of the rows of the table.
fn table() -> Vec<(usize, Vec<String>)> {
    let text = read("docs/join.md");
    let cells = |line: &str| line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows = text.lines().filter(|l| l.starts_with('|')).map(cells);
    rows.filter_map(|cells| {
        let number = cells.get(1)?.parse().ok()?;
        assert_eq!(cells.len(), 6, "row {number} has four cells");
        Some((number, cells[4].split('`').skip(1).step_by(2).map(str::to_owned).collect()))
    })
    .collect()
}

#[test]
fn every_trap_has_tests_that_exist() {
    let tests = tests();
    let table = table();
    let numbers: Vec<usize> = table.iter().map(|row| row.0).collect();
    assert_eq!(numbers, (1..=TRAPS).collect::<Vec<_>>(), "each trap once, in order");
    for (number, named) in &table {
        assert!(!named.is_empty(), "trap {number} has no test");
        for name in named {
            assert!(tests.contains(name), "trap {number}: there is no test {name}");
        }
    }
}

#[test]
fn only_tests_are_taken_for_tests() {
    let text = "fn helper() {}\n#[test]\n// why\n#[ignore]\nfn a_test() {}\n    fn inner(x: u8) {}\n";
    assert_eq!(test_functions(text).collect::<Vec<_>>(), ["a_test"]);
    let tests = tests();
    assert!(tests.contains("sender_capture_50mb_1pct_loss") && tests.contains("dropped_in_own_queue"));
    assert!(!tests.contains("test_functions") && !tests.contains("sender_capture"));
}

/// What the tracer sends would be recorded by itself.
#[test]
fn the_tracer_opens_no_connection() {
    for path in sources_of(&["probes/src", "trace/src", "replay/src", "cli/src"]) {
        if path.ends_with("tests.rs") {
            // they try what a confined process may not
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        // what a socket is made with; an option of one that captures packets connects nothing
        for word in
            ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "SockType", "socket::connect", "libc::socket"]
        {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}
