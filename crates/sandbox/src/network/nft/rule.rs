//! One rule: conditions, then what becomes of the packets that meet them.
//!
//! The kernel runs a rule as a small program: an expression loads a part of the packet into a register,
//! the next compares it and leaves the rule if it is not as wanted.

use std::net::Ipv4Addr;

use netlink_packet_core::DefaultNla;

use super::{nest, number, text};

/// A rule that is being written. Conditions come first.
#[derive(Clone, Debug, Default)]
pub(in crate::network) struct Rule(Vec<DefaultNla>);

/// A state of a connection, as a bit.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) enum Connection {
    /// An answer, or what belongs to one.
    Known = 2 | 4,
    /// The first packet.
    New = 8,
}

/// The register that all of it goes through, and the one for verdicts.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const META_PROTOCOL: u32 = 16;

const CT_STATE: u32 = 0;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Where a packet's source and destination stand in its IPv4 header.
const SOURCE_AT: u32 = 12;
const DESTINATION_AT: u32 = 16;
/// Where its port stands in the header of TCP and UDP.
const PORT_AT: u32 = 2;

const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 1 << 1;
/// An address of this machine (`RTN_LOCAL`).
const LOCAL: u32 = 2;

const LOOKUP_INVERTED: u32 = 1;
const ADD_TO_SET: u32 = 0;
const COUNT_IS_OVER: u32 = 1;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;

const REJECT_BY_ICMP: u32 = 0;
/// "Communication administratively filtered" (RFC 1812 section 5.2.7.1): a program is told at once.
const FILTERED: u8 = 13;

/// Bytes of a device's name with its ending.
const NAME_BYTES: usize = 16;

impl Rule {
    /// A rule that every packet meets.
    pub(in crate::network) fn new() -> Self {
        Self::default()
    }

    /// Only packets that came in by this device.
    pub(in crate::network) fn enters_by(self, name: &str) -> Self {
        self.load_meta(META_IN_NAME).compare(EQUAL, &device(name))
    }

    /// Only packets that leave by this device.
    pub(in crate::network) fn leaves_by(self, name: &str) -> Self {
        self.load_meta(META_OUT_NAME).compare(EQUAL, &device(name))
    }

    /// Only packets that leave by another device.
    pub(in crate::network) fn leaves_not_by(self, name: &str) -> Self {
        self.load_meta(META_OUT_NAME).compare(NOT_EQUAL, &device(name))
    }

    /// Only packets of a connection in this state.
    pub(in crate::network) fn of(self, state: Connection) -> Self {
        self.load_state(state).compare(NOT_EQUAL, &[0; 4])
    }

    /// Only packets of a connection in another state.
    pub(in crate::network) fn not_of(self, state: Connection) -> Self {
        self.load_state(state).compare(EQUAL, &[0; 4])
    }

    /// Only packets from this address.
    pub(in crate::network) fn source(self, address: Ipv4Addr) -> Self {
        self.load(NETWORK_HEADER, SOURCE_AT, 4).compare(EQUAL, &address.octets())
    }

    /// Only packets from another address.
    pub(in crate::network) fn source_is_not(self, address: Ipv4Addr) -> Self {
        self.load(NETWORK_HEADER, SOURCE_AT, 4).compare(NOT_EQUAL, &address.octets())
    }

    /// Only packets to this address.
    pub(in crate::network) fn destination(self, address: Ipv4Addr) -> Self {
        self.load(NETWORK_HEADER, DESTINATION_AT, 4).compare(EQUAL, &address.octets())
    }

    /// Only packets from an address that is not in this set.
    pub(in crate::network) fn source_not_in(self, set: &str) -> Self {
        self.load(NETWORK_HEADER, SOURCE_AT, 4).look_up(set, LOOKUP_INVERTED)
    }

    /// Only packets to an address that is in this set.
    pub(in crate::network) fn destination_in(self, set: &str) -> Self {
        self.load(NETWORK_HEADER, DESTINATION_AT, 4).look_up(set, 0)
    }

    /// Only packets to an address of this machine.
    pub(in crate::network) fn destined_here(self) -> Self {
        let fib = [number(1, REGISTER), number(2, FIB_ADDRESS_TYPE), number(3, FIB_OF_DESTINATION)];
        self.step("fib", &fib).compare(EQUAL, &LOCAL.to_ne_bytes())
    }

    /// Only packets of a protocol (`IPPROTO_…`) to this port.
    pub(in crate::network) fn port(self, protocol: u8, port: u16) -> Self {
        let protocols = self.load_meta(META_PROTOCOL).compare(EQUAL, &[protocol]);
        protocols.load(TRANSPORT_HEADER, PORT_AT, 2).compare(EQUAL, &port.to_be_bytes())
    }

    /// Only packets whose source has more than so many connections; they are counted in a set.
    pub(in crate::network) fn over(self, connections: u32, set: &str) -> Self {
        let counter =
            [text(1, "connlimit"), nest(2, &[number(1, connections), number(2, COUNT_IS_OVER)])];
        let per_source =
            [text(1, set), number(3, ADD_TO_SET), number(4, REGISTER), nest(7, &counter)];
        self.load(NETWORK_HEADER, SOURCE_AT, 4).step("dynset", &per_source)
    }

    /// They go on.
    pub(in crate::network) fn accept(self) -> Self {
        self.verdict(ACCEPT)
    }

    /// They are lost.
    pub(in crate::network) fn drop(self) -> Self {
        self.verdict(DROP)
    }

    /// They are lost, and their sender is told that they may not pass.
    pub(in crate::network) fn reject(self) -> Self {
        let filtered = [number(1, REJECT_BY_ICMP), DefaultNla::new(2, vec![FILTERED])];
        self.step("reject", &filtered)
    }

    /// They leave with an address of the device that they leave by.
    pub(in crate::network) fn masquerade(self) -> Self {
        self.step("masq", &[])
    }

    /// The whole as an attribute of this kind.
    pub(super) fn into_attribute(self, kind: u16) -> DefaultNla {
        nest(kind, &self.0)
    }

    fn step(mut self, name: &str, data: &[DefaultNla]) -> Self {
        self.0.push(nest(1, &[text(1, name), nest(2, data)]));
        self
    }

    fn load(self, header: u32, offset: u32, bytes: u32) -> Self {
        let part = [number(1, REGISTER), number(2, header), number(3, offset), number(4, bytes)];
        self.step("payload", &part)
    }

    fn load_meta(self, key: u32) -> Self {
        self.step("meta", &[number(1, REGISTER), number(2, key)])
    }

    fn load_state(self, state: Connection) -> Self {
        let mask = nest(4, &[DefaultNla::new(1, (state as u32).to_ne_bytes().to_vec())]);
        let flip = nest(5, &[DefaultNla::new(1, vec![0; 4])]);
        let bits = [number(1, REGISTER), number(2, REGISTER), number(3, 4), mask, flip];
        self.step("ct", &[number(1, REGISTER), number(2, CT_STATE)]).step("bitwise", &bits)
    }

    fn compare(self, how: u32, with: &[u8]) -> Self {
        let data = nest(3, &[DefaultNla::new(1, with.to_vec())]);
        self.step("cmp", &[number(1, REGISTER), number(2, how), data])
    }

    fn look_up(self, set: &str, flags: u32) -> Self {
        self.step("lookup", &[text(1, set), number(2, REGISTER), number(5, flags)])
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = nest(2, &[nest(2, &[number(1, code)])]);
        self.step("immediate", &[number(1, VERDICT), verdict])
    }
}

fn device(name: &str) -> [u8; NAME_BYTES] {
    let mut padded = [0; NAME_BYTES];
    // A device's name is shorter than this by one.
    for (place, byte) in padded.iter_mut().zip(name.bytes().take(NAME_BYTES - 1)) {
        *place = byte;
    }
    padded
}
