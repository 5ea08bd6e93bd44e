//! Damage to bytes: bits, lengths, offsets and magic numbers, pieces that go, come twice or come from elsewhere.

use fastrand::Rng;

/// No input grows beyond this, in bytes: what is to be found hides in small ones.
const MAX_BYTES: usize = 1 << 20;

/// Numbers at which lengths and counters break, as the low bits of any width.
const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    11,
    12,
    15,
    16,
    19,
    20,
    28,
    32,
    60,
    64,
    0x7f,
    0x80,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    u64::MAX,
];

/// Bytes with a meaning in one of the formats; of use to the others as well.
const WORDS: [&[u8]; 26] = [
    &[0xa1, 0xb2, 0xc3, 0xd4],
    &[0xd4, 0xc3, 0xb2, 0xa1],
    &[0x4d, 0x3c, 0xb2, 0xa1],
    &[0x0a, 0x0d, 0x0d, 0x0a],
    &[0x4d, 0x3c, 0x2b, 0x1a],
    &[0x1a, 0x2b, 0x3c, 0x4d],
    &[6, 0, 0, 0],
    &[1, 0, 0, 0, 20, 0, 0, 0],
    &[0x1f, 0x8b, 8, 0],
    &[0x28, 0xb5, 0x2f, 0xfd],
    &[0x81, 0x00, 0x00, 0x64],
    &[0x88, 0x47, 0, 1],
    &[0x86, 0xdd],
    &[0x45, 0],
    &[5, 10, 0, 1],
    &[8, 10],
    b"SQLite format 3\0",
    &[0x0d, 0, 0, 0],
    &[0x05, 0, 0],
    b"tcp_probe: family=AF_INET src=",
    b"LOST 9 EVENTS",
    b"99999999999999999999",
    b"-1",
    b"\n",
    b"\0",
    &[0xff; 16],
];

/// One to eight changes to a copy of `input`, mostly where parts begin: in front, and at multiples of `block_bytes`.
/// `others` lend pieces.
pub fn mutate(rng: &mut Rng, input: &[u8], others: &[Vec<u8>], block_bytes: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    // mostly few: after many nothing is left to be read beyond the first of them
    for _ in 0..1 << rng.u32(0..4) {
        change(rng, &mut bytes, others, block_bytes);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, others: &[Vec<u8>], block_bytes: usize) {
    let len = bytes.len();
    if len == 0 {
        bytes.extend(word(rng));
        return;
    }
    let at = place(rng, len, block_bytes);
    match rng.u32(0..12) {
        0 => bytes[at] ^= 1 << rng.u32(0..8),
        1 => bytes[at] = rng.u8(..),
        2..=5 => number(rng, bytes, at),
        6 => bytes.truncate(at),
        7 => drop(bytes.drain(range(rng, at, len))),
        8 => {
            let piece = bytes[range(rng, at, len)].to_vec();
            let copies = 1 << rng.u32(0..6);
            splice(bytes, at, &piece.repeat(copies));
        }
        9 => {
            let piece = bytes[range(rng, at, len)].to_vec();
            overwrite(bytes, place(rng, len, block_bytes), &piece);
        }
        10 => {
            let Some(other) = rng.choice(others).filter(|o| !o.is_empty()) else { return };
            let from = rng.usize(..other.len());
            let piece = &other[range(rng, from, other.len())];
            if rng.bool() { splice(bytes, at, piece) } else { overwrite(bytes, at, piece) }
        }
        _ => {
            let word = word(rng);
            if rng.bool() { splice(bytes, at, word) } else { overwrite(bytes, at, word) }
        }
    }
}

/// Below `len`, which is not 0.
fn place(rng: &mut Rng, len: usize, block_bytes: usize) -> usize {
    match rng.u32(0..4) {
        0 => rng.usize(..len.min(128)),
        1 | 2 => {
            let block = rng.usize(..=(len - 1) / block_bytes.max(1)) * block_bytes.max(1);
            (block + rng.usize(..48)).min(len - 1)
        }
        _ => rng.usize(..len),
    }
}

fn range(rng: &mut Rng, from: usize, len: usize) -> std::ops::Range<usize> {
    let most = (len - from).min(1 << rng.u32(0..13));
    from..from + rng.usize(..=most)
}

fn word(rng: &mut Rng) -> &'static [u8] {
    WORDS[rng.usize(..WORDS.len())]
}

fn splice(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() + piece.len() <= MAX_BYTES {
        bytes.splice(at..at, piece.iter().copied());
    }
}

fn overwrite(bytes: &mut [u8], at: usize, piece: &[u8]) {
    let rest = &mut bytes[at..];
    let len = piece.len().min(rest.len());
    rest[..len].copy_from_slice(&piece[..len]);
}

/// Another number of 1, 2, 4 or 8 bytes, of either order: one at which things break, or the old one and a little.
fn number(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let width = 1 << rng.usize(0..4);
    let at = if rng.bool() { at & !3 } else { at };
    let is_big = rng.bool();
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let mut old = [0; 8];
    old[..width].copy_from_slice(field);
    if is_big {
        old[..width].reverse();
    }
    let old = u64::from_le_bytes(old);
    let new = match rng.u32(0..3) {
        0 => old.wrapping_add(rng.u64(1..5)),
        1 => old.wrapping_sub(rng.u64(1..5)),
        _ => NUMBERS[rng.usize(..NUMBERS.len())],
    };
    let mut new = new.to_le_bytes();
    if is_big {
        new[..width].reverse();
    }
    field.copy_from_slice(&new[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_what_is_tried() {
        let tried = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..200).map(|_| mutate(&mut rng, &[7; 300], &[vec![9; 40]], 64)).collect::<Vec<_>>()
        };
        assert_eq!(tried(1), tried(1));
        assert_ne!(tried(1), tried(2));
    }

    #[test]
    fn nothing_is_too_short_or_too_long_to_be_changed() {
        let mut rng = Rng::with_seed(3);
        let mut changed = 0;
        for len in [0, 1, 2, 3, 100, MAX_BYTES] {
            let input = vec![0x55; len];
            for _ in 0..100 {
                let bytes = mutate(&mut rng, &input, &[], len / 2);
                assert!(bytes.len() <= MAX_BYTES);
                changed += usize::from(bytes != input);
            }
        }
        assert!(changed > 500, "{changed} of 600");
    }
}
