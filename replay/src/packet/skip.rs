//! Why a frame gave no segment. The texts are stored and shown, so they stay as they are.

use std::fmt;

/// Why a frame that may hold a TCP segment was not decoded: the layer where reading stopped, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// The capture's link type is none of those that [`LinkType`](super::LinkType) names.
    UnsupportedLinkType,
    /// The captured bytes end in the link header, or in VLAN tags or MPLS labels.
    CutLinkHeader,
    /// The captured bytes, or the first fragment, end in a tunnel's header, or in the link header inside of it.
    CutTunnelHeader,
    /// The captured bytes end in the IP header.
    CutIpHeader,
    /// The captured bytes end in an IPv6 extension header or in the authentication header.
    CutIpExtension,
    /// The captured bytes, or the first fragment, end before the TCP header's window field.
    CutTcpHeader,
    /// IP version, header length or total length contradict each other or the link layer.
    MalformedIpHeader,
    /// The data offset is below 5 words, or beyond the IP packet.
    MalformedTcpHeader,
    /// A fragment with offset above 0: it has no TCP header.
    LaterFragment,
    /// More tunnels within each other than [`MAX_TUNNELS`](super::MAX_TUNNELS).
    TooManyTunnels,
}

impl SkipReason {
    /// All reasons, in order.
    pub const ALL: [Self; 10] = [
        Self::UnsupportedLinkType,
        Self::CutLinkHeader,
        Self::CutTunnelHeader,
        Self::CutIpHeader,
        Self::CutIpExtension,
        Self::CutTcpHeader,
        Self::MalformedIpHeader,
        Self::MalformedTcpHeader,
        Self::LaterFragment,
        Self::TooManyTunnels,
    ];

    /// The reason as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedLinkType => "unsupported link type",
            Self::CutLinkHeader => "cut in the link header",
            Self::CutTunnelHeader => "cut in a tunnel header",
            Self::CutIpHeader => "cut in the IP header",
            Self::CutIpExtension => "cut in an IP extension header",
            Self::CutTcpHeader => "cut in the TCP header",
            Self::MalformedIpHeader => "malformed IP header",
            Self::MalformedTcpHeader => "malformed TCP header",
            Self::LaterFragment => "later IP fragment",
            Self::TooManyTunnels => "too many tunnels within each other",
        }
    }

    /// The layer at which reading stopped; in a tunnel, `link`, `IP` and `TCP` are those of the inner packet.
    pub const fn layer(self) -> &'static str {
        match self {
            Self::UnsupportedLinkType | Self::CutLinkHeader => "link",
            Self::CutTunnelHeader | Self::TooManyTunnels => "tunnel",
            Self::CutIpHeader | Self::CutIpExtension | Self::MalformedIpHeader | Self::LaterFragment => "IP",
            Self::CutTcpHeader | Self::MalformedTcpHeader => "TCP",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where decoding ends without a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    NotTcp,
    Skip(SkipReason),
}

impl From<SkipReason> for Stop {
    fn from(reason: SkipReason) -> Self {
        Self::Skip(reason)
    }
}
