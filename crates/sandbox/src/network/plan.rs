//! Which address and which name everything has.
//!
//! All addresses are of 198.18.0.0/15, which is set aside for the test of devices (RFC 2544) and so neither a
//! destination of functions nor, but for oddities, a network of the host: 198.19.0.0/16 within the router,
//! where nobody else sees it, and two addresses of 198.18.0.0/16 for the uplink, which avoid the host's routes.

use std::net::Ipv4Addr;

use pinnace_core::{limits, network::Block};

/// The address at which functions reach the platform.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

/// The port at which they do.
pub const GATEWAY_PORT: u16 = 8080;

/// The names by which functions know the gateway.
pub const GATEWAY_NAMES: [&str; 3] =
    ["gateway", "gateway.openfaas", "gateway.openfaas.svc.cluster.local"];

/// The first slot's address.
const FIRST_SLOT: u32 = Ipv4Addr::new(198, 19, 1, 0).to_bits();

/// Number of the first slot's device in the router; those before are the router's own.
const FIRST_DEVICE: u32 = 16;

/// The first pair of addresses for uplinks, and how many pairs there are.
const FIRST_UPLINK: u32 = Ipv4Addr::new(198, 18, 0, 0).to_bits();
const UPLINKS: u32 = 1 << 15;

/// A slot's place at the router: a number below `NETWORK_SLOTS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    /// The place of this number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number < limits::NETWORK_SLOTS_MAX).then_some(Self(number))
    }

    /// The place after this one; after the last comes the first.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1) % limits::NETWORK_SLOTS_MAX)
    }

    /// The place that has this address.
    #[must_use]
    pub fn of(address: Ipv4Addr) -> Option<Self> {
        address.to_bits().checked_sub(FIRST_SLOT).and_then(Self::new)
    }

    /// The address of the slot there.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_SLOT + self.0)
    }

    /// The number of its device in the router, the same as long as the router lives.
    #[must_use]
    pub fn device(self) -> u32 {
        FIRST_DEVICE + self.0
    }

    /// The name of its device in the router.
    #[must_use]
    pub fn name(self) -> String {
        format!("s{}", self.0)
    }
}

/// The two ends of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkAddresses {
    /// The host's.
    pub host: Ipv4Addr,
    /// The router's.
    pub router: Ipv4Addr,
}

/// Bits that both addresses of an uplink share.
pub const UPLINK_BITS: u8 = 31;

impl UplinkAddresses {
    /// A pair that none of the host's routes leads to; `None` if there is none. Where the search begins
    /// follows from the name, so that a Pinnace usually gets the same pair again.
    #[must_use]
    pub fn choose(name: &str, routes: &[Block]) -> Option<Self> {
        let start = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        (0..UPLINKS).map(|step| Self::pair(start.wrapping_add(step) % UPLINKS)).find(|pair| {
            let block = Block::around(pair.host, UPLINK_BITS);
            !routes.iter().any(|route| route.meets(block))
        })
    }

    fn pair(number: u32) -> Self {
        let first = FIRST_UPLINK + 2 * number;
        Self { host: Ipv4Addr::from_bits(first), router: Ipv4Addr::from_bits(first + 1) }
    }
}

/// The host's end of the uplink of the Pinnace with this name (`StateDir::name`: 12 characters at most).
#[must_use]
pub fn uplink_device(name: &str) -> String {
    format!("pn-{name}")
}

/// The table of rules that the same Pinnace has on the host.
#[must_use]
pub fn host_table(name: &str) -> String {
    format!("{TABLE_PREFIX}{name}")
}

/// How the tables of all Pinnaces begin.
pub(super) const TABLE_PREFIX: &str = "pinnace-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_own_of_all() {
        let ours: Block = "198.19.0.0/16".parse().unwrap();
        let last = Place::new(limits::NETWORK_SLOTS_MAX - 1).unwrap();
        assert!(ours.contains(last.address()) && ours.contains(GATEWAY));
        assert_eq!(Place::new(limits::NETWORK_SLOTS_MAX), None);
        assert_eq!(last.next(), Place(0));
        assert_eq!(last.name().len(), 6);
        for place in [Place(0), Place(300), last] {
            assert_eq!(Place::of(place.address()), Some(place));
        }
        assert_eq!(Place::of(GATEWAY), None);
        assert_eq!(Place::of(Ipv4Addr::new(198, 20, 0, 0)), None);
        assert_eq!(Place(7).address(), Ipv4Addr::new(198, 19, 1, 7));
    }

    #[test]
    fn an_uplink_avoids_the_hosts_routes() {
        let free = UplinkAddresses::choose("a", &[]).unwrap();
        assert_eq!(UplinkAddresses::choose("a", &[]), Some(free));
        let taken = Block::around(free.router, 24);
        let other = UplinkAddresses::choose("a", &[taken]).unwrap();
        assert!(!taken.contains(other.host) && !taken.contains(other.router));
        assert_eq!(UplinkAddresses::choose("a", &["198.18.0.0/15".parse().unwrap()]), None);
    }

    #[test]
    fn names_fit() {
        assert_eq!(uplink_device("0123456789ab").len(), 15);
    }
}
