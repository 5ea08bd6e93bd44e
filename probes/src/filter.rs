//! Which sockets are recorded: the filter that the BPF programs apply, as the settings that they read.

use std::net::IpAddr;

use ipnet::IpNet;

/// Which sockets are recorded. Empty lists let everything pass; kinds of conditions must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Local or remote port is one of these.
    pub ports: Vec<u16>,
    /// Local or remote address lies in one of these prefixes.
    pub hosts: Vec<IpNet>,
    /// The socket's mark (SO_MARK) is this.
    pub mark: Option<u32>,
    /// The socket lives in the network namespace with this inode number.
    pub netns: Option<u32>,
}

/// A filter that the programs cannot hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{count} {what}: at most {max} are possible in one recording")]
pub struct FilterError {
    what: &'static str,
    count: usize,
    max: usize,
}

pub(crate) const MAX_PORTS: usize = 16;
pub(crate) const MAX_HOSTS: usize = 16;

impl Filter {
    /// The ports, padded to the programs' array.
    pub(crate) fn port_setting(&self) -> Result<[u16; MAX_PORTS], FilterError> {
        let mut setting = [0; MAX_PORTS];
        let count = self.ports.len();
        setting
            .get_mut(..count)
            .ok_or(FilterError { what: "ports", count, max: MAX_PORTS })?
            .copy_from_slice(&self.ports);
        Ok(setting)
    }

    /// Address and mask of each prefix in 32 bytes, IPv4 as ::ffff:a.b.c.d, padded to the programs' array.
    pub(crate) fn host_setting(&self) -> Result<[u8; MAX_HOSTS * 32], FilterError> {
        let mut setting = [0; MAX_HOSTS * 32];
        let count = self.hosts.len();
        if count > MAX_HOSTS {
            return Err(FilterError { what: "host prefixes", count, max: MAX_HOSTS });
        }
        for (slot, host) in setting.chunks_exact_mut(32).zip(&self.hosts) {
            let (address, prefix_bits) = match host.addr() {
                IpAddr::V4(a) => (a.to_ipv6_mapped(), 96 + u32::from(host.prefix_len())),
                IpAddr::V6(a) => (a, u32::from(host.prefix_len())),
            };
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            slot[..16].copy_from_slice(&address.octets());
            slot[16..].copy_from_slice(&mask.to_be_bytes());
        }
        Ok(setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the BPF program computes.
    fn matches(setting: &[u8], address: &str) -> bool {
        let octets = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            IpAddr::V6(a) => a.octets(),
        };
        octets.iter().enumerate().all(|(i, b)| (b ^ setting[i]) & setting[16 + i] == 0)
    }

    #[test]
    fn prefixes_of_both_families() {
        let hosts = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let setting = Filter { hosts, ..Filter::default() }.host_setting().unwrap();
        assert!(matches(&setting[..32], "10.1.255.3"));
        assert!(!matches(&setting[..32], "10.2.0.1"));
        assert!(!matches(&setting[..32], "::1"));
        assert!(matches(&setting[32..64], "fd12::1"));
        assert!(!matches(&setting[32..64], "fe80::1"));
        assert!(matches(&setting[64..96], "::1"));
        assert!(!matches(&setting[64..96], "::2"));
    }

    #[test]
    fn the_whole_of_ipv4_is_not_the_whole_of_ipv6() {
        let any = |net: &str| Filter { hosts: vec![net.parse().unwrap()], ..Filter::default() }.host_setting().unwrap();
        assert!(matches(&any("0.0.0.0/0")[..32], "203.0.113.9"));
        assert!(!matches(&any("0.0.0.0/0")[..32], "2001:db8::1"));
        assert!(matches(&any("::/0")[..32], "2001:db8::1"));
    }

    #[test]
    fn too_many_are_refused_not_cut() {
        let ports: Vec<u16> = (1..=17).collect();
        let error = Filter { ports, ..Filter::default() }.port_setting().unwrap_err();
        assert_eq!(error.to_string(), "17 ports: at most 16 are possible in one recording");
    }
}
