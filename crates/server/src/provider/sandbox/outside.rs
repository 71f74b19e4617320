//! What functions reach beside the platform, as the spawner and this host's files have it.

use std::{fs, io::Read as _, path::Path};

use pinnace_core::{Resolvers, network::Block};
use pinnace_sandbox::{
    host::{Host, LANDLOCK_SCOPES},
    network::{Policy, Standing},
};

use super::plan::WayOut;

/// How the network stands, and where names are asked for.
#[derive(Clone, Debug)]
pub struct Outside {
    /// What the spawner found or made.
    pub standing: Standing,
    /// What this host's files say.
    pub resolvers: Resolvers,
    /// Why no function may share the host's network, if so.
    pub no_host: Option<String>,
}

/// Where a host's nameservers stand, and where those stand that a resolver of systemd on the loopback device
/// asks itself.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Bytes that are read of such a file.
const BYTES_MAX: u64 = 64 << 10;

/// Reads where this host asks for names: from the first file that has a server which functions reach.
#[must_use]
pub fn resolvers() -> Resolvers {
    let found = FILES.iter().filter_map(|file| read(Path::new(file)));
    found.into_iter().find(|found| !found.servers.is_empty()).unwrap_or_default()
}

fn read(file: &Path) -> Option<Resolvers> {
    let mut bytes = Vec::new();
    fs::File::open(file).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(Resolvers::parse(&String::from_utf8_lossy(&bytes)))
}

/// Why no function may share the host's network, if so. `asks_password` says whether the API asks for one.
#[must_use]
pub fn no_host_network(asks_password: bool, host: &Host) -> Option<String> {
    if !asks_password {
        return Some(
            "it could drive the API, which asks for no password; start Pinnace without `--no-auth`"
                .to_owned(),
        );
    }
    if !host.root {
        return Some(
            "an ordinary user's functions are in a network of that user's; run Pinnace as root"
                .to_owned(),
        );
    }
    // One of Pinnace's own ids may listen beside it at its very ports (SO_REUSEPORT).
    let why = host.id_ranges.as_ref().err()?;
    Some(format!(
        "it would have the host's user ids, and with them could take calls from Pinnace's own ports, because \
         {why}; keep the state directory on ext4, xfs or btrfs"
    ))
}

/// What a network lacks, a sentence each.
#[must_use]
pub fn lacks(standing: &Standing) -> Vec<String> {
    let Standing { no_gateway, no_way_out, .. } = standing;
    let gateway = no_gateway
        .as_ref()
        .map(|why| format!("functions do not reach the platform as gateway:8080: {why}"));
    let way_out = no_way_out.as_ref().map(|why| format!("no function can have network nat: {why}"));
    gateway.into_iter().chain(way_out).collect()
}

/// What functions that leave may reach.
#[must_use]
pub fn policy(allowed: &[Block], resolvers: &Resolvers) -> Policy {
    Policy {
        allowed: allowed.iter().map(ToString::to_string).collect(),
        resolvers: resolvers.servers.clone(),
    }
}

impl Outside {
    /// What cannot be had, a sentence each.
    #[must_use]
    pub fn missing(&self, host: &Host) -> Vec<String> {
        let Standing { no_way_out, obstacles, .. } = &self.standing;
        let names = (no_way_out.is_none() && self.resolvers.servers.is_empty()).then(|| {
            format!(
                "functions with network nat resolve no names: {} and {} name no server but on the loopback \
                 device, which functions do not reach",
                FILES[0], FILES[1]
            )
        });
        let sockets = (self.no_host.is_none() && host.landlock_abi < LANDLOCK_SCOPES).then(|| {
            "functions with network host reach the abstract unix sockets of this host's programs: only Landlock \
             since Linux 6.12 keeps them from those"
                .to_owned()
        });
        let sentences = lacks(&self.standing).into_iter().chain(names).chain(sockets);
        sentences.chain(obstacles.iter().cloned()).collect()
    }

    /// What a function's plan goes by.
    #[must_use]
    pub fn way_out(&self) -> WayOut {
        WayOut {
            missing: self.standing.no_way_out.clone(),
            no_host: self.no_host.clone(),
            resolvers: self.resolvers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::able;

    #[test]
    fn the_hosts_network_needs_a_password_root_and_ids_of_its_own() {
        let no_host = |host: &Host| no_host_network(true, host);
        assert_eq!(no_host(&able()), None);
        let why = no_host_network(false, &able()).unwrap();
        assert!(why.contains("--no-auth"), "{why}");
        let why = no_host(&Host { root: false, ..able() }).unwrap();
        assert!(why.ends_with("run Pinnace as root"), "{why}");
        let why = no_host(&Host { id_ranges: Err("it is so".into()), ..able() }).unwrap();
        assert!(why.contains("because it is so; "), "{why}");
        let outside = Outside {
            standing: Standing::default(),
            resolvers: Resolvers::parse("nameserver 192.0.2.1"),
            no_host: None,
        };
        let older = Host { landlock_abi: LANDLOCK_SCOPES - 1, ..able() };
        assert!(outside.missing(&older)[0].contains("abstract unix sockets"));
        let closed = Outside { no_host: Some("it is so".into()), ..outside };
        assert!(closed.missing(&older).is_empty());
    }

    #[test]
    fn what_is_missing_is_said_once() {
        let standing = Standing::default();
        let resolvers = Resolvers::parse("nameserver 192.0.2.1");
        let whole = Outside { standing, resolvers, no_host: None };
        assert!(whole.missing(&able()).is_empty());
        assert_eq!(whole.way_out().missing, None);
        let silent = Outside { resolvers: Resolvers::default(), ..whole.clone() };
        assert!(
            silent.missing(&able())[0].starts_with("functions with network nat resolve no names")
        );
        let standing = Standing { no_way_out: Some("it is so".into()), ..Standing::default() };
        let within = Outside { standing, resolvers: Resolvers::default(), no_host: None };
        assert_eq!(within.missing(&able()), ["no function can have network nat: it is so"]);
    }
}
