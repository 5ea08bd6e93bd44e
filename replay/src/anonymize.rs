//! Addresses rewritten so that a recording can be shared: the same one always alike, and those of one network still in
//! one network.
//!
//! Owns the rewriting of addresses and of captured frames. The method is ipcrypt-pfx of draft-denis-ipcrypt, which is
//! prefix-preserving as Crypto-PAn is (Xu, Fan, Ammar, Moon: Prefix-Preserving IP Address Anonymization, 2002): two
//! addresses that have their first n bits in common have the same n rewritten bits in common, and no more.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use ipcrypt_rs::IpcryptPfx;

use crate::packet::{LinkType, anonymous};

/// Addresses whose rewritten form is remembered: to find it takes an AES block for each of its bits.
const KNOWN: usize = 1 << 16;

/// What makes one rewriting out of 2^256. Whoever has it can take the rewriting back.
#[derive(Clone, Copy)]
pub struct Key([u8; Key::BYTES]);

/// Why bytes are no key.
#[derive(Debug, thiserror::Error)]
#[error("no key: {0}")]
pub struct BadKey(&'static str);

impl Key {
    /// Its size in bytes.
    pub const BYTES: usize = IpcryptPfx::KEY_BYTES;

    /// A key of random bytes.
    ///
    /// # Errors
    /// The two halves are alike.
    pub fn new(bytes: [u8; Key::BYTES]) -> Result<Key, BadKey> {
        let (first, second) = bytes.split_at(Key::BYTES / 2);
        if first == second { Err(BadKey("its two halves are alike")) } else { Ok(Key(bytes)) }
    }

    /// A key written as 64 hexadecimal digits, whitespace around them left out.
    ///
    /// # Errors
    /// It is something else, or the two halves are alike.
    pub fn from_hex(text: &str) -> Result<Key, BadKey> {
        let digits: Option<Vec<u8>> = text.trim().chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let bytes = digits.map(|d| d.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>());
        let whole = text.trim().len() == 2 * Key::BYTES;
        let bytes = bytes.filter(|_| whole).and_then(|b| b.try_into().ok());
        Key::new(bytes.ok_or(BadKey("64 hexadecimal digits are needed"))?)
    }
}

/// Rewrites addresses by a key.
pub struct Anonymizer {
    cipher: IpcryptPfx,
    known: HashMap<IpAddr, IpAddr, RandomState>,
}

impl Anonymizer {
    /// By this key.
    pub fn new(key: Key) -> Anonymizer {
        Anonymizer { cipher: IpcryptPfx::new(key.0), known: HashMap::default() }
    }

    /// An address rewritten; of the same family. IPv4 in IPv6 (::ffff:a.b.c.d) is rewritten as IPv4.
    pub fn address(&mut self, address: IpAddr) -> IpAddr {
        let canonical = address.to_canonical();
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let cipher = &self.cipher;
        let rewritten = *self.known.entry(canonical).or_insert_with(|| cipher.encrypt_ipaddr(canonical));
        match (address, rewritten) {
            (IpAddr::V6(_), IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
            (_, same) => same,
        }
    }

    /// Makes `into` what may be shared of a frame: the headers of a TCP segment with rewritten IP addresses, hardware
    /// addresses and the TCP checksum 0, without payload and without options that could say more. `false`: it is
    /// something else, or holds addresses at places that are not known, and is to be left out.
    pub fn frame(&mut self, link: LinkType, frame: &[u8], into: &mut Vec<u8>) -> bool {
        into.clear();
        into.extend_from_slice(frame);
        match anonymous::rewrite(link, into, |address| self.address(address)) {
            Some(len) => {
                into.truncate(len);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
