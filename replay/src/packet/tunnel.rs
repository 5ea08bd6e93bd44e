//! Tunnels: segments that travel inside other packets.

use std::fmt;

/// What a segment travelled in. Of tunnels in tunnels, the outermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tunnel {
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GRE (RFC 2784, RFC 2890), NVGRE (RFC 7637) included.
    Gre,
    /// ERSPAN, which mirrors a port's frames in GRE.
    Erspan,
    /// IP in IP, of either version in either version (RFC 2003, RFC 2473, RFC 4213).
    IpInIp,
}

impl Tunnel {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Vxlan, Self::Geneve, Self::Gre, Self::Erspan, Self::IpInIp];

    /// The name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::IpInIp => "ipip",
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
