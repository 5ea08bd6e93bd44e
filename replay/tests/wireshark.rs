//! The fields of `wireshark/tcpprobe.lua` are the columns of the list: this test writes them anew and compares.
//!
//! After a change of the list, `UPDATE_DOCS=1 cargo test -p tcpprobe-replay --test wireshark` writes the file.

use std::fmt::Write as _;

use tcpprobe_replay::export::pcapng::columns;
use tcpprobe_trace::columns::Type;

const BEGIN: &str = "-- FIELDS BEGIN\n";
const END: &str = "-- FIELDS END\n";

#[test]
fn the_dissector_has_the_columns_of_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wireshark/tcpprobe.lua");
    let found = std::fs::read_to_string(path).unwrap();
    let (before, rest) = found.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut table = String::from("local FIELDS = {\n");
    for c in columns() {
        let kind = if c.values == Type::Text { "text" } else { "integer" };
        let unit = if c.unit.is_empty() { String::new() } else { format!(" [{}]", c.unit) };
        let doc = format!("{}{unit}", c.doc.replace('`', "")).replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(table, "    {{ \"{}\", \"{kind}\", \"{doc}\" }},", c.name);
    }
    table.push_str("}\n");
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap();
    assert!(
        found == expected,
        "wireshark/tcpprobe.lua is out of date: UPDATE_DOCS=1 cargo test -p tcpprobe-replay --test wireshark"
    );
}
