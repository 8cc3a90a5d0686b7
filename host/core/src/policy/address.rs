//! Which addresses a plugin's request may go to: those of the public internet, and what the operator has opened.
//!
//! What is not known to be public is refused: a list of the private ranges alone would miss the next one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// IPv4 ranges that are not the public internet (IANA's special-purpose registry), and what each of them is. The metadata
/// services of other clouds lie in these ranges: 169.254.169.254, 100.100.100.200 (Alibaba), 192.0.0.192 (Oracle).
const NOT_PUBLIC_V4: [([u8; 4], u8, &str); 17] = [
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "carrier-grade NAT"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
    // Public by its number, but each virtual machine of Azure reaches its own host there, with what that knows of it.
    ([168, 63, 129, 16], 32, "a cloud's metadata service"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "protocol assignments"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([192, 88, 99, 0], 24, "6to4 relays"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "benchmarking"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
    ([255, 255, 255, 255], 32, "broadcast"),
];

/// What lies inside of 2000::/3 and is not public all the same; outside of it nothing is.
const NOT_PUBLIC_V6: [([u16; 8], u8, &str); 4] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "protocol assignments (Teredo and others)"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation"),
];

/// What the operator says of the networks.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    /// Where requests may go besides the public internet.
    pub open: Vec<IpNet>,
    /// Prefixes behind which a NAT64 gateway translates to IPv4, besides the well-known one; of [`NAT64_BITS`].
    pub nat64: Vec<Ipv6Net>,
}

/// The lengths that a NAT64 prefix may have (RFC 6052), in bits.
pub const NAT64_BITS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// Why nothing may be sent to this address; nothing if it may.
///
/// ```
/// # use tidemill_core::policy::address::{Networks, forbidden};
/// let mut networks = Networks::default();
/// assert_eq!(forbidden("93.184.216.34".parse().unwrap(), &networks), None);
/// assert_eq!(forbidden("::ffff:127.0.0.1".parse().unwrap(), &networks), Some("loopback"));
/// networks.open.push("10.1.0.0/16".parse().unwrap());
/// assert_eq!(forbidden("10.1.2.3".parse().unwrap(), &networks), None);
/// assert_eq!(forbidden("10.2.2.3".parse().unwrap(), &networks), Some("private"));
/// ```
pub fn forbidden(address: IpAddr, networks: &Networks) -> Option<&'static str> {
    let address = embedded(address, &networks.nat64);
    if networks.open.iter().any(|net| net.contains(&address)) {
        return None;
    }
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

/// The IPv4 address that packets to this IPv6 address end at: mapped ones, and those that a NAT64 gateway translates.
fn embedded(address: IpAddr, nat64: &[Ipv6Net]) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return translated(v6, 96).into();
    }
    match nat64.iter().find(|net| net.contains(&v6)) {
        Some(net) => translated(v6, net.prefix_len()).into(),
        None => v6.to_canonical(),
    }
}

/// Behind the prefix come the four bytes, but none of them is the byte 8 (RFC 6052, section 2.2).
fn translated(address: Ipv6Addr, prefix_bits: u8) -> Ipv4Addr {
    let bytes = address.octets();
    let mut behind = (usize::from(prefix_bits / 8)..bytes.len()).filter(|at| *at != 8).map(|at| bytes[at]);
    let mut next = || behind.next().unwrap_or_default();
    Ipv4Addr::new(next(), next(), next(), next())
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let within = |net: [u8; 4], prefix: u8| (bits ^ u32::from_be_bytes(net)) >> (32 - u32::from(prefix)) == 0;
    NOT_PUBLIC_V4.iter().find(|(net, prefix, _)| within(*net, *prefix)).map(|(_, _, what)| *what)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let within = |net: [u16; 8], prefix: u8| (bits ^ Ipv6Addr::from(net).to_bits()) >> (128 - u32::from(prefix)) == 0;
    if address.is_loopback() {
        return Some("loopback");
    }
    if !within([0x2000, 0, 0, 0, 0, 0, 0, 0], 3) {
        return Some("not a public unicast address");
    }
    NOT_PUBLIC_V6.iter().find(|(net, prefix, _)| within(*net, *prefix)).map(|(_, _, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_refused() {
        let said = |text: &str| forbidden(text.parse().unwrap(), &Networks::default());
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for text in private {
            assert!(said(text).is_some(), "{text}");
        }
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::101:101",
            "::ffff:1.1.1.1",
        ];
        for text in public {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn the_metadata_services_of_clouds_are_refused() {
        let said = |text: &str| forbidden(text.parse().unwrap(), &Networks::default());
        for text in ["169.254.169.254", "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110"] {
            assert!(said(text).is_some(), "{text}");
        }
        for text in ["100.100.100.200", "192.0.0.192", "fd00:ec2::254"] {
            assert!(said(text).is_some(), "{text}");
        }
        assert_eq!((said("168.63.129.15"), said("168.63.129.17")), (None, None), "its neighbours are public");
    }

    /// The examples of RFC 6052, section 2.4, all of 192.0.2.33; and what they are here.
    #[test]
    fn an_address_behind_a_nat64_prefix_is_the_one_that_it_is_translated_to() {
        let rows = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ];
        for (prefix, address) in rows {
            let nat64 = vec![prefix.parse::<Ipv6Net>().unwrap()];
            assert!(NAT64_BITS.contains(&nat64[0].prefix_len()));
            assert_eq!(embedded(address.parse().unwrap(), &nat64), IpAddr::from([192, 0, 2, 33]), "{prefix}");
        }
        let known = Networks { nat64: vec!["2a00:64::/96".parse().unwrap()], ..Networks::default() };
        let said = |text: &str| forbidden(text.parse().unwrap(), &known);
        assert_eq!(said("2a00:64::10.0.0.1"), Some("private"));
        assert_eq!(said("2a00:64::a9fe:a9fe"), Some("link-local"));
        assert_eq!((said("2a00:64::1.1.1.1"), said("2a00:65::1")), (None, None));
    }

    #[test]
    fn an_opened_network_is_open_in_every_spelling_of_its_addresses() {
        let open = vec!["127.0.0.1/32".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
        let open = Networks { open, ..Networks::default() };
        for text in ["127.0.0.1", "::ffff:127.0.0.1", "fd00:1::5"] {
            assert_eq!(forbidden(text.parse().unwrap(), &open), None, "{text}");
        }
        for text in ["127.0.0.2", "::1", "fd00:2::5", "10.0.0.1"] {
            assert!(forbidden(text.parse().unwrap(), &open).is_some(), "{text}");
        }
    }
}
