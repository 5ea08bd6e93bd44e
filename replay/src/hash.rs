//! Tables of what a capture and a trace have, of which each packet asks several: with a hash that is fast on small
//! keys, and seeded, as the keys come from outside.

pub(crate) use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
