//! The key by which addresses are rewritten, where something is to be shared.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use tcpprobe_replay::anonymize::Key;

/// A file that has a key has no more bytes.
const MAX_KEY_FILE_BYTES: u64 = 1 << 10;

/// The key of a file, or one that nobody else has and that is not kept.
pub(crate) fn key(file: Option<&Path>) -> anyhow::Result<Key> {
    let Some(path) = file else {
        let mut bytes = [0; Key::BYTES];
        let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
        random.context("/dev/urandom: cannot make a key")?;
        return Ok(Key::new(bytes)?);
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text));
    read.with_context(|| format!("cannot read the key {}", path.display()))?;
    Key::from_hex(&text)
        .with_context(|| format!("{}: `head -c 32 /dev/urandom | xxd -p -c 64` makes one", path.display()))
}
