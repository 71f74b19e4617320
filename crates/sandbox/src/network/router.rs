//! The router: a network namespace that every slot is attached to, and the rules in it.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use pinnace_core::{
    limits,
    network::{Block, closed},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::{
    holder,
    links::{self, End},
    netlink::Socket,
    nft::{self, Connection, Hook, Point, Rule, SetKind, Transaction},
    plan::{GATEWAY, GATEWAY_PORT, Place},
};
use crate::{
    adoption::{Adopted, has_ended},
    failed::Doing as _,
};

/// What functions that may leave may reach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Parts of private ranges that the operator has opened, in the form of
    /// [`Block::to_allow`](pinnace_core::network::Block::to_allow).
    pub allowed: Vec<String>,
    /// The nameservers, which may be asked for names even if they are in private ranges.
    pub resolvers: Vec<Ipv4Addr>,
}

/// A slot's place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its place at the router.
    pub place: Place,
    /// Its address, by which the gateway knows it.
    pub address: Ipv4Addr,
}

/// The router of this Pinnace. For the spawner, which has one thread: it goes into other network namespaces
/// and back.
#[derive(Debug)]
pub struct Router {
    holder: Adopted,
    namespace: OwnedFd,
    home: OwnedFd,
    links: Socket,
    rules: Socket,
    next: Place,
    leaving: BTreeSet<Ipv4Addr>,
}

/// The router's end of the uplink.
pub(super) const UPLINK: &str = "up";

/// A slot's device, and its number there.
const SLOT_DEVICE: &str = "eth0";
const SLOT_DEVICE_NUMBER: u32 = 2;

const TABLE: &str = "pinnace";
/// Slots that may leave.
const OUT: &str = "out";
/// Where they may not go.
const CLOSED: &str = "closed";
/// The nameservers.
const RESOLVERS: &str = "resolvers";
/// How many connections each has.
const COUNTED: &str = "connections";

const DNS_PORT: u16 = 53;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

/// The router's own settings. It takes a packet only from where its source lives (`rp_filter`), and knows
/// IPv4 alone.
const SETTINGS: [(&str, &str); 7] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

impl Router {
    /// Makes a router, in whose directory `dir` its process is recorded. `program` calls
    /// [`park`](super::park) when its name is [`HOLDER`](super::HOLDER).
    ///
    /// # Errors
    /// If this process has several threads, or with what could not be made; nothing of it stays then.
    pub fn make(dir: &Path, program: BorrowedFd<'_>, policy: &Policy) -> io::Result<Self> {
        holder::end(dir)?;
        let made = holder::start(dir, program).and_then(|holder| {
            let mut router = Self::of(holder)?;
            router.set_up(policy)?;
            Ok(router)
        });
        if made.is_err() {
            holder::end(dir)?;
        }
        made
    }

    /// The router that an earlier process made; `None` if it is gone.
    ///
    /// # Errors
    /// If it is there but cannot be used.
    pub fn adopt(dir: &Path, policy: &Policy) -> io::Result<Option<Self>> {
        let Some(holder) = Adopted::find(dir)? else { return Ok(None) };
        let mut router = Self::of(holder)?;
        // Killed between its process and its rules, it has none.
        if !nft::tables(&mut router.rules)?.iter().any(|table| table == TABLE) {
            return Ok(None);
        }
        router.leaving = nft::addresses(&mut router.rules, TABLE, OUT)?.into_iter().collect();
        let taken = router.places()?;
        router.next = taken.last().map_or(router.next, |place| place.next());
        router.apply(policy)?;
        Ok(Some(router))
    }

    /// Ends the router of a directory, if there is one: with it go all slots' devices.
    ///
    /// # Errors
    /// If its process cannot be ended.
    pub fn end(dir: &Path) -> io::Result<()> {
        holder::end(dir)
    }

    fn of(holder: Adopted) -> io::Result<Self> {
        let namespace = holder::namespace(&holder)?;
        let home: OwnedFd = fs::File::open("/proc/thread-self/ns/net")?.into();
        let (links, rules) = visit(namespace.as_fd(), home.as_fd(), || {
            let rules = Socket::netfilter().doing(|| "reach the kernel's nf_tables")?;
            Ok((Socket::route()?, rules))
        })?;
        let next = Place::new(0).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { holder, namespace, home, links, rules, next, leaving: BTreeSet::new() })
    }

    fn set_up(&mut self, policy: &Policy) -> io::Result<()> {
        self.visit(|| {
            for (name, value) in SETTINGS {
                set(name, value)?;
            }
            Ok(())
        })?;
        self.links
            .ask(vec![links::up(links::LOOPBACK), links::address(links::LOOPBACK, GATEWAY, 32)])
            .doing(|| "give the router its address")?;
        rules().commit_new(&mut self.rules).doing(|| "set the router's rules for packets")?;
        self.apply(policy)
    }

    /// Changes what functions that may leave may reach.
    ///
    /// # Errors
    /// If the policy names a block that cannot be opened, or those of the kernel; nothing has changed then.
    pub fn apply(&mut self, policy: &Policy) -> io::Result<()> {
        let allowed: Result<Vec<Block>, _> =
            policy.allowed.iter().map(|block| Block::to_allow(block)).collect();
        let allowed = allowed.map_err(io::Error::other)?;
        let resolvers: BTreeSet<Ipv4Addr> =
            policy.resolvers.iter().copied().take(limits::RESOLVERS_MAX).collect();
        let mut changes = Transaction::on(TABLE);
        for set in [CLOSED, RESOLVERS] {
            changes.empty(set);
        }
        changes.add_ranges(CLOSED, &closed(&allowed));
        changes.add_addresses(RESOLVERS, &resolvers.into_iter().collect::<Vec<_>>());
        Ok(changes.commit(&mut self.rules).doing(|| "set what functions may reach")?)
    }

    /// A listener at the gateway's address. Whoever holds it serves the functions of this Pinnace.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn listener(&self) -> io::Result<TcpListener> {
        let listener = self.visit(|| TcpListener::bind((GATEWAY, GATEWAY_PORT)));
        Ok(listener.doing(|| format!("listen at the gateway's {GATEWAY}:{GATEWAY_PORT}"))?)
    }

    /// Attaches an empty network namespace: a device, an address, a default route. What it may reach is the
    /// gateway alone until [`Self::let_leave`].
    ///
    /// # Errors
    /// If no place is free, or with what could not be made; nothing of it stays then.
    pub fn attach(&mut self, slot: BorrowedFd<'_>) -> io::Result<Attachment> {
        let mut inside = visit(slot, self.home.as_fd(), || {
            // A namespace without IPv6 has no such setting.
            let _ = set("ipv6/conf/default/disable_ipv6", "1");
            Socket::route()
        })?;
        let place = self.connect(slot)?;
        let address = place.address();
        if self.leaving.contains(&address) {
            self.let_leave(place, false)?;
        }
        let set_up = inside.ask(vec![
            links::up(SLOT_DEVICE_NUMBER),
            links::address(SLOT_DEVICE_NUMBER, address, 32),
            links::default_route(SLOT_DEVICE_NUMBER, GATEWAY),
        ]);
        if set_up.is_err() {
            self.detach(place)?;
        }
        set_up.doing(|| format!("give a slot {address}"))?;
        Ok(Attachment { place, address })
    }

    /// Joins a slot and the next free place by a pair of devices.
    fn connect(&mut self, slot: BorrowedFd<'_>) -> io::Result<Place> {
        for _ in 0..limits::NETWORK_SLOTS_MAX {
            let place = self.next;
            self.next = place.next();
            let name = place.name();
            let near = End { name: &name, device: place.device() };
            let far = End { name: SLOT_DEVICE, device: SLOT_DEVICE_NUMBER };
            let connected = self.links.ask(vec![
                links::pair(near, far, slot),
                links::route_to(place.device(), place.address()),
            ]);
            match connected {
                Ok(()) => return Ok(place),
                Err(error) if is_taken(&error) => {}
                Err(error) => return Ok(Err(error).doing(|| format!("make device {name}"))?),
            }
        }
        Err(io::Error::other(format!(
            "all {} places at the router are taken",
            limits::NETWORK_SLOTS_MAX
        )))
    }

    /// Lets the slot at a place leave, or no longer: its connections end with that.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn let_leave(&mut self, place: Place, may_leave: bool) -> io::Result<()> {
        let address = place.address();
        if self.leaving.contains(&address) == may_leave {
            return Ok(());
        }
        let mut change = Transaction::on(TABLE);
        if may_leave {
            change.add_addresses(OUT, &[address]);
        } else {
            change.delete_address(OUT, address);
        }
        change.commit(&mut self.rules).doing(|| format!("change what {address} may reach"))?;
        if may_leave {
            self.leaving.insert(address);
        } else {
            self.leaving.remove(&address);
        }
        Ok(())
    }

    /// Takes a slot's device away. One whose namespace has ended has none any more.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn detach(&mut self, place: Place) -> io::Result<()> {
        self.let_leave(place, false)?;
        let name = place.name();
        match self.links.ask(vec![links::removal(&name)]) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => Ok(other.doing(|| format!("remove device {name}"))?),
        }
    }

    /// The places that are taken, in order.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn places(&mut self) -> io::Result<Vec<Place>> {
        let devices = links::devices(&mut self.links)?;
        let number = |name: &str| Place::new(name.strip_prefix('s')?.parse().ok()?);
        let mut places: Vec<Place> = devices.iter().filter_map(|(_, name)| number(name)).collect();
        places.sort_unstable();
        Ok(places)
    }

    /// Whether its process lives; without it the router is gone.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !has_ended(&self.holder.pidfd)
    }

    /// Readable when it has ended.
    pub(super) fn end_of(&self) -> BorrowedFd<'_> {
        self.holder.pidfd.as_fd()
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// The requests for its devices.
    pub(super) fn links(&mut self) -> &mut Socket {
        &mut self.links
    }

    fn visit<T>(&self, there: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        visit(self.namespace.as_fd(), self.home.as_fd(), there)
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EEXIST | libc::EBUSY))
}

/// Does something in another network namespace and comes back.
fn visit<T>(
    namespace: BorrowedFd<'_>,
    home: BorrowedFd<'_>,
    there: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace, network).doing(|| "enter a network namespace")?;
    let done = there();
    if move_into_link_name_space(home, network).is_err() {
        // Everything after this would be done to the wrong network.
        std::process::abort();
    }
    done
}

/// Changes a setting of the present network namespace.
pub(super) fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    Ok(fs::write(&path, value).doing(|| format!("write {value} to {path}"))?)
}

/// The router's rules.
fn rules() -> Transaction<'static> {
    let mut rules = Transaction::on(TABLE);
    rules.table();
    rules.set(OUT, SetKind::Addresses);
    rules.set(CLOSED, SetKind::Ranges);
    rules.set(RESOLVERS, SetKind::Addresses);
    rules.set(COUNTED, SetKind::Counted(limits::NETWORK_SLOTS_MAX));
    let filter = |point| Hook { kind: "filter", point, priority: 0, drops: true };

    rules.chain("forward", filter(Point::Forward));
    for rule in [
        // From outside come answers alone.
        Rule::new().enters_by(UPLINK).of(Connection::Known).accept(),
        Rule::new().enters_by(UPLINK).drop(),
        // From here on it comes from a function: not to another one, and only if it may leave.
        Rule::new().leaves_not_by(UPLINK).reject(),
        Rule::new().source_not_in(OUT).reject(),
        Rule::new().of(Connection::Known).accept(),
        Rule::new().not_of(Connection::New).drop(),
        Rule::new().over(limits::OUTSIDE_CONNECTIONS_PER_REPLICA_MAX, COUNTED).reject(),
        Rule::new().destination_in(RESOLVERS).port(UDP, DNS_PORT).accept(),
        Rule::new().destination_in(RESOLVERS).port(TCP, DNS_PORT).accept(),
        Rule::new().destination_in(CLOSED).reject(),
        Rule::new().accept(),
    ] {
        rules.rule("forward", rule);
    }
    rules.chain("input", filter(Point::Input));
    for rule in [
        Rule::new().enters_by(UPLINK).drop(),
        Rule::new().destination(GATEWAY).port(TCP, GATEWAY_PORT).accept(),
        Rule::new().reject(),
    ] {
        rules.rule("input", rule);
    }
    let leaving = Hook { kind: "nat", point: Point::Postrouting, priority: 100, drops: false };
    rules.chain("postrouting", leaving);
    rules.rule("postrouting", Rule::new().leaves_by(UPLINK).masquerade());
    rules
}
