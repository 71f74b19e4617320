//! What a function may reach: its choice of network, and the addresses that stay closed to it.
//!
//! A function with network [`Network::Nat`] reaches public addresses. Private ranges are closed unless the
//! operator opens a part of them (`--allow-net`); some ranges nobody can open: the machine itself,
//! link-local addresses, where clouds keep their metadata, and what is no address of one host.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

/// A function's choice of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The platform alone, as `gateway:8080`.
    None,
    /// The platform, and the outside from the host's address.
    Nat,
    /// The host's own network.
    Host,
}

impl Network {
    /// Its name in annotations, flags and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nat => "nat",
            Self::Host => "host",
        }
    }
}

/// How far the platform goes for whoever asks it to send something to a URL: no further than he reaches himself. All but
/// the first reach what this server serves to everybody: functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything, this host's own services too: it was asked from this host.
    Host,
    /// Other hosts: it was asked from one of them.
    Elsewhere,
    /// What a function with [`Network::Nat`] reaches.
    Nat,
    /// Functions.
    Gateway,
}

impl Reach {
    /// How far it goes for a function with this network.
    #[must_use]
    pub fn of_function(network: Network) -> Self {
        match network {
            Network::None => Self::Gateway,
            Network::Nat => Self::Nat,
            Network::Host => Self::Host,
        }
    }

    /// Its name where it is kept.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Elsewhere => "elsewhere",
            Self::Nat => "nat",
            Self::Gateway => "gateway",
        }
    }

    /// Of a name; one that is not known reaches least.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let known = [Self::Host, Self::Elsewhere, Self::Nat];
        known.into_iter().find(|reach| reach.name() == name).unwrap_or(Self::Gateway)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word is none of the choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be none, nat or host")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        [Self::None, Self::Nat, Self::Host]
            .into_iter()
            .find(|network| network.name() == text)
            .ok_or(NotANetwork)
    }
}

/// A block of IPv4 addresses, such as 10.1.0.0/16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    first: Ipv4Addr,
    prefix_bits: u8,
}

/// Bits of an address.
const ADDRESS_BITS: u8 = 32;

/// What can be said of one address block and is closed to all.
const NEVER: [(Block, &str); 7] = [
    (Block::of([0, 0, 0, 0], 8), "means this network"),
    (Block::of([127, 0, 0, 0], 8), "is the machine itself"),
    (Block::of([169, 254, 0, 0], 16), "is link-local, where clouds keep their metadata"),
    (Block::of([192, 0, 0, 0], 24), "is reserved for protocols"),
    (Block::of([198, 18, 0, 0], 15), "is what Pinnace's own links use"),
    (Block::of([224, 0, 0, 0], 4), "is for multicast"),
    (Block::of([240, 0, 0, 0], 4), "is reserved"),
];

/// Ranges that the operator may open (RFC 1918, RFC 6598).
const PRIVATE: [Block; 4] = [
    Block::of([10, 0, 0, 0], 8),
    Block::of([100, 64, 0, 0], 10),
    Block::of([172, 16, 0, 0], 12),
    Block::of([192, 168, 0, 0], 16),
];

/// Why a text is no block that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It has another form.
    #[error("{0:?} is no IPv4 address or block such as 10.1.0.0/16")]
    Form(String),
    /// It is an address within a block, not the block.
    #[error("{0} has an address within the block; the block is {1}")]
    Within(String, Block),
    /// It is open anyway.
    #[error("{0} is not private: functions with network nat reach public addresses anyway")]
    Public(Block),
    /// It holds more than one private range.
    #[error(
        "{0} is larger than a private range; name the part of 10.0.0.0/8, 100.64.0.0/10, \
             172.16.0.0/12 or 192.168.0.0/16 that functions may reach"
    )]
    TooLarge(Block),
    /// It can never be opened.
    #[error("{0} cannot be opened: {1} {2}")]
    Never(Block, Block, &'static str),
}

impl Block {
    const fn of(octets: [u8; 4], prefix_bits: u8) -> Self {
        let [a, b, c, d] = octets;
        Self { first: Ipv4Addr::new(a, b, c, d), prefix_bits }
    }

    /// The block with this many leading bits that has the address in it; all 32 for more.
    #[must_use]
    pub fn around(address: Ipv4Addr, prefix_bits: u8) -> Self {
        let prefix_bits = prefix_bits.min(ADDRESS_BITS);
        let rest = u32::MAX.checked_shr(prefix_bits.into()).unwrap_or(0);
        Self { first: Ipv4Addr::from_bits(address.to_bits() & !rest), prefix_bits }
    }

    /// Its addresses, as numbers.
    #[must_use]
    pub fn range(self) -> RangeInclusive<u32> {
        let first = self.first.to_bits();
        first..=first | u32::MAX.checked_shr(self.prefix_bits.into()).unwrap_or(0)
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.range().contains(&address.to_bits())
    }

    /// Whether both have an address in common.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// Reads an operator's wish to open a block.
    ///
    /// # Errors
    /// If it is no block, or one that is open anyway or may never be opened.
    pub fn to_allow(text: &str) -> Result<Self, BlockError> {
        let block: Self = text.parse()?;
        if let Some((never, why)) = NEVER.iter().find(|(never, _)| never.meets(block)) {
            return Err(if never.contains(block.first) && never.prefix_bits <= block.prefix_bits {
                BlockError::Never(block, *never, why)
            } else {
                BlockError::TooLarge(block)
            });
        }
        match PRIVATE.into_iter().find(|private| private.meets(block)) {
            Some(private) if private.prefix_bits <= block.prefix_bits => Ok(block),
            Some(_) => Err(BlockError::TooLarge(block)),
            None => Err(BlockError::Public(block)),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

impl FromStr for Block {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let form = || BlockError::Form(text.chars().take(80).collect());
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let is_number = bits.len() <= 2 && bits.bytes().all(|digit| digit.is_ascii_digit());
        let bits = bits.parse().ok().filter(|bits| is_number && *bits <= ADDRESS_BITS);
        let block = Self::around(address, bits.ok_or_else(form)?);
        if block.first == address {
            Ok(block)
        } else {
            Err(BlockError::Within(text.to_owned(), block))
        }
    }
}

/// The addresses that functions with network nat do not reach: ranges in order that do not touch.
#[must_use]
pub fn closed(allowed: &[Block]) -> Vec<RangeInclusive<Ipv4Addr>> {
    let mut closed: Vec<_> = NEVER.iter().map(|(block, _)| *block).chain(PRIVATE).collect();
    closed.sort_by_key(|block| block.first);
    let mut ranges: Vec<RangeInclusive<u32>> = closed.into_iter().map(Block::range).collect();
    for block in allowed {
        ranges = ranges.into_iter().flat_map(|range| without(&range, &block.range())).collect();
    }
    let mut joined: Vec<RangeInclusive<u32>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(*range.start()) => {
                *last = *last.start()..=*range.end();
            }
            _ => joined.push(range),
        }
    }
    let address = Ipv4Addr::from_bits;
    joined.into_iter().map(|range| address(*range.start())..=address(*range.end())).collect()
}

/// What of a range is left without another.
fn without(
    range: &RangeInclusive<u32>,
    hole: &RangeInclusive<u32>,
) -> impl Iterator<Item = RangeInclusive<u32>> + use<> {
    let (first, last) = (*range.start(), *range.end());
    let below = hole.start().checked_sub(1).map(|end| first..=end.min(last));
    let above = hole.end().checked_add(1).map(|start| start.max(first)..=last);
    below.into_iter().chain(above).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Block {
        text.parse().unwrap()
    }

    fn is_closed(allowed: &[Block], address: Ipv4Addr) -> bool {
        closed(allowed).iter().any(|range| range.contains(&address))
    }

    fn refusal(text: &str) -> String {
        Block::to_allow(text).unwrap_err().to_string()
    }

    #[test]
    fn choices() {
        for network in [Network::None, Network::Nat, Network::Host] {
            assert_eq!(network.to_string().parse(), Ok(network));
        }
        assert_eq!("bridge".parse::<Network>(), Err(NotANetwork));
    }

    #[test]
    fn nobody_is_sent_further_than_he_goes() {
        for reach in [Reach::Host, Reach::Elsewhere, Reach::Nat, Reach::Gateway] {
            assert_eq!(Reach::named(reach.name()), reach);
        }
        assert_eq!(Reach::named("all"), Reach::Gateway);
        assert_eq!(Reach::of_function(Network::None), Reach::Gateway);
    }

    #[test]
    fn blocks_have_one_form() {
        assert_eq!(block("10.1.2.3").to_string(), "10.1.2.3/32");
        assert_eq!(block("0.0.0.0/0").range(), 0..=u32::MAX);
        assert_eq!(block("10.1.0.0/16").range(), 0x0a01_0000..=0x0a01_ffff);
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/008", "10/8", "::1"] {
            assert!(matches!(text.parse::<Block>(), Err(BlockError::Form(_))), "{text}");
        }
        assert_eq!(
            "10.1.2.3/8".parse::<Block>().unwrap_err().to_string(),
            "10.1.2.3/8 has an address within the block; the block is 10.0.0.0/8"
        );
    }

    #[test]
    fn only_private_ranges_can_be_opened() {
        for text in
            ["10.0.0.0/8", "10.20.0.0/16", "172.31.255.1", "192.168.1.0/24", "100.64.0.0/10"]
        {
            assert_eq!(Block::to_allow(text).unwrap(), block(text));
        }
        assert!(refusal("169.254.169.254").contains("where clouds keep their metadata"));
        assert!(refusal("127.0.0.1").contains("is the machine itself"));
        assert!(refusal("198.19.0.1").contains("Pinnace's own links"));
        assert!(refusal("8.8.8.8").contains("reach public addresses anyway"));
        for text in ["0.0.0.0/0", "172.0.0.0/8", "192.0.0.0/8", "128.0.0.0/1"] {
            assert!(refusal(text).contains("larger than a private range"), "{text}");
        }
        assert!(Block::to_allow("x").is_err());
    }

    #[test]
    fn exactly_what_is_opened_is_open() {
        let allowed = [block("10.1.0.0/16"), block("192.168.0.0/16"), block("10.1.2.0/24")];
        for (address, expected) in [
            ("10.0.255.255", true),
            ("10.1.0.0", false),
            ("10.1.255.255", false),
            ("10.2.0.0", true),
            ("192.168.3.4", false),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("169.254.169.254", true),
            ("255.255.255.255", true),
            ("223.255.255.255", false),
            ("8.8.8.8", false),
            ("198.51.100.1", false),
        ] {
            assert_eq!(is_closed(&allowed, address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(
            closed(&[]).last().unwrap(),
            &(Ipv4Addr::new(224, 0, 0, 0)..=Ipv4Addr::BROADCAST)
        );
    }

    proptest! {
        #[test]
        fn ranges_are_apart_and_right(
            bits in prop::collection::vec((any::<u32>(), 8_u8..=32), 0..8),
            probe in any::<u32>(),
        ) {
            let allowed: Vec<_> = bits.iter()
                .map(|(address, bits)| Block::around(Ipv4Addr::from_bits(*address), *bits))
                .collect();
            let ranges = closed(&allowed);
            prop_assert!(ranges.iter().all(|range| range.start() <= range.end()));
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].end().to_bits() + 1 < pair[1].start().to_bits());
            }
            let borders = allowed.iter().flat_map(|block| {
                let range = block.range();
                [*range.start(), range.start().wrapping_sub(1), *range.end(), range.end().wrapping_add(1)]
            });
            for address in borders.chain([probe]).map(Ipv4Addr::from_bits) {
                let special = NEVER.iter().map(|(block, _)| *block).chain(PRIVATE)
                    .any(|block| block.contains(address));
                let open = allowed.iter().any(|block| block.contains(address));
                prop_assert_eq!(is_closed(&allowed, address), special && !open);
            }
        }
    }
}
