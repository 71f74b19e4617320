//! Talking to the kernel over netlink(7), synchronously: a socket belongs to the network namespace in which
//! it was opened, whatever namespace its user is in later.

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv,
        send, socket_with,
    },
};

/// Bytes of one packet from the kernel: it fills those of a dump up to this size.
const PACKET_BYTES_MAX: usize = 32 << 10;

/// Messages of one dump that are read; a host has fewer routes and links.
const DUMPED_MAX: usize = 100_000;

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A message with what it wants of the kernel (`NLM_F_…`).
#[derive(Debug)]
pub(super) struct Request<T> {
    /// Flags beside the one of all requests.
    pub(super) flags: u16,
    /// What is asked.
    pub(super) message: T,
}

impl Socket {
    /// A socket for links, addresses and routes of the present network namespace.
    ///
    /// # Errors
    /// Those of socket(2).
    pub(super) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// A socket for the present network namespace's rules for packets.
    ///
    /// # Errors
    /// Those of socket(2): `EPROTONOSUPPORT` where the kernel has none.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; PACKET_BYTES_MAX] })
    }

    /// Sends these in one go; the kernel has acted on all of them when this returns.
    ///
    /// # Errors
    /// The kernel's first. What came before it has been done, unless the requests are one transaction.
    pub(super) fn ask<T>(&mut self, requests: Vec<Request<T>>) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let last = requests.len().saturating_sub(1);
        self.ask_until(requests, last)
    }

    /// As [`Self::ask`] for requests that are one transaction, of which `answered` is the last that the
    /// kernel answers: those after it only close the transaction.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn ask_until<T>(
        &mut self,
        requests: Vec<Request<T>>,
        answered: usize,
    ) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let first = self.sequence.wrapping_add(1);
        let awaited = first.wrapping_add(u32::try_from(answered).unwrap_or(u32::MAX));
        let mut bytes = Vec::new();
        for (index, request) in requests.into_iter().enumerate() {
            let ack = if index == answered { NLM_F_ACK } else { 0 };
            self.write(request.message, request.flags | ack, &mut bytes);
        }
        self.send(&bytes)?;
        // The kernel answers while it is asked, failures in order: nothing is waited for.
        loop {
            for (sequence, payload) in self.receive::<T>(RecvFlags::DONTWAIT)? {
                // What an earlier, failed transaction left unread.
                if sequence.wrapping_sub(first) > u32::MAX / 2 {
                    continue;
                }
                if let NetlinkPayload::Error(error) = payload {
                    match error.code {
                        Some(_) => return Err(error.to_io()),
                        None if sequence == awaited => return Ok(()),
                        None => {}
                    }
                }
            }
        }
    }

    /// Asks for everything of a kind and passes each on.
    ///
    /// # Errors
    /// Those of the kernel, or if there is too much.
    pub(super) fn dump<T>(&mut self, message: T, mut each: impl FnMut(T)) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut bytes = Vec::new();
        self.write(message, NLM_F_DUMP, &mut bytes);
        self.send(&bytes)?;
        let asked = self.sequence;
        let mut count = 0;
        loop {
            for (sequence, payload) in self.receive::<T>(RecvFlags::empty())? {
                count += 1;
                match payload {
                    _ if sequence != asked => {}
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
            }
            if count > DUMPED_MAX {
                return Err(io::Error::other(format!(
                    "more than {DUMPED_MAX} links, routes or rules"
                )));
            }
        }
    }

    fn write<T: NetlinkSerializable>(&mut self, message: T, flags: u16, out: &mut Vec<u8>) {
        /// Messages start at multiples of this (netlink(7)).
        const ALIGNMENT: usize = 4;
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let start = out.len();
        out.resize((start + packet.buffer_len()).next_multiple_of(ALIGNMENT), 0);
        let end = start + packet.buffer_len();
        packet.serialize(&mut out[start..end]);
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(&self.fd, bytes, SendFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive<T: NetlinkDeserializable>(
        &mut self,
        flags: RecvFlags,
    ) -> io::Result<Vec<(u32, NetlinkPayload<T>)>> {
        let received = loop {
            match recv(&self.fd, self.buffer.as_mut_slice(), flags | RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok((_, length)) => break length,
            }
        };
        let mut rest = self.buffer.get(..received).ok_or_else(|| {
            io::Error::other(format!(
                "the kernel sent {received} bytes where {PACKET_BYTES_MAX} fit"
            ))
        })?;
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let parsed = NetlinkMessage::<T>::deserialize(rest).map_err(io::Error::other)?;
            let length = usize::try_from(parsed.header.length).unwrap_or(usize::MAX);
            messages.push((parsed.header.sequence_number, parsed.payload));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}
