//! The nine TCP flag bits.

use std::fmt;

/// The flags of a TCP header (RFC 9293 section 3.1), with AE as bit 8 (the former NS bit; AccECN counts with it).
///
/// Displayed as tcpdump does: `S`, `S.`, `P.`, `.`, `SEW`, and `none` without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct TcpFlags(pub u16);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(1);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(2);
    /// Reset the connection.
    pub const RST: Self = Self(4);
    /// Push.
    pub const PSH: Self = Self(8);
    /// The acknowledgment field counts.
    pub const ACK: Self = Self(16);
    /// The urgent pointer counts.
    pub const URG: Self = Self(32);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(64);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(128);
    /// Accurate ECN (RFC 9768), formerly the ECN nonce sum.
    pub const AE: Self = Self(256);

    const LETTERS: [(Self, &'static str); 9] = [
        (Self::FIN, "F"),
        (Self::SYN, "S"),
        (Self::RST, "R"),
        (Self::PSH, "P"),
        (Self::ACK, "."),
        (Self::URG, "U"),
        (Self::ECE, "E"),
        (Self::CWR, "W"),
        (Self::AE, "e"),
    ];

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether FIN is set.
    pub const fn fin(self) -> bool {
        self.contains(Self::FIN)
    }

    /// Whether SYN is set.
    pub const fn syn(self) -> bool {
        self.contains(Self::SYN)
    }

    /// Whether RST is set.
    pub const fn rst(self) -> bool {
        self.contains(Self::RST)
    }

    /// Whether ACK is set.
    pub const fn ack(self) -> bool {
        self.contains(Self::ACK)
    }

    /// How many sequence numbers SYN and FIN take: 0 to 2.
    pub const fn seq_len(self) -> u32 {
        self.syn() as u32 + self.fin() as u32
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (flag, letter) in Self::LETTERS {
            if self.contains(flag) {
                text.push_str(letter);
            }
        }
        f.pad(if text.is_empty() { "none" } else { &text })
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_tcpdumps() {
        let texts = [
            (0x002, "S"),
            (0x012, "S."),
            (0x010, "."),
            (0x018, "P."),
            (0x011, "F."),
            (0x004, "R"),
            (0x014, "R."),
            (0x0c2, "SEW"),
            (0x1c2, "SEWe"),
            (0x029, "FPU"),
            (0x000, "none"),
        ];
        for (bits, text) in texts {
            assert_eq!(TcpFlags(bits).to_string(), text);
        }
        assert_eq!(format!("{:>4}|", TcpFlags::SYN), "   S|");
    }

    #[test]
    fn syn_and_fin_take_sequence_numbers() {
        assert_eq!(TcpFlags(0x010).seq_len(), 0);
        assert_eq!(TcpFlags(0x012).seq_len(), 1);
        assert_eq!((TcpFlags::SYN | TcpFlags::FIN).seq_len(), 2);
    }
}
