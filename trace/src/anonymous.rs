//! A copy of a trace without what says whose it is: addresses rewritten, names and joins left out.
//!
//! Owns the word on every column that holds text. The copy is a database of its own, into which each row is written
//! once: it has no freed page, and no earlier form of a row. Must not know how addresses are rewritten, or captures.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode};

use crate::store::{failed, open_or_create, open_read};
use crate::{Error, Result, guard};

/// What becomes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It is an address, and is rewritten.
    Address,
    /// It is a word of the kernel or of tcpprobe, and stays if it looks like one.
    Word,
    /// The same, but whoever builds a kernel can name it after the host.
    Kernel,
    /// Of what is sampled, in words: numbers of ports and marks stay.
    Filter,
    /// It says whose the trace is, and becomes nothing.
    LeftOut,
}

use Rule::{Address, Filter, Kernel, LeftOut, Word};

/// Tables whose rows are copied, parents first, with what becomes of their texts. Their other columns are numbers.
const COPIED: [(&str, &[(&str, Rule)]); 11] = [
    (
        "sessions",
        &[
            ("host", LeftOut),
            ("kernel", Kernel),
            ("tool_version", Word),
            ("command", LeftOut),
            ("backend", Word),
            ("filter", Filter),
            ("sample_mode", Word),
            ("capture_path", LeftOut),
        ],
    ),
    ("flows", &[("local_addr", Address), ("remote_addr", Address), ("family", Word), ("congestion", Word)]),
    ("losses", &[("cause", Word)]),
    ("clocks", &[]),
    ("probe_costs", &[("program", Word)]),
    ("seldom_rows", &[]),
    ("ack_rows", &[]),
    ("sample_runs", &[]),
    ("sample_rows", &[]),
    ("rare_rows", &[]),
    ("internal_rows", &[]),
];

/// Tables of joins. Their rows are about frames by their number, and a copied capture has other numbers behind a frame
/// that was left out; a join of the copies makes them anew.
#[cfg(test)]
const JOINED: [&str; 6] = ["captures", "unjoined", "packet_rows", "translations", "sample_counts", "packetless_rows"];

/// What a word is no longer than: those of the kernel and of tcpprobe are far below.
const MAX_WORD_BYTES: usize = 100;

/// Rows between two looks at whether the copy is still wanted.
const STEP: u64 = 4096;

/// What a copy has, and what it lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Sessions.
    pub sessions: u64,
    /// Flows.
    pub flows: u64,
    /// Samples.
    pub samples: u64,
    /// Joined captures that were left out.
    pub captures: u64,
    /// Rows of their packets.
    pub packets: u64,
    /// Texts that look like no word of the kernel or of tcpprobe, and were left out.
    pub words: u64,
    /// Tables and views that are not of tcpprobe, and were left out.
    pub objects: u64,
}

/// A capture that the trace names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCapture {
    /// The file, as it was named then.
    pub path: PathBuf,
    /// How many frames it has, by the join and by the recording; where these differ, it was joined while it grew.
    /// Empty: not known.
    pub packets: Vec<i64>,
}

/// A trace that is to be copied, as it was when it was opened.
pub struct Original {
    db: Connection,
    path: PathBuf,
}

impl Original {
    /// Opens a trace; nothing in it can be changed through this.
    ///
    /// # Errors
    /// It is no trace, of another version, or cannot be read.
    pub fn open(path: &Path) -> Result<Original> {
        let db = open_read(path)?;
        db.execute_batch("BEGIN").map_err(failed(path, "cannot begin to read"))?;
        Ok(Original { db, path: path.to_owned() })
    }

    /// How many samples it has, by its runs.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn samples(&self) -> Result<u64> {
        self.count("SELECT CAST(total(last_id - first_id + 1) AS INTEGER) FROM sample_runs")
    }

    /// The captures that were joined, and then those that were only recorded along with it.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn captures(&self) -> Result<Vec<NamedCapture>> {
        let err = failed(&self.path, "cannot read the captures");
        let sql = "SELECT path, packets FROM captures
                   UNION ALL SELECT capture_path, capture_packets FROM sessions WHERE capture_path IS NOT NULL";
        let mut statement = self.db.prepare(sql).map_err(&err)?;
        let mut rows = statement.query([]).map_err(&err)?;
        let (mut captures, mut places): (Vec<NamedCapture>, BTreeMap<PathBuf, usize>) = Default::default();
        while let Some(row) = rows.next().map_err(&err)? {
            let path = PathBuf::from(row.get::<_, String>(0).map_err(&err)?);
            let at = *places.entry(path.clone()).or_insert(captures.len());
            if at == captures.len() {
                captures.push(NamedCapture { path, packets: Vec::new() });
            }
            let packets = row.get::<_, Option<i64>>(1).map_err(&err)?;
            if let Some(capture) = captures.get_mut(at) {
                capture.packets.extend(packets);
            }
        }
        Ok(captures)
    }

    /// Copies it into a file that is empty or not there. `rewrite` is asked for every address; `watch` is told of the
    /// samples that are done, time and again.
    ///
    /// # Errors
    /// The trace is damaged, or one of both cannot be read or written; what `watch` fails with. The file is of no use
    /// then.
    pub fn copy<E: From<Error>>(
        &self,
        to: &Path,
        rewrite: &mut dyn FnMut(IpAddr) -> IpAddr,
        watch: &mut dyn FnMut(u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<Copied, E> {
        let into = open_or_create(to)?;
        let err = |e| E::from(failed(to, "cannot write the copy")(e));
        // no one knows of the file yet: what does not become whole is thrown away. Rows that name others which are not
        // there are copied as they stand, for `verify` to find
        into.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; BEGIN")
            .map_err(err)?;
        let mut copied = Copied {
            captures: self.count("SELECT count(*) FROM captures")?,
            packets: self.count("SELECT count(*) FROM packet_rows")?,
            objects: guard::others(&self.db).map_err(failed(&self.path, "cannot read the schema"))?,
            ..Copied::default()
        };
        for (table, rules) in COPIED {
            let mut copy = Table { original: self, into: &into, to, table, rules, words: 0 };
            let is_of_samples = table == "sample_rows";
            let rows = copy.rows(rewrite, &mut |rows| watch(if is_of_samples { rows } else { copied.samples }))?;
            copied.words += copy.words;
            match table {
                "sessions" => copied.sessions = rows,
                "flows" => copied.flows = rows,
                "sample_rows" => copied.samples = rows,
                _ => {}
            }
        }
        into.execute_batch("COMMIT").map_err(err)?;
        into.close().map_err(|(_, e)| err(e))?;
        Ok(copied)
    }

    fn count(&self, sql: &str) -> Result<u64> {
        let count: i64 = self.db.query_row(sql, [], |r| r.get(0)).map_err(failed(&self.path, "cannot count rows"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

/// A column as an empty trace declares it.
struct Column {
    name: String,
    values: Values,
    is_required: bool,
}

/// What its values are.
#[derive(Clone, Copy)]
enum Values {
    Integers,
    Reals,
    Texts(Rule),
}

/// A table on its way.
struct Table<'a> {
    original: &'a Original,
    into: &'a Connection,
    to: &'a Path,
    table: &'static str,
    rules: &'static [(&'static str, Rule)],
    words: u64,
}

impl Table<'_> {
    /// Copies all rows in their order; returns how many there are.
    fn rows<E: From<Error>>(
        &mut self,
        rewrite: &mut dyn FnMut(IpAddr) -> IpAddr,
        watch: &mut dyn FnMut(u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, E> {
        let (original, to) = (self.original, self.to);
        let reading = |e| E::from(failed(&original.path, "cannot read a row")(e));
        let writing = |e| E::from(failed(to, "cannot write the copy")(e));
        let columns = self.columns().map_err(writing)?;
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let names = names.join(", ");
        // a kernel's release is looked at beside the host's name
        let host = if self.table == "sessions" { "host" } else { "NULL" };
        let select = format!("SELECT {names}, {host} FROM {} ORDER BY rowid", self.table);
        let places = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO {} ({names}) VALUES ({places})", self.table);
        let mut select = original.db.prepare(&select).map_err(reading)?;
        let mut insert = self.into.prepare(&insert).map_err(writing)?;
        let mut rows = select.query([]).map_err(reading)?;
        let mut done = 0;
        while let Some(row) = rows.next().map_err(reading)? {
            let host = row.get_ref(columns.len()).map_err(reading)?;
            let host = host.as_str_or_null().ok().flatten().unwrap_or_default();
            for (at, column) in columns.iter().enumerate() {
                let value = row.get_ref(at).map_err(reading)?;
                let value = self.value(column, value, host, rewrite)?;
                insert.raw_bind_parameter(at + 1, value).map_err(writing)?;
            }
            insert.raw_execute().map_err(|e| match e.sqlite_error_code() {
                // the trace's own tables have the same rules, unless it is damaged or was made by someone else
                Some(ErrorCode::ConstraintViolation) => {
                    let what = format!("a row of `{}`: {e}", self.table);
                    E::from(Error::Damaged { path: original.path.clone(), what })
                }
                _ => writing(e),
            })?;
            done += 1;
            if done % STEP == 0 {
                watch(done)?;
            }
        }
        watch(done)?;
        Ok(done)
    }

    /// What the copy has for a value.
    fn value<'v>(
        &mut self,
        column: &Column,
        value: ValueRef<'v>,
        host: &str,
        rewrite: &mut dyn FnMut(IpAddr) -> IpAddr,
    ) -> Result<ToSqlOutput<'v>> {
        let rule = match (column.values, value) {
            (_, ValueRef::Null)
            | (Values::Integers, ValueRef::Integer(_))
            | (Values::Reals, ValueRef::Integer(_) | ValueRef::Real(_)) => return Ok(ToSqlOutput::Borrowed(value)),
            (Values::Texts(rule), ValueRef::Text(_)) => rule,
            (Values::Texts(LeftOut), _) => LeftOut,
            (_, other) => return Err(self.damaged(column, &other.data_type().to_string())),
        };
        let text = value.as_bytes().map(String::from_utf8_lossy).unwrap_or_default();
        let stays = match rule {
            Address => {
                let address =
                    text.parse().map_err(|_| self.damaged(column, &format!("{text:?}, which is no address")))?;
                return Ok(rewrite(address).to_string().into());
            }
            Filter => return Ok(without_names(&text).into_owned().into()),
            Kernel => is_release(&text, host),
            Word => is_word(&text),
            LeftOut => false,
        };
        if stays {
            return Ok(ToSqlOutput::Borrowed(value));
        }
        self.words += u64::from(rule != LeftOut);
        Ok(ToSqlOutput::Borrowed(if column.is_required { ValueRef::Text(b"") } else { ValueRef::Null }))
    }

    /// Its columns, as the new file has them. A text that nothing is said of is not among them.
    fn columns(&self) -> rusqlite::Result<Vec<Column>> {
        let mut info = self.into.prepare("SELECT name, type, \"notnull\" FROM pragma_table_info(?1)")?;
        let mut rows = info.query([self.table])?;
        let mut columns = Vec::new();
        while let Some(row) = rows.next()? {
            let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
            let values = match kind.as_str() {
                "INTEGER" => Some(Values::Integers),
                "REAL" => Some(Values::Reals),
                _ => self.rules.iter().find(|(of, _)| *of == name).map(|(_, rule)| Values::Texts(*rule)),
            };
            let is_required = row.get(2)?;
            columns.extend(values.map(|values| Column { name, values, is_required }));
        }
        Ok(columns)
    }

    fn damaged(&self, column: &Column, what: &str) -> Error {
        let what = format!("a value of `{}` in `{}` is {what}", column.name, self.table);
        Error::Damaged { path: self.original.path.clone(), what }
    }
}

/// Could the kernel or tcpprobe have written this, and does it hold no address?
fn is_word(text: &str) -> bool {
    let is_of_words = |c: char| c.is_ascii_alphanumeric() || " +-./:=_~".contains(c);
    let is_of_addresses = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    text.len() <= MAX_WORD_BYTES
        && text.chars().all(is_of_words)
        && !text.split(|c| !is_of_addresses(c)).any(|part| part.parse::<IpAddr>().is_ok())
}

/// The same of a kernel's release: its version may have four numbers, and what follows the host's name.
fn is_release(text: &str, host: &str) -> bool {
    let behind_version = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let names_host = !host.is_empty() && text.to_ascii_lowercase().contains(&host.to_ascii_lowercase());
    text.len() <= MAX_WORD_BYTES && is_word(behind_version) && !names_host
}

/// What was sampled, in the words of a recording or of an import, without hosts, namespaces and files.
fn without_names(filter: &str) -> Cow<'static, str> {
    const SAID: &str = "names left out";
    let is_plain = |part: &&str| {
        let mut words = part.split(' ');
        let is_of_numbers = matches!(words.next(), Some("port" | "mark"));
        *part == "all TCP"
            || is_of_numbers && words.all(|w| w == "or" || !w.is_empty() && w.chars().all(|c| c.is_ascii_digit()))
    };
    if filter.is_empty() {
        return "".into();
    }
    if filter.starts_with("log ") || filter.starts_with("log,") {
        return format!("log, {SAID}").into();
    }
    let parts: Vec<&str> = filter.split(", ").collect();
    let mut kept: Vec<&str> = parts.iter().copied().filter(is_plain).collect();
    let is_whole = kept.len() == parts.len();
    if kept.is_empty() {
        kept.push("all TCP");
    }
    if !is_whole {
        kept.push(SAID);
    }
    kept.join(", ").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::create;

    #[test]
    fn there_is_a_word_on_every_table_and_on_every_text() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(&create()).unwrap();
        let sql = "SELECT m.name, c.name, c.type FROM sqlite_schema m JOIN pragma_table_info(m.name) c
                   WHERE m.type = 'table'";
        let mut statement = db.prepare(sql).unwrap();
        let columns = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
        let mut seen = 0;
        for column in columns {
            let (table, column, kind): (String, String, String) = column.unwrap();
            if JOINED.contains(&table.as_str()) {
                continue;
            }
            let copied = COPIED.iter().find(|(name, _)| *name == table);
            let (_, rules) = copied.unwrap_or_else(|| panic!("what becomes of the table {table}?"));
            let has_rule = rules.iter().any(|(name, _)| *name == column);
            let is_number = kind == "INTEGER" || kind == "REAL";
            assert!(is_number != has_rule, "what becomes of {table}.{column}, {kind}?");
            seen += usize::from(has_rule);
        }
        assert_eq!(seen, COPIED.iter().map(|(_, rules)| rules.len()).sum::<usize>(), "a rule without its column");
    }

    #[test]
    fn of_a_filter_numbers_stay() {
        for (filter, left) in [
            ("all TCP", "all TCP"),
            ("port 443 or 80, mark 7", "port 443 or 80, mark 7"),
            ("port 443, host 192.0.2.0/24 or 2001:db8::/32", "port 443, names left out"),
            ("host 192.0.2.1/32, netns blue", "all TCP, names left out"),
            ("port 443, netns /run/netns/x, y", "port 443, names left out"),
            ("port 443, names left out", "port 443, names left out"),
            ("all TCP, names left out", "all TCP, names left out"),
            ("log /home/someone/port 80, port 443", "log, names left out"),
            ("port 192.0.2.1", "all TCP, names left out"),
            ("port ", "all TCP, names left out"),
            ("", ""),
        ] {
            assert_eq!(without_names(filter), left, "{filter}");
            assert_eq!(without_names(left), left, "twice");
        }
    }

    #[test]
    fn words_of_the_kernel_stay_and_addresses_and_hosts_do_not() {
        for word in
            ["6.1.0-18-amd64", "fentry+tracepoint", "import: /proc/net/tcpprobe", "tp_btf/net_dev_queue", "cubic", ""]
        {
            assert!(is_word(word), "{word}");
        }
        for other in ["192.0.2.1", "at 2001:db8::1", "fe80::1", "cubic\n192.0.2.1", "a;b", &"a".repeat(101)] {
            assert!(!is_word(other), "{other}");
        }
        for release in ["6.1.0-18-amd64", "5.15.167.4-microsoft-standard-WSL2", "FreeBSD 14.0", ""] {
            assert!(is_release(release, "sender") && is_release(release, ""), "{release}");
        }
        for other in ["6.1.0-Sender", "6.1.0 at 192.0.2.1", "6.1.0;"] {
            assert!(!is_release(other, "sender"), "{other}");
        }
    }
}
