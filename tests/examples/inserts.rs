//! Nothing but inserts: the rows of `packet_rows` of one trace into that of another, held in memory before the clock
//! starts. Prints the seconds that it took, the commit included. What a stored join is measured against.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::time::Instant;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: inserts JOINED EMPTY");
    };
    let source = Connection::open(from)?;
    let mut statement = source.prepare("SELECT * FROM packet_rows ORDER BY id")?;
    let columns = statement.column_count();
    let mut rows: Vec<Value> = Vec::new();
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        for column in 0..columns {
            rows.push(row.get(column)?);
        }
    }
    let db = Connection::open(to)?;
    let places = vec!["?"; columns].join(", ");
    let began = Instant::now();
    db.execute_batch("BEGIN IMMEDIATE")?;
    {
        let mut insert = db.prepare(&format!("INSERT INTO packet_rows VALUES ({places})"))?;
        for row in rows.chunks_exact(columns) {
            insert.execute(params_from_iter(row))?;
        }
    }
    db.execute_batch("COMMIT")?;
    println!("{}", began.elapsed().as_secs_f64());
    Ok(())
}
