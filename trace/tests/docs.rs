//! `docs/fields.md` is the field list in prose: this test writes it anew and compares.
//!
//! After a change of the list, `UPDATE_DOCS=1 cargo test -p tcpprobe-trace --test docs` writes the file.

use std::fmt::Write as _;

use tcpprobe_trace::columns::View;
use tcpprobe_trace::fields::{KINDS, PHASES};
use tcpprobe_trace::internals::INTERNALS;
use tcpprobe_trace::{READY, WAITS};

const HEAD: &str = "# The sender's state, column by column

<!-- Made from trace/src/fields.rs and trace/src/internals.rs by trace/tests/docs.rs: change it there. -->

The views `samples` and `packet_state` have these columns, named as the kernel names them, in natural units. NULL: this
kernel has no such field, or it does not apply (no measurement yet, no limit). Sequence numbers are the 32 bits of the
wire.

| column | unit | meaning |
|---|---|---|
";

const INTERNALS_HEAD: &str = "
## Inside the congestion control

Columns of the views `congestion_internals` and `packet_internals`, whose column `congestion` says of which congestion
control they are; those of others are NULL.

| column | unit | meaning |
|---|---|---|
";

fn document() -> String {
    let mut text = String::from(HEAD);
    let columns = |text: &mut String, view: View, state: bool, but: &[&str]| {
        for c in view.columns().iter().filter(|c| c.is_state == state && !but.contains(&c.name)) {
            let _ = writeln!(text, "| `{}` | {} | {} |", c.name, c.unit, c.doc);
        }
    };
    columns(&mut text, View::Samples, true, &[]);
    text.push_str("\n## `samples`: before the state\n\n| column | unit | meaning |\n|---|---|---|\n");
    columns(&mut text, View::Samples, false, &[]);
    text.push_str("\n## `packets`\n\n| column | unit | meaning |\n|---|---|---|\n");
    columns(&mut text, View::Packets, false, &[]);
    text.push_str(
        "\n## `packet_state`: besides those of `packets` and the state\n\n| column | unit | meaning |\n|---|---|---|\n",
    );
    let packets: Vec<_> = View::Packets.columns().iter().map(|c| c.name).collect();
    columns(&mut text, View::PacketState, false, &packets);
    text.push_str("\n## `kind`: what a sample was taken for\n\n| kind | a sample was taken because |\n|---|---|\n");
    for (name, doc) in KINDS {
        let _ = writeln!(text, "| `{name}` | {doc} |");
    }
    text.push_str("\n## `phase`: when it was taken\n\n| phase | it was taken |\n|---|---|\n");
    for (name, doc) in PHASES {
        let _ = writeln!(text, "| `{name}` | {doc} |");
    }
    text.push_str(INTERNALS_HEAD);
    for value in INTERNALS {
        let _ = writeln!(text, "| `{}` | {} | {} |", value.name, value.unit, value.doc);
    }
    text
}

#[test]
fn the_field_reference_is_that_of_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fields.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap();
    assert!(found == expected, "docs/fields.md is out of date: UPDATE_DOCS=1 cargo test -p tcpprobe-trace --test docs");
}

#[test]
fn the_queries_that_are_ready_are_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/trace-format.md");
    let found = std::fs::read_to_string(path).unwrap();
    let rows = READY.iter().map(|ready| format!("| `{}` | `{}` | {} |\n", ready.name, ready.view, ready.doc));
    for row in rows.chain(WAITS.iter().map(|(reason, doc)| format!("| `{reason}` | {doc} |\n"))) {
        assert!(found.contains(&row), "docs/trace-format.md lacks:\n{row}");
    }
}
