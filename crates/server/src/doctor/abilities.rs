//! What the kernel can do, in words.

use std::time::{SystemTime, UNIX_EPOCH};

use pinnace_sandbox::host::{Host, LANDLOCK_SCOPES, network::Network};

use super::{Check, number_in};

/// The oldest kernel on which Pinnace is tried: it maps the owners of files for overlays.
const KERNEL_LEAST: (u32, u32) = (5, 15);

/// A time before which no Pinnace was built, in seconds since 1970: a clock before it is wrong.
const EARLIEST_S: u64 = 1_735_689_600;

/// Clock sources whose reading costs a function no system call.
const QUICK_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource"];

/// Settings of the kernel that forbid user namespaces.
#[derive(Clone, Copy, Debug)]
pub struct Switches {
    /// `user.max_user_namespaces`.
    max_user_namespaces: Option<u64>,
    /// Debian's `kernel.unprivileged_userns_clone`.
    unprivileged_clone: Option<u64>,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`.
    apparmor_restricts: Option<u64>,
}

impl Switches {
    pub fn read() -> Self {
        Self {
            max_user_namespaces: number_in("/proc/sys/user/max_user_namespaces"),
            unprivileged_clone: number_in("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number_in("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// The commands that allow what is forbidden to root, or to an ordinary user.
    fn mends(&self, root: bool) -> Vec<&'static str> {
        let mut mends = Vec::new();
        if self.max_user_namespaces == Some(0) {
            mends.push("sysctl -w user.max_user_namespaces=10000");
        }
        if self.unprivileged_clone == Some(0) && !root {
            mends.push("sysctl -w kernel.unprivileged_userns_clone=1");
        }
        if self.apparmor_restricts.is_some_and(|restricts| restricts != 0) && !root {
            mends.push("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
        }
        mends
    }
}

/// The kernel itself, who asks, and what sandboxes are made of.
pub fn kernel(host: &Host, switches: &Switches) -> Vec<Check> {
    vec![
        release(&host.kernel),
        user(host),
        user_namespaces(host, switches),
        overlay(host),
        seccomp(host.seccomp),
        landlock(host.landlock_abi),
    ]
}

fn release(release: &str) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    let (major, minor) = KERNEL_LEAST;
    match version {
        Some(version) if version >= KERNEL_LEAST => Check::ok("release", release),
        _ => Check::no(
            "release",
            format!("{release}, older than {major}.{minor}"),
            format!("install a kernel of release {major}.{minor} or newer"),
        ),
    }
}

fn user(host: &Host) -> Check {
    if host.root {
        return Check::ok("user", "root");
    }
    Check::less(
        "user",
        format!("{}, not root; what that costs is told below", host.uid),
        "run Pinnace as root to have everything",
    )
}

fn user_namespaces(host: &Host, switches: &Switches) -> Check {
    const NAME: &str = "user namespaces";
    let mends = switches.mends(host.root);
    let mend = |otherwise: &str| match mends.is_empty() {
        true => otherwise.to_owned(),
        false => format!("as root: {}", mends.join("; ")),
    };
    match &host.user_namespaces {
        Err(why) => Check::no(
            NAME,
            format!("user {} may make none: {why}", host.uid),
            mend("run Pinnace as root, or let the kernel make user namespaces (CONFIG_USER_NS)"),
        ),
        Ok(()) if host.root && switches.max_user_namespaces == Some(0) => Check::less(
            NAME,
            "forbidden (user.max_user_namespaces is 0), so functions share the host's user ids",
            mend(""),
        ),
        Ok(()) => Check::ok(NAME, "can be made"),
    }
}

fn overlay(host: &Host) -> Check {
    match &host.overlay {
        Ok(()) => Check::ok("overlay", "can be mounted"),
        Err(why) if host.user_namespaces.is_err() => {
            Check::no("overlay", why.clone(), "mend the user namespaces first")
        }
        Err(why) => Check::no("overlay", why.clone(), "as root: modprobe overlay"),
    }
}

fn seccomp(there: bool) -> Check {
    if there {
        return Check::ok("seccomp", "system calls are filtered");
    }
    let mend = "use a kernel with CONFIG_SECCOMP_FILTER";
    Check::no("seccomp", "the kernel has none, and no function is started unfiltered", mend)
}

fn landlock(abi: u32) -> Check {
    const NAME: &str = "Landlock";
    match abi {
        0 => Check::less(
            NAME,
            "the kernel has none or it is turned off; functions have one fence less",
            "boot with lsm=landlock,… (the list in /sys/kernel/security/lsm, with landlock added)",
        ),
        1..LANDLOCK_SCOPES => Check::ok(NAME, format!("interface {abi}; newer ones fence more")),
        _ => Check::ok(NAME, format!("interface {abi}")),
    }
}

/// Whether this host passes packets on: `net.ipv4.ip_forward`.
pub fn forwards() -> bool {
    number_in("/proc/sys/net/ipv4/ip_forward").is_some_and(|forwards| forwards != 0)
}

/// What functions need to reach the network.
pub fn network(network: &Network, root: bool, forwards: bool) -> Vec<Check> {
    let tried = |name, tried: &Result<(), String>, can: &str, module: &str| match tried {
        Ok(()) => Check::ok(name, can),
        Err(why) => Check::less(
            name,
            format!("the kernel refuses: {why}; functions have no way out of their own"),
            format!("as root: modprobe {module}"),
        ),
    };
    let mut checks = vec![
        tried("virtual devices", &network.veth, "can be made in pairs (veth)", "veth"),
        tried("nftables", &network.nftables, "rules can be made", "nf_tables"),
        tried("masquerade", &network.masquerade, "one address can stand for many", "nft_masq"),
    ];
    checks.push(match (root, forwards) {
        (false, _) => Check::less(
            "way out",
            "an ordinary user's functions have no address of their own towards the outside",
            "run Pinnace as root",
        ),
        (true, true) => Check::ok("forwarding", "on (net.ipv4.ip_forward)"),
        (true, false) => Check::ok(
            "forwarding",
            "off (net.ipv4.ip_forward); a server turns it on for functions that may leave",
        ),
    });
    checks
}

/// What the clocks say.
#[derive(Debug)]
pub struct Clock {
    now_s: u64,
    source: String,
}

impl Clock {
    pub fn read() -> Self {
        const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let source = std::fs::read_to_string(SOURCE).unwrap_or_default();
        Self { now_s: now.map_or(0, |now| now.as_secs()), source: source.trim().to_owned() }
    }
}

pub fn clock(clock: &Clock) -> Check {
    const NAME: &str = "clock";
    let Clock { now_s, source } = clock;
    if *now_s < EARLIEST_S {
        return Check::less(
            NAME,
            "it is set to a time before this Pinnace was made; times of logs and deployments are wrong",
            "set it: timedatectl set-ntp true",
        );
    }
    if source.is_empty() || QUICK_CLOCKS.contains(&source.as_str()) {
        let source = if source.is_empty() { "a source that is not told" } else { source };
        return Check::ok(NAME, format!("set, read from {source}"));
    }
    Check::less(
        NAME,
        format!("set, but read from {source}, which is slow; every call reads it several times"),
        "look at /sys/devices/system/clocksource/clocksource0/available_clocksource for a quicker one",
    )
}

#[cfg(test)]
pub mod tests {
    use pinnace_sandbox::cgroup::Controllers;

    use super::{super::Verdict, *};

    const NO_SWITCHES: Switches =
        Switches { max_user_namespaces: None, unprivileged_clone: None, apparmor_restricts: None };

    pub fn able() -> Host {
        Host {
            root: true,
            uid: 0,
            kernel: "6.1.0-1-amd64".into(),
            cgroup_version: Some(2),
            cgroups_missing: None,
            controllers: Controllers { memory: true, cpu: true, pids: true },
            user_namespaces: Ok(()),
            id_ranges: Ok(()),
            subordinate_ids: Ok(()),
            overlay: Ok(()),
            seccomp: true,
            landlock_abi: 6,
        }
    }

    #[test]
    fn a_host_that_can_everything_is_told_so() {
        let checks = kernel(&able(), &NO_SWITCHES);
        assert!(checks.iter().all(|check| check.verdict == Verdict::Ok && check.mend.is_none()));
    }

    #[test]
    fn old_kernels_are_refused() {
        for good in ["5.15.0", "5.15", "6.1.0-1-amd64", "10.0"] {
            assert_eq!(release(good).verdict, Verdict::Ok, "{good}");
        }
        for bad in ["5.14.99", "4.19.0", "", "x"] {
            assert_eq!(release(bad).verdict, Verdict::No, "{bad}");
        }
        assert_eq!(release("5.4").mend.unwrap(), "install a kernel of release 5.15 or newer");
    }

    #[test]
    fn the_switch_that_forbids_user_namespaces_is_named() {
        let user = Host { root: false, uid: 1000, user_namespaces: Err("no".into()), ..able() };
        let forbidden = |switches| user_namespaces(&user, &switches).mend.unwrap();
        let ubuntu = Switches { apparmor_restricts: Some(1), ..NO_SWITCHES };
        assert_eq!(
            forbidden(ubuntu),
            "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        );
        let debian =
            Switches { unprivileged_clone: Some(0), max_user_namespaces: Some(0), ..ubuntu };
        assert_eq!(forbidden(debian).matches("sysctl").count(), 3);
        assert!(forbidden(NO_SWITCHES).contains("CONFIG_USER_NS"));
        // Root is bound by the number alone, and does without.
        let root = user_namespaces(&able(), &debian);
        assert_eq!(root.verdict, Verdict::Less);
        assert_eq!(root.mend.unwrap(), "as root: sysctl -w user.max_user_namespaces=10000");
    }

    #[test]
    fn the_network_says_what_to_load() {
        let none = Network {
            veth: Err("Operation not supported".into()),
            nftables: Ok(()),
            masquerade: Ok(()),
        };
        let checks = network(&none, true, false);
        assert_eq!(checks[0].mend.as_deref(), Some("as root: modprobe veth"));
        assert!(checks[1..].iter().all(|check| check.verdict == Verdict::Ok), "{checks:?}");
        assert_eq!(network(&none, false, true)[3].verdict, Verdict::Less);
    }

    #[test]
    fn clocks_that_are_unset_or_slow_are_told() {
        let at = |now_s, source: &str| clock(&Clock { now_s, source: source.to_owned() }).verdict;
        assert_eq!(at(EARLIEST_S, "tsc"), Verdict::Ok);
        assert_eq!(at(EARLIEST_S, ""), Verdict::Ok);
        assert_eq!(at(0, "tsc"), Verdict::Less);
        assert_eq!(at(EARLIEST_S, "acpi_pm"), Verdict::Less);
    }
}
