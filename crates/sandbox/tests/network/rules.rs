//! The rules as the program `nft` reads them back: what the kernel was told is what was meant.

use pinnace_sandbox::network::{Obstacle, Policy, Uplink};

use crate::world::{NAME, World, run};

const HOST_RULES: &str = "table ip pinnace-0123456789ab {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		iifname \"pn-0123456789ab\" ip saddr != ROUTER drop
		iifname \"pn-0123456789ab\" fib daddr type local reject with icmp admin-prohibited
	}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname \"pn-0123456789ab\" drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname \"pn-0123456789ab\" ct state established,related accept
		oifname \"pn-0123456789ab\" drop
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr ROUTER masquerade
	}

	chain forwarding_was_off {
	}
}
";

const ROUTER_RULES: &str = "table ip pinnace {
	set out {
		type ipv4_addr
	}

	set closed {
		type ipv4_addr
		flags interval
		elements = { 0.0.0.0/8, 10.0.0.0/16,
			     10.2.0.0-10.255.255.255, 100.64.0.0/10,
			     127.0.0.0/8, 169.254.0.0/16,
			     172.16.0.0/12, 192.0.0.0/24,
			     192.168.0.0/16, 198.18.0.0/15,
			     224.0.0.0/3 }
	}

	set resolvers {
		type ipv4_addr
		elements = { 192.0.2.53 }
	}

	set connections {
		type ipv4_addr
		size 65000
		flags dynamic
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname \"up\" ct state established,related accept
		iifname \"up\" drop
		oifname != \"up\" reject with icmp admin-prohibited
		ip saddr != @out reject with icmp admin-prohibited
		ct state established,related accept
		ct state ! new drop
		add @connections { ip saddr ct count over 4096 } reject with icmp admin-prohibited
		ip daddr @resolvers udp dport 53 accept
		ip daddr @resolvers tcp dport 53 accept
		ip daddr @closed reject with icmp admin-prohibited
		accept
	}

	chain input {
		type filter hook input priority filter; policy drop;
		iifname \"up\" drop
		ip daddr 198.19.0.1 tcp dport 8080 accept
		reject with icmp admin-prohibited
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"up\" masquerade
	}
}
";

pub fn nft_lists_what_was_meant() {
    let world = World::new();
    let allowed = vec!["10.1.0.0/16".to_owned()];
    let resolvers = vec!["192.0.2.53".parse().unwrap()];
    let mut router = world.router(&Policy { allowed, resolvers });
    Uplink::make(&mut router, NAME).unwrap();
    let holder = std::fs::read_to_string(world.dir.path().join("pid")).unwrap();
    let pid = holder.split(' ').next().unwrap();
    assert_eq!(run("nsenter", &format!("--net=/proc/{pid}/ns/net nft list ruleset")), ROUTER_RULES);
    let addresses = run("nsenter", &format!("--net=/proc/{pid}/ns/net ip -4 -o addr show dev up"));
    let router = addresses.split_whitespace().nth(3).unwrap().trim_end_matches("/31").to_owned();
    assert_eq!(run("nft", "list ruleset"), HOST_RULES.replace("ROUTER", &router));
}

pub fn a_chain_that_drops_is_said() {
    let world = World::new();
    let mut router = world.router(&Policy::default());
    let uplink = Uplink::make(&mut router, NAME).unwrap();
    assert_eq!(Uplink::obstacles().unwrap(), []);
    run("nft", "add table ip filter");
    run(
        "nft",
        "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
    );
    let drops =
        |docker| Obstacle::Drops { table: "filter".into(), chain: "FORWARD".into(), docker };
    assert_eq!(Uplink::obstacles().unwrap(), [drops(false)]);
    run("nft", "add chain ip filter DOCKER-USER");
    let obstacles = Uplink::obstacles().unwrap();
    assert_eq!(obstacles, [drops(true)]);
    assert!(obstacles[0].sentence(&uplink.device()).ends_with(
        "iptables -I DOCKER-USER -i pn-0123456789ab -j ACCEPT && \
         iptables -I DOCKER-USER -o pn-0123456789ab -j ACCEPT"
    ));
}
