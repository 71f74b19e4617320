//! Devices, addresses and routes: the requests that the router and the uplink need.
//!
//! No device asks who has an address: both ends of a pair have the same hardware address and are told that
//! there is nothing to ask (`IFF_NOARP`). The kernel then fills a packet's head without a table of
//! neighbours, of which it holds 1,024 for all namespaces together, and no sandbox can answer for another.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{
        InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
};
use pinnace_core::network::Block;

use super::netlink::{Request, Socket};

/// The number of the loopback device, in every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// One end of a pair of virtual devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'e> {
    /// Its name.
    pub(super) name: &'e str,
    /// Its number; 0 for any.
    pub(super) device: u32,
}

/// The hardware address of every device; the first octet says that it is made up.
const HARDWARE: [u8; 6] = [0x02, b'p', b'n', b'c', 0, 1];

const CREATE_NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Makes a pair of devices: one end in the socket's own namespace, up, and one in another, which can be taken
/// up only there, once both are joined.
pub(super) fn pair(near: End<'_>, far: End<'_>, namespace: BorrowedFd<'_>) -> Request<Message> {
    let mut peer = end(far, LinkFlags::Noarp);
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut link = end(near, LinkFlags::Noarp | LinkFlags::Up);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request { flags: CREATE_NEW, message: Message::NewLink(link) }
}

fn end(end: End<'_>, flags: LinkFlags) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header =
        LinkHeader { index: end.device, flags, change_mask: flags, ..LinkHeader::default() };
    link.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Address(HARDWARE.to_vec()),
        // By default there is a queue per processor, each with files in /sys to be made.
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
    ];
    link
}

/// Takes a device up.
pub(super) fn up(device: u32) -> Request<Message> {
    let mut link = LinkMessage::default();
    let flags = LinkFlags::Up;
    link.header = LinkHeader { index: device, flags, change_mask: flags, ..LinkHeader::default() };
    Request { flags: 0, message: Message::SetLink(link) }
}

/// Removes a device, and its other end with it.
pub(super) fn removal(name: &str) -> Request<Message> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    Request { flags: 0, message: Message::DelLink(link) }
}

/// Gives a device an address.
pub(super) fn address(device: u32, address: Ipv4Addr, prefix_bits: u8) -> Request<Message> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_bits;
    message.header.scope = AddressScope::Universe;
    message.header.index = device;
    let address = IpAddr::from(address);
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    Request { flags: CREATE_NEW, message: Message::NewAddress(message) }
}

/// Sends what is for one address by a device.
pub(super) fn route_to(device: u32, address: Ipv4Addr) -> Request<Message> {
    let mut message = route(device);
    message.header.destination_prefix_length = 32;
    message.header.scope = RouteScope::Link;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    // One that has stayed leads to a device that is gone.
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    Request { flags, message: Message::NewRoute(message) }
}

/// Sends everything else by a device to a router that is at its other end, whatever its address.
pub(super) fn default_route(device: u32, router: Ipv4Addr) -> Request<Message> {
    let mut message = route(device);
    message.header.scope = RouteScope::Universe;
    message.header.flags = RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(router)));
    Request { flags: CREATE_NEW, message: Message::NewRoute(message) }
}

fn route(device: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(device)];
    message
}

/// Every device of the socket's namespace: its number and its name.
///
/// # Errors
/// Those of the kernel.
pub(super) fn devices(socket: &mut Socket) -> io::Result<Vec<(u32, String)>> {
    let mut devices = Vec::new();
    socket.dump(Message::GetLink(LinkMessage::default()), |message| {
        let Message::NewLink(link) = message else { return };
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        devices.extend(name.map(|name| (link.header.index, name)));
    })?;
    Ok(devices)
}

/// Where the routes of the socket's namespace lead, its own addresses among them, but for the default.
///
/// # Errors
/// Those of the kernel.
pub(super) fn destinations(socket: &mut Socket) -> io::Result<Vec<Block>> {
    let mut all = RouteMessage::default();
    all.header.address_family = AddressFamily::Inet;
    let mut destinations = Vec::new();
    socket.dump(Message::GetRoute(all), |message| {
        let Message::NewRoute(route) = message else { return };
        let bits = route.header.destination_prefix_length;
        destinations.extend(route.attributes.into_iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(first)) if bits > 0 => {
                Some(Block::around(first, bits))
            }
            _ => None,
        }));
    })?;
    Ok(destinations)
}
