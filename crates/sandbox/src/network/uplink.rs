//! The way out: a pair of devices between the router and the host, and the host's one table for it.
//!
//! The table lets the router's one address leave, under the host's own, and nothing else: nothing of this
//! machine can be reached by it, and nobody outside can reach the router.
//!
//! Packets pass through the host only if its `net.ipv4.ip_forward` is on. Where it was off, it is turned on,
//! and the table says so by a chain without rules. The last Pinnace to leave turns it off again: one that
//! leaves before hands that chain on to the table of another. The table outlives a crash, so this does too.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{
    links::{self, End},
    netlink::Socket,
    nft::{self, Connection, Hook, Point, Rule, Transaction},
    plan::{self, UPLINK_BITS, UplinkAddresses},
    router::{self, Router, set},
};
use crate::failed::Doing as _;

/// The way out of this Pinnace. For a process in the host's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    name: String,
}

/// What of the host may keep packets from passing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// A chain of another program drops what passes through the host, unless a rule lets it pass.
    Drops {
        /// The chain's table.
        table: String,
        /// Its name.
        chain: String,
        /// Whether Docker's chain for rules of the operator is there.
        docker: bool,
    },
}

/// Turns it on and off.
const FORWARDING: &str = "ipv4/ip_forward";

/// The chain that says that forwarding was off.
const WAS_OFF: &str = "forwarding_was_off";

/// Number of the uplink in the router.
const ROUTER_DEVICE: u32 = 2;

/// Between connection tracking and the translation of destinations.
const BEFORE_TRANSLATION: i32 = -150;

/// Where sources are translated (`NF_IP_PRI_NAT_SRC`).
const SOURCE_TRANSLATION: i32 = 100;

/// Docker's chain for rules that go before its own.
const DOCKER_CHAIN: &str = "DOCKER-USER";

impl Uplink {
    /// The uplink that is there and whole, for a router that was adopted.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn adopt(router: &mut Router, name: &str) -> io::Result<Option<Self>> {
        let inside = links::devices(router.links())?;
        let connected = inside.iter().any(|(_, device)| device == router::UPLINK);
        let whole = connected && has_table(name)? && forwards()?;
        Ok(whole.then(|| Self { name: name.to_owned() }))
    }

    /// Makes it, after removing what is left of an earlier one.
    ///
    /// # Errors
    /// With what could not be made; nothing of it stays then.
    pub fn make(router: &mut Router, name: &str) -> io::Result<Self> {
        Self::remove(name)?;
        let made = Self::join(router, name);
        if made.is_err() {
            Self::remove(name)?;
        }
        made
    }

    fn join(router: &mut Router, name: &str) -> io::Result<Self> {
        let mut host = Socket::route()?;
        let taken = links::destinations(&mut host)?;
        let pair = UplinkAddresses::choose(name, &taken).ok_or_else(|| {
            io::Error::other(
                "routes of this host take all of 198.18.0.0/16, where the uplink has its addresses",
            )
        })?;
        let device = plan::uplink_device(name);
        let near = End { name: &device, device: 0 };
        let far = End { name: router::UPLINK, device: ROUTER_DEVICE };
        host.ask(vec![links::pair(near, far, router.namespace())])
            .doing(|| format!("make the uplink {device}"))?;
        let number = number_of(&mut host, &device)?;
        host.ask(vec![links::address(number, pair.host, UPLINK_BITS)])
            .doing(|| format!("give {device} {}", pair.host))?;
        router
            .links()
            .ask(vec![
                links::up(ROUTER_DEVICE),
                links::address(ROUTER_DEVICE, pair.router, UPLINK_BITS),
                links::default_route(ROUTER_DEVICE, pair.host),
            ])
            .doing(|| format!("give the router {}", pair.router))?;
        let table = plan::host_table(name);
        let mut rules = rules(&table, &device, pair);
        let is_off = !forwards()?;
        if is_off {
            rules.note(WAS_OFF);
        }
        rules.commit_new(&mut Socket::netfilter()?).doing(|| "set the host's rules for packets")?;
        if is_off {
            set(FORWARDING, "1")?;
        }
        Ok(Self { name: name.to_owned() })
    }

    /// Removes everything that the Pinnace with this name has on the host's network.
    ///
    /// # Errors
    /// With what could not be removed.
    pub fn remove(name: &str) -> io::Result<()> {
        let device = plan::uplink_device(name);
        match Socket::route()?.ask(vec![links::removal(&device)]) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            other => other.doing(|| format!("remove {device}"))?,
        }
        let Some(mut rules) = netfilter()? else { return Ok(()) };
        let own = plan::host_table(name);
        let tables = nft::tables(&mut rules)?;
        if !tables.contains(&own) {
            return Ok(());
        }
        if was_off(&mut rules, &own)? {
            hand_on(&mut rules, &own, &tables)?;
        }
        let mut change = Transaction::on(&own);
        change.delete_table();
        Ok(change.commit(&mut rules).doing(|| format!("remove the table {own}"))?)
    }

    /// What is there of it, a name each: for tests and for those who want to know that `down` has ended all.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn remains(name: &str) -> io::Result<Vec<String>> {
        let device = plan::uplink_device(name);
        let devices = links::devices(&mut Socket::route()?)?;
        let mut remains: Vec<String> = devices.into_iter().map(|(_, device)| device).collect();
        remains.retain(|there| *there == device);
        if has_table(name)? {
            remains.push(plan::host_table(name));
        }
        Ok(remains)
    }

    /// The host's device.
    #[must_use]
    pub fn device(&self) -> String {
        plan::uplink_device(&self.name)
    }

    /// What other programs' rules may keep from passing. Rules of the old iptables are not seen.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn obstacles() -> io::Result<Vec<Obstacle>> {
        let Some(mut rules) = netfilter()? else { return Ok(Vec::new()) };
        let chains = nft::chains(&mut rules)?;
        let docker = chains.iter().any(|chain| chain.name == DOCKER_CHAIN);
        let dropping = chains.into_iter().filter(|chain| {
            /// Families whose chains see IPv4: inet and ip.
            const SEE_IPV4: [u8; 2] = [1, 2];
            SEE_IPV4.contains(&chain.family)
                && chain.hook == Some((Point::Forward as u32, true))
                && !chain.table.starts_with(plan::TABLE_PREFIX)
        });
        Ok(dropping
            .map(|chain| Obstacle::Drops { table: chain.table, chain: chain.name, docker })
            .collect())
    }
}

impl Obstacle {
    /// A sentence with what would mend it, for the device of an uplink.
    #[must_use]
    pub fn sentence(&self, device: &str) -> String {
        let Self::Drops { table, chain, docker } = self;
        let mend = if *docker {
            let rule = |direction: &str| {
                format!("iptables -I {DOCKER_CHAIN} {direction} {device} -j ACCEPT")
            };
            format!("{} && {}", rule("-i"), rule("-o"))
        } else {
            format!("accept what comes from and goes to device {device} in that chain")
        };
        format!(
            "functions with network nat may not reach the outside: chain {chain} of table {table} drops \
             what passes through this host; {mend}"
        )
    }
}

/// A socket for rules; `None` where the kernel has no nf_tables.
fn netfilter() -> io::Result<Option<Socket>> {
    match Socket::netfilter() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        other => other.map(Some),
    }
}

fn has_table(name: &str) -> io::Result<bool> {
    let Some(mut rules) = netfilter()? else { return Ok(false) };
    Ok(nft::tables(&mut rules)?.contains(&plan::host_table(name)))
}

fn forwards() -> io::Result<bool> {
    let path = format!("/proc/sys/net/{FORWARDING}");
    Ok(fs::read_to_string(&path).doing(|| format!("read {path}"))?.trim() != "0")
}

fn number_of(host: &mut Socket, device: &str) -> io::Result<u32> {
    let devices = links::devices(host)?;
    let found = devices.iter().find(|(_, name)| name == device);
    found
        .map(|(number, _)| *number)
        .ok_or_else(|| io::Error::other(format!("device {device} is gone again")))
}

fn was_off(rules: &mut Socket, table: &str) -> io::Result<bool> {
    let chains = nft::chains(rules)?;
    Ok(chains.iter().any(|chain| chain.table == table && chain.name == WAS_OFF))
}

/// Leaves it to another Pinnace to turn forwarding off, or does so.
fn hand_on(rules: &mut Socket, own: &str, tables: &[String]) -> io::Result<()> {
    let other = |table: &&String| table.starts_with(plan::TABLE_PREFIX) && *table != own;
    let Some(heir) = tables.iter().find(other) else { return set(FORWARDING, "0") };
    let mut change = Transaction::on(heir);
    change.note(WAS_OFF);
    Ok(change.commit(rules).doing(|| format!("change the table {heir}"))?)
}

/// The rules on the host.
fn rules<'t>(table: &'t str, device: &str, pair: UplinkAddresses) -> Transaction<'t> {
    let mut rules = Transaction::on(table);
    rules.table();
    let filter = |point, priority| Hook { kind: "filter", point, priority, drops: false };
    // Seen before an address of this machine could be translated into one that is not (a published port).
    rules.chain("prerouting", filter(Point::Prerouting, BEFORE_TRANSLATION));
    rules.rule("prerouting", Rule::new().enters_by(device).source_is_not(pair.router).drop());
    rules.rule("prerouting", Rule::new().enters_by(device).destined_here().reject());
    rules.chain("input", filter(Point::Input, 0));
    rules.rule("input", Rule::new().enters_by(device).drop());
    rules.chain("forward", filter(Point::Forward, 0));
    rules.rule("forward", Rule::new().leaves_by(device).of(Connection::Known).accept());
    rules.rule("forward", Rule::new().leaves_by(device).drop());
    let leaving =
        Hook { kind: "nat", point: Point::Postrouting, priority: SOURCE_TRANSLATION, drops: false };
    rules.chain("postrouting", leaving);
    rules.rule("postrouting", Rule::new().source(pair.router).masquerade());
    rules
}
