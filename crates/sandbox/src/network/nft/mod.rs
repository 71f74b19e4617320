//! Rules for packets, as the kernel's nf_tables takes them: exactly the messages that Pinnace needs.
//!
//! No kept library writes these messages without the C library libnftnl. A [`Transaction`] takes effect as
//! a whole or not at all. The numbers are those of linux/netfilter/nf_tables.h; the tests compare what the
//! program `nft` lists with what was meant.

use std::{io, net::Ipv4Addr, ops::RangeInclusive};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLA_F_NESTED, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable, Nla as _, NlasIterator, parse_string, parse_u32_be,
};

use super::netlink::{Request, Socket};

mod rule;

pub(super) use rule::{Connection, Rule};

/// A message of nf_tables.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    family: u8,
    resource: u16,
    attributes: Vec<DefaultNla>,
}

/// Bytes of a message before its attributes (`struct nfgenmsg`).
const HEADER_BYTES: usize = 4;

/// All tables of ours are of this family.
const IPV4: u8 = 2;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;

/// Type of a set's key, as `nft` names it: ipv4_addr.
const KEY_IPV4: u32 = 7;
const KEY_BYTES: u32 = 4;

const SET_IS_INTERVAL: u32 = 0x4;
/// Rules may add to it.
const SET_IS_DYNAMIC: u32 = 0x20;
const INTERVAL_END: u32 = 0x1;

/// What becomes of a packet that no rule of a chain decides on.
const POLICY_DROP: u32 = 0;
const POLICY_ACCEPT: u32 = 1;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER_BYTES);
        header[0] = self.family;
        header[1] = 0;
        header[2..].copy_from_slice(&self.resource.to_be_bytes());
        self.attributes.as_slice().emit(rest);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let short = || DecodeError::from("a message of nf_tables is cut short".to_owned());
        let (head, rest) = payload.split_at_checked(HEADER_BYTES).ok_or_else(short)?;
        Ok(Self {
            kind: header.message_type,
            family: head[0],
            resource: 0,
            attributes: attributes(rest)?,
        })
    }
}

fn attributes(bytes: &[u8]) -> Result<Vec<DefaultNla>, DecodeError> {
    use netlink_packet_core::Parseable as _;
    NlasIterator::new(bytes).map(|attribute| DefaultNla::parse(&attribute?)).collect()
}

fn value(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

impl Message {
    fn new(kind: u16, attributes: Vec<DefaultNla>) -> Self {
        Self { kind: SUBSYSTEM << 8 | kind, family: IPV4, resource: 0, attributes }
    }

    fn border(kind: u16) -> Self {
        Self { kind, family: 0, resource: SUBSYSTEM, attributes: Vec::new() }
    }

    fn find(&self, kind: u16) -> Option<Vec<u8>> {
        self.attributes.iter().find(|a| a.kind() & !NLA_F_NESTED == kind).map(value)
    }

    fn text(&self, kind: u16) -> Option<String> {
        parse_string(&self.find(kind)?).ok()
    }

    fn number(&self, kind: u16) -> Option<u32> {
        parse_u32_be(&self.find(kind)?).ok()
    }

    fn nested(&self, kind: u16) -> Vec<DefaultNla> {
        self.find(kind).and_then(|bytes| attributes(&bytes).ok()).unwrap_or_default()
    }
}

fn text(kind: u16, text: &str) -> DefaultNla {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().to_vec())
}

fn nest(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; inner.buffer_len()];
    inner.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// Where a chain is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// What the chain may do: `filter` or `nat`.
    pub(super) kind: &'static str,
    /// At which point of a packet's way.
    pub(super) point: Point,
    /// Order among the chains at that point; the lower goes first.
    pub(super) priority: i32,
    /// Whether packets that no rule decides on are dropped.
    pub(super) drops: bool,
}

/// A point of a packet's way (`NF_INET_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Before it is routed.
    Prerouting = 0,
    /// To this machine.
    Input = 1,
    /// Through this machine.
    Forward = 2,
    /// Out of this machine.
    Postrouting = 4,
}

/// How a set holds its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) enum SetKind {
    /// Single ones.
    Addresses,
    /// Ranges.
    Ranges,
    /// Single ones that rules add, with a counter each, up to this many.
    Counted(u32),
}

/// Changes to one table that take effect together.
#[derive(Debug)]
pub(super) struct Transaction<'t> {
    table: &'t str,
    requests: Vec<Request<Message>>,
    sets: u32,
}

impl<'t> Transaction<'t> {
    /// None yet.
    pub(super) fn on(table: &'t str) -> Self {
        let begin = Request { flags: 0, message: Message::border(BATCH_BEGIN) };
        Self { table, requests: vec![begin], sets: 0 }
    }

    fn add(&mut self, flags: i32, kind: u16, attributes: Vec<DefaultNla>) {
        let flags = u16::try_from(flags).unwrap_or_default();
        self.requests.push(Request { flags, message: Message::new(kind, attributes) });
    }

    /// The table, which may be there already.
    pub(super) fn table(&mut self) {
        self.add(libc::NLM_F_CREATE, NEW_TABLE, vec![text(1, self.table), number(2, 0)]);
    }

    /// Removes the table, with all that is in it.
    pub(super) fn delete_table(&mut self) {
        self.add(0, DELETE_TABLE, vec![text(1, self.table)]);
    }

    /// A chain that the kernel calls.
    pub(super) fn chain(&mut self, name: &str, hook: Hook) {
        let at = [number(1, hook.point as u32), number(2, hook.priority.cast_unsigned())];
        let policy = if hook.drops { POLICY_DROP } else { POLICY_ACCEPT };
        let attributes = vec![
            text(1, self.table),
            text(3, name),
            nest(4, &at),
            number(5, policy),
            text(7, hook.kind),
        ];
        self.add(libc::NLM_F_CREATE, NEW_CHAIN, attributes);
    }

    /// A chain that nothing calls: its name says something.
    pub(super) fn note(&mut self, name: &str) {
        self.add(libc::NLM_F_CREATE, NEW_CHAIN, vec![text(1, self.table), text(3, name)]);
    }

    /// A rule at the end of a chain.
    pub(super) fn rule(&mut self, chain: &str, rule: Rule) {
        let attributes = vec![text(1, self.table), text(2, chain), rule.into_attribute(4)];
        self.add(libc::NLM_F_CREATE | libc::NLM_F_APPEND, NEW_RULE, attributes);
    }

    /// A set of addresses.
    pub(super) fn set(&mut self, name: &str, kind: SetKind) {
        self.sets += 1;
        let flags = match kind {
            SetKind::Addresses => 0,
            SetKind::Ranges => SET_IS_INTERVAL,
            SetKind::Counted(_) => SET_IS_DYNAMIC,
        };
        let mut attributes = vec![
            text(1, self.table),
            text(2, name),
            number(3, flags),
            number(4, KEY_IPV4),
            number(5, KEY_BYTES),
            number(10, self.sets),
        ];
        if let SetKind::Counted(most) = kind {
            attributes.push(nest(9, &[number(1, most)]));
        }
        self.add(libc::NLM_F_CREATE, NEW_SET, attributes);
    }

    /// Adds addresses to a set.
    pub(super) fn add_addresses(&mut self, set: &str, addresses: &[Ipv4Addr]) {
        let elements: Vec<_> = addresses.iter().map(|address| element(*address, 0)).collect();
        self.elements(libc::NLM_F_CREATE, NEW_ELEMENT, set, &elements);
    }

    /// Removes an address that is in a set.
    pub(super) fn delete_address(&mut self, set: &str, address: Ipv4Addr) {
        self.elements(0, DELETE_ELEMENT, set, &[element(address, 0)]);
    }

    /// Removes everything that is in a set.
    pub(super) fn empty(&mut self, set: &str) {
        self.add(0, DELETE_ELEMENT, vec![text(1, self.table), text(2, set)]);
    }

    /// Adds ranges to a set: in order, and apart from each other.
    pub(super) fn add_ranges(&mut self, set: &str, ranges: &[RangeInclusive<Ipv4Addr>]) {
        let mut elements = Vec::new();
        for range in ranges {
            elements.push(element(*range.start(), 0));
            // A range that goes on to the last address has no end.
            let after = range.end().to_bits().checked_add(1);
            elements.extend(after.map(|bits| element(Ipv4Addr::from_bits(bits), INTERVAL_END)));
        }
        self.elements(libc::NLM_F_CREATE, NEW_ELEMENT, set, &elements);
    }

    fn elements(&mut self, flags: i32, kind: u16, set: &str, elements: &[DefaultNla]) {
        // An attribute's length is a number of 16 bits.
        const ELEMENTS_PER_MESSAGE: usize = 1024;
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let attributes = vec![text(1, self.table), text(2, set), nest(3, part)];
            self.add(flags, kind, attributes);
        }
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// The kernel's; nothing has changed then.
    pub(super) fn commit(mut self, socket: &mut Socket) -> io::Result<()> {
        let last = self.requests.len() - 1;
        self.requests.push(Request { flags: 0, message: Message::border(BATCH_END) });
        socket.ask_until(self.requests, last)
    }

    /// Makes the changes where all that they refer to is made by them: the table and what is in it.
    ///
    /// # Errors
    /// The kernel's, which names its modules where it lacks one; nothing has changed then.
    pub(super) fn commit_new(self, socket: &mut Socket) -> io::Result<()> {
        self.commit(socket).map_err(with_modules)
    }
}

/// Its modules with the parts of our rules.
const MODULES: &str =
    "nft_chain_nat, nft_connlimit, nft_ct, nft_fib_ipv4, nft_masq, nft_reject_ipv4";

/// What a kernel means that finds nothing, though everything of ours is there.
fn with_modules(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::ENOENT) {
        return error;
    }
    let text = format!(
        "the kernel lacks a part of nf_tables; load its modules {MODULES} (it does so itself where they are \
         installed and kernel.modules_disabled is 0)"
    );
    io::Error::new(error.kind(), text)
}

fn element(address: Ipv4Addr, flags: u32) -> DefaultNla {
    let key = nest(1, &[DefaultNla::new(1, address.octets().to_vec())]);
    if flags == 0 { nest(1, &[key]) } else { nest(1, &[key, number(3, flags)]) }
}

/// A chain, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The family of its table, as the kernel numbers them.
    pub(super) family: u8,
    /// Its table.
    pub(super) table: String,
    /// Its name.
    pub(super) name: String,
    /// Where it is called, and whether it then drops what no rule decides on.
    pub(super) hook: Option<(u32, bool)>,
}

/// Every chain of this network namespace.
///
/// # Errors
/// Those of the kernel.
pub(super) fn chains(socket: &mut Socket) -> io::Result<Vec<Chain>> {
    let mut chains = Vec::new();
    let every = Message { family: 0, ..Message::new(GET_CHAIN, Vec::new()) };
    socket.dump(every, |message| {
        let point = message.nested(4).iter().find(|a| a.kind() == 1).map(value);
        let point = point.and_then(|bytes| parse_u32_be(&bytes).ok());
        let drops = message.number(5) == Some(POLICY_DROP);
        if let (Some(table), Some(name)) = (message.text(1), message.text(3)) {
            let hook = point.map(|point| (point, drops));
            chains.push(Chain { family: message.family, table, name, hook });
        }
    })?;
    Ok(chains)
}

/// The names of all tables of ours' family in this network namespace.
///
/// # Errors
/// Those of the kernel.
pub(super) fn tables(socket: &mut Socket) -> io::Result<Vec<String>> {
    let mut tables = Vec::new();
    socket.dump(Message::new(GET_TABLE, Vec::new()), |table| tables.extend(table.text(1)))?;
    Ok(tables)
}

/// The addresses in a set.
///
/// # Errors
/// Those of the kernel.
pub(super) fn addresses(socket: &mut Socket, table: &str, set: &str) -> io::Result<Vec<Ipv4Addr>> {
    let mut addresses = Vec::new();
    let asked = Message::new(GET_ELEMENT, vec![text(1, table), text(2, set)]);
    socket.dump(asked, |message| {
        for element in message.nested(3) {
            let first = |attribute: &DefaultNla| {
                let inner = attributes(&value(attribute)).ok()?;
                inner.into_iter().find(|a| a.kind() & !NLA_F_NESTED == 1)
            };
            let key = first(&element).and_then(|key| first(&key));
            let octets: Option<[u8; 4]> = key.and_then(|key| value(&key).try_into().ok());
            addresses.extend(octets.map(Ipv4Addr::from));
        }
    })?;
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lacks_a_module_is_told_from_other_faults() {
        let said = |code| with_modules(io::Error::from_raw_os_error(code)).to_string();
        assert!(said(libc::ENOENT).contains("nft_reject_ipv4"), "{}", said(libc::ENOENT));
        assert!(!said(libc::EPERM).contains("nft_"), "{}", said(libc::EPERM));
    }
}
