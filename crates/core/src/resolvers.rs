//! Where names are asked for: what of a host's resolv.conf(5) holds for its functions.

use std::{fmt::Write as _, net::Ipv4Addr};

use crate::limits;

/// Nameservers, and the domains in which short names are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// At most `RESOLVERS_MAX`, none of them on the host's loopback device.
    pub servers: Vec<Ipv4Addr>,
    /// As the file has them.
    pub search: Vec<String>,
}

/// Domains that are searched (resolv.conf(5) reads six).
const SEARCH_MAX: usize = 6;

impl Resolvers {
    /// Reads a resolv.conf. What functions cannot use is left out: servers on the loopback device, which is
    /// another one for them, and those with an IPv6 address.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok());
                    found.servers.extend(server.filter(|server| !server.is_loopback()));
                }
                Some("search" | "domain") => {
                    found.search = words.take(SEARCH_MAX).map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        found.servers.truncate(limits::RESOLVERS_MAX);
        found
    }

    /// A resolv.conf that says this.
    #[must_use]
    pub fn to_conf(&self) -> String {
        let mut conf = String::new();
        for server in &self.servers {
            // Writing to a string does not fail.
            let _ = writeln!(conf, "nameserver {server}");
        }
        if self.servers.is_empty() {
            conf.push_str("# This host has no nameserver that functions can reach.\n");
        } else if !self.search.is_empty() {
            let _ = writeln!(conf, "search {}", self.search.join(" "));
        }
        conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_functions_can_use_is_taken() {
        let text = "# made by hand\nsearch old.example\nnameserver 127.0.0.53\nnameserver ::1\n\
                    nameserver 10.0.0.2\n nameserver\t192.0.2.1 # two\nnameserver x\n\
                    options ndots:5\nsearch a.example b.example\n";
        let found = Resolvers::parse(text);
        assert_eq!(
            found.to_conf(),
            "nameserver 10.0.0.2\nnameserver 192.0.2.1\nsearch a.example b.example\n"
        );
        assert_eq!(Resolvers::parse(&found.to_conf()), found);
    }

    #[test]
    fn there_are_bounds() {
        let many = "nameserver 192.0.2.1\n".repeat(10) + "search a b c d e f g h";
        let found = Resolvers::parse(&many);
        assert_eq!((found.servers.len(), found.search.len()), (limits::RESOLVERS_MAX, SEARCH_MAX));
        assert!(Resolvers::parse("nameserver 127.0.0.1").to_conf().starts_with('#'));
    }
}
