//! Reading rows that may hold anything: integers as integers, everything else as a fault with the column's name.

use rusqlite::Row;
use rusqlite::types::ValueRef;

/// Reads as many integers as there is room for; returns the first column that holds something else, with its type.
pub(super) fn read(row: &Row<'_>, into: &mut [Option<i64>]) -> rusqlite::Result<Option<(usize, &'static str)>> {
    let mut fault = None;
    for (column, value) in into.iter_mut().enumerate() {
        let found = match row.get_ref(column)? {
            ValueRef::Integer(n) => {
                *value = Some(n);
                continue;
            }
            ValueRef::Null => None,
            ValueRef::Real(_) => Some("a fraction"),
            ValueRef::Text(_) => Some("text"),
            ValueRef::Blob(_) => Some("bytes"),
        };
        *value = None;
        fault = fault.or(found.map(|what| (column, what)));
    }
    Ok(fault)
}

/// Text as it can be shown, whatever it is.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
        ValueRef::Null => String::new(),
        other => format!("{other:?}"),
    })
}

/// A number of 32 bits, as those of the wire.
pub(super) fn number(value: Option<i64>) -> Option<u32> {
    value.and_then(|v| u32::try_from(v).ok())
}
