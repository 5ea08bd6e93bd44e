//! What a recording keeps of its backlog in the trace, for whoever has to go on with it after a crash.
//!
//! No part of the contract: made when a recording begins, gone when it has ended in order.

/// Makes the tables, empty: what another recording left in them went with its backlog.
pub(crate) const MAKE: &str = "
CREATE TABLE IF NOT EXISTS backlog_progress (
  session_id INTEGER PRIMARY KEY,
  taken INTEGER NOT NULL            -- batches of the backlog's file whose samples are here
);
CREATE TABLE IF NOT EXISTS backlog_flows (
  key INTEGER PRIMARY KEY,          -- what the sampler's records call the flow
  flow_id INTEGER NOT NULL
);
DELETE FROM backlog_progress;
DELETE FROM backlog_flows;
";

/// Takes them away.
pub(crate) const DROP: &str = "
DROP TABLE IF EXISTS backlog_progress;
DROP TABLE IF EXISTS backlog_flows;
";
