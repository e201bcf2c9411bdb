//! Virtual addresses: what a service's name resolves to where nothing else gives it an address.
//!
//! Nobody listens on them. They exist so that an application can dial a name on any port, and so that the proxy beside it can tell
//! from the address alone which service was meant. The control plane gives each service a number that no other has; both its
//! addresses follow from the number, the same on every host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// 240.0.0.0/4: reserved (RFC 1112 §4), routed nowhere, used by nobody.
const V4: u32 = 0xF000_0000;
/// `fd48:4d53:6d65:7368::/64`: a local range of our own (RFC 4193).
const V6: u128 = 0xfd48_4d53_6d65_7368 << 64;
/// The IPv4 range: where it begins, and how many bits tell that an address lies in it.
pub const RANGE_V4: (Ipv4Addr, u8) = (Ipv4Addr::from_bits(V4), 4);
/// The IPv6 range.
pub const RANGE_V6: (Ipv6Addr, u8) = (Ipv6Addr::from_bits(V6), 64);
/// The highest number: the last address of the IPv4 range is the broadcast address.
pub const MOST_NUMBERS: u32 = 0x0FFF_FFFE;

/// The addresses of the service with this number, IPv4 first; `None` beyond [`MOST_NUMBERS`] and for 0.
pub fn of_number(number: u32) -> Option<[IpAddr; 2]> {
    (1..=MOST_NUMBERS).contains(&number).then(|| {
        [IpAddr::V4(Ipv4Addr::from_bits(V4 | number)), IpAddr::V6(Ipv6Addr::from_bits(V6 | u128::from(number)))]
    })
}

/// Whether an address lies in a virtual range. What is sent to one that belongs to no service is refused, never let out.
pub fn is_virtual(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_bits() >= V4,
        IpAddr::V6(v6) => v6.to_bits() >> 64 == V6 >> 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_addresses_of_both_families() {
        let [v4, v6] = of_number(1).unwrap();
        assert_eq!((v4.to_string(), v6.to_string()), ("240.0.0.1".to_owned(), "fd48:4d53:6d65:7368::1".to_owned()));
        let [last, _] = of_number(MOST_NUMBERS).unwrap();
        assert_eq!(last.to_string(), "255.255.255.254");
        assert_eq!((of_number(0), of_number(MOST_NUMBERS + 1)), (None, None));
    }

    #[test]
    fn the_ranges_are_known_by_any_spelling() {
        for number in [1, 70_000, MOST_NUMBERS] {
            assert!(of_number(number).unwrap().into_iter().all(is_virtual), "{number}");
        }
        assert!(is_virtual("::ffff:240.0.0.1".parse().unwrap()));
        for other in ["127.0.0.1", "10.0.0.1", "239.255.255.255", "::1", "fd48:4d53:6d65:7369::1"] {
            assert!(!is_virtual(other.parse().unwrap()), "{other}");
        }
    }
}
