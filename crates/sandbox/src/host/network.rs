//! What the kernel offers for the network of sandboxes, found out by trying, and what is there of it.
//!
//! The attempts are made in a network namespace of the probing process's own, which ends with it. Messages
//! are written by hand after netlink(7): four of a fixed form.

use std::{io, os::fd::OwnedFd, path::Path, process::Command};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with,
};
use serde::{Deserialize, Serialize};

use super::{ask, enter};
use crate::sys::{self, SingleThreaded};

/// First word of the command line that asks for this probe.
pub(crate) const PROBE_NETWORK: &str = "--probe-network";

/// What the kernel offers, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Pairs of virtual devices.
    pub veth: Result<(), String>,
    /// Rules for packets.
    pub nftables: Result<(), String>,
    /// Among them rules that put another address in place of a sandbox's.
    pub masquerade: Result<(), String>,
}

impl Network {
    /// Asks the spawner's program.
    ///
    /// # Errors
    /// If the program cannot be run or says something else.
    pub fn probe(program: &Path) -> io::Result<Self> {
        ask(Command::new(program).arg(PROBE_NETWORK))
    }
}

/// Tries everything and prints what it found: the whole of a probing process.
pub(crate) fn print_probe() -> io::Result<()> {
    let proof = SingleThreaded::prove()?;
    let inside = enter(&proof).map(drop).and_then(|()| sys::unshare(&proof, libc::CLONE_NEWNET));
    let network = match inside {
        Ok(()) => Network {
            veth: tried(make_pair),
            nftables: tried(make_table),
            masquerade: tried(make_masquerade),
        },
        Err(error) => {
            let none = Err(format!("no network namespace can be made ({error})"));
            Network { veth: none.clone(), nftables: none.clone(), masquerade: none }
        }
    };
    println!("{}", serde_json::to_string(&network)?);
    Ok(())
}

fn tried(attempt: fn() -> io::Result<()>) -> Result<(), String> {
    attempt().map_err(|error| error.to_string())
}

// Numbers of linux/netlink.h, rtnetlink.h, if_link.h, netfilter/nfnetlink.h and netfilter/nf_tables.h.
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NF_TABLES: u16 = 10;
const NEW_TABLE: u16 = NF_TABLES << 8;
const GET_TABLE: u16 = NF_TABLES << 8 | 1;
const NEW_CHAIN: u16 = NF_TABLES << 8 | 3;
const NEW_RULE: u16 = NF_TABLES << 8 | 6;
const IPV4: u8 = 2;

/// Bytes of a message's header.
const HEADER: usize = 16;

/// Bytes of nfnetlink's own header, which follows.
const NETFILTER_HEADER: usize = 4;

/// Bytes of one packet from the kernel: it fills those of a dump up to this size.
const PACKET_BYTES_MAX: usize = 32 << 10;

fn make_pair() -> io::Result<()> {
    const LINK_INFO: u16 = 18;
    const KIND: u16 = 1;
    let kind = attribute(LINK_INFO, &attribute(KIND, b"veth\0"));
    // Any family, any type, the next free number.
    let body = [vec![0; 16], kind].concat();
    Socket::open(None)?.ask(&message(NEW_LINK, CREATE | ACK, &body))
}

fn make_table() -> io::Result<()> {
    Socket::open(Some(netlink::NETFILTER))?.ask(&batch(&[table()]))
}

fn make_masquerade() -> io::Result<()> {
    const POSTROUTING: u32 = 4;
    const SOURCE_TRANSLATION: u32 = 100;
    let hook =
        [attribute(1, &POSTROUTING.to_be_bytes()), attribute(2, &SOURCE_TRANSLATION.to_be_bytes())];
    let chain = [
        attribute(1, b"probe\0"),
        attribute(3, b"leaving\0"),
        attribute(4, &hook.concat()),
        attribute(7, b"nat\0"),
    ];
    let expression = attribute(1, &[attribute(1, b"masq\0"), attribute(2, &[])].concat());
    let rule = [attribute(1, b"probe\0"), attribute(2, b"leaving\0"), attribute(4, &expression)];
    let parts = [table(), (NEW_CHAIN, chain.concat()), (NEW_RULE, rule.concat())];
    Socket::open(Some(netlink::NETFILTER))?.ask(&batch(&parts))
}

fn table() -> (u16, Vec<u8>) {
    (NEW_TABLE, attribute(1, b"probe\0"))
}

/// Names of the tables of rules in this network namespace.
///
/// # Errors
/// Those of the kernel: only root may ask, and not every kernel has rules.
pub fn tables() -> io::Result<Vec<String>> {
    let mut socket = Socket::open(Some(netlink::NETFILTER))?;
    socket.send(&message(GET_TABLE, DUMP, &[0; NETFILTER_HEADER]))?;
    let mut names = Vec::new();
    loop {
        let packet = socket.receive()?;
        for (kind, body) in messages(&packet) {
            match kind {
                DONE => return Ok(names),
                ERROR => return Err(error_in(body)),
                _ => names.extend(body.get(NETFILTER_HEADER..).and_then(name_in)),
            }
        }
    }
}

/// The first attribute, if it is a name.
fn name_in(attributes: &[u8]) -> Option<String> {
    let length = u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?);
    let name = attributes.get(4..usize::from(length))?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    padded([&length.to_ne_bytes(), &kind.to_ne_bytes(), content].concat())
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes();
    let flags = (flags | REQUEST).to_ne_bytes();
    padded([&length[..], &kind.to_ne_bytes(), &flags, &[0; 8], body].concat())
}

/// Changes to the rules, all or none of which are made. The last one is answered.
fn batch(parts: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let [high, low] = NF_TABLES.to_be_bytes();
    let bound = |kind| message(kind, 0, &[0, 0, high, low]);
    let mut bytes = bound(BATCH_BEGIN);
    for (index, (kind, attributes)) in parts.iter().enumerate() {
        let ack = if index + 1 == parts.len() { ACK } else { 0 };
        bytes.extend(message(*kind, CREATE | ack, &[&[IPV4, 0, 0, 0], &attributes[..]].concat()));
    }
    bytes.extend(bound(BATCH_END));
    bytes
}

/// The messages of a packet: kind and body.
fn messages(packet: &[u8]) -> Vec<(u16, &[u8])> {
    let (mut rest, mut found) = (packet, Vec::new());
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let [a, b, c, d, kind @ ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(body) = rest.get(HEADER..length) else { break };
        found.push((u16::from_ne_bytes([kind[0], kind[1]]), body));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// What an answer of kind [`ERROR`] says; its number 0 is an acknowledgement.
fn number_in(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |number| i32::from_ne_bytes(*number))
}

fn error_in(body: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(-number_in(body))
}

struct Socket(OwnedFd);

impl Socket {
    /// For links without a protocol.
    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        Ok(Self(socket_with(family, SocketType::RAW, flags, protocol)?))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.0, bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let (received, _) = recv(&self.0, packet.as_mut_slice(), RecvFlags::empty())?;
        packet.truncate(received);
        Ok(packet)
    }

    /// Sends and waits for what the kernel says of it.
    fn ask(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(bytes)?;
        loop {
            let packet = self.receive()?;
            for (kind, body) in messages(&packet) {
                match (kind, number_in(body)) {
                    (ERROR, 0) => return Ok(()),
                    (ERROR, _) => return Err(error_in(body)),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let both = [message(NEW_TABLE, 0, b"\x02\0\0\0abcde"), message(DONE, 0, b"")].concat();
        assert_eq!(both.len() % 4, 0);
        assert_eq!(messages(&both), [(NEW_TABLE, &b"\x02\0\0\0abcde"[..]), (DONE, &b""[..])]);
        assert_eq!(messages(&both[..20]), []);
        assert_eq!(name_in(&attribute(1, b"pinnace-x\0")).as_deref(), Some("pinnace-x"));
        assert_eq!(error_in(&(-1i32).to_ne_bytes()).raw_os_error(), Some(1));
    }
}
