//! Which addresses a plugin's request may go to: those of the public internet, and what the operator has opened.
//!
//! What is not known to be public is refused: a list of the private ranges alone would miss the next one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// IPv4 ranges that are not the public internet (IANA's special-purpose registry), and what each of them is.
const NOT_PUBLIC_V4: [([u8; 4], u8, &str); 16] = [
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "carrier-grade NAT"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
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

/// Why nothing may be sent to this address; nothing if it may.
///
/// ```
/// # use tidemill::policy::address::forbidden;
/// assert_eq!(forbidden("93.184.216.34".parse().unwrap(), &[]), None);
/// assert_eq!(forbidden("::ffff:127.0.0.1".parse().unwrap(), &[]), Some("loopback"));
/// let open = ["10.1.0.0/16".parse().unwrap()];
/// assert_eq!(forbidden("10.1.2.3".parse().unwrap(), &open), None);
/// assert_eq!(forbidden("10.2.2.3".parse().unwrap(), &open), Some("private"));
/// ```
pub fn forbidden(address: IpAddr, open: &[IpNet]) -> Option<&'static str> {
    let address = embedded(address);
    if open.iter().any(|net| net.contains(&address)) {
        return None;
    }
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

/// The IPv4 address that packets to this IPv6 address end at: mapped ones, and those that a NAT64 gateway translates.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, high, low] = v6.segments();
    if [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        return Ipv4Addr::new(a, b, c, d).into();
    }
    v6.to_canonical()
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
        let said = |text: &str| forbidden(text.parse().unwrap(), &[]);
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
    fn an_opened_network_is_open_in_every_spelling_of_its_addresses() {
        let open: Vec<IpNet> = vec!["127.0.0.1/32".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
        for text in ["127.0.0.1", "::ffff:127.0.0.1", "fd00:1::5"] {
            assert_eq!(forbidden(text.parse().unwrap(), &open), None, "{text}");
        }
        for text in ["127.0.0.2", "::1", "fd00:2::5", "10.0.0.1"] {
            assert!(forbidden(text.parse().unwrap(), &open).is_some(), "{text}");
        }
    }
}
