//! From a function and its image to what a sandbox is told: which program, which environment, which bounds.
//!
//! An image whose command serves HTTP by itself runs as it is. Where a function names a command for a watchdog
//! (`fprocess`) and the image has none, ours is bound in and runs it. It also stands in for one of OpenFaaS's that
//! the image brings, since it does the same and is called over a unix socket.

use std::{collections::BTreeMap, path::Path};

use pinnace_core::{
    FunctionSpec, Network, Resolvers,
    image::{ImageConfig, User, WatchdogKind},
    limits,
    spec::{ANNOTATION_LISTEN, LABEL_SCALE_MAX},
};
use pinnace_sandbox::protocol::{Bind, Bounds, LISTEN_FD, READY_FD};

use super::record::Door;
use crate::provider::Refusal;

/// Where our watchdog is bound in. Not under /usr: image `host` has that read-only from the host.
const WATCHDOG: &str = "/.pinnace/fwatchdog";

/// Where a function listens that says nothing else (contract section 8).
const PORT: u16 = 8080;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SIGTERM: i32 = 15;

/// Who programs of image `host` run as.
const NOBODY: u32 = 65534;

/// What an image offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// Its configuration.
    pub config: ImageConfig,
    /// Whether its command is a watchdog.
    pub has_watchdog: bool,
    /// Which one that is, if it is known.
    pub watchdog_kind: Option<WatchdogKind>,
    /// Whether it is the host's own programs.
    pub is_host: bool,
}

/// Bounds that apply where a function names none.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What to run, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Who it runs as.
    pub user: User,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How it is reached.
    pub door: Door,
    /// What it reaches beside the platform.
    pub network: Network,
    /// Whether our watchdog is bound in.
    brings_watchdog: bool,
}

impl Plan {
    /// Decides what to run.
    ///
    /// # Errors
    /// There is nothing to run.
    pub fn new(spec: &FunctionSpec, offer: &Offer, way_out: &WayOut) -> Result<Self, Refusal> {
        let ImageConfig { entrypoint, cmd, .. } = &offer.config;
        let own: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
        // What stands after a watchdog's name asks it for something else than to serve.
        let stands_in = offer.watchdog_kind.filter(|_| own.len() == 1 && !spec.keeps_watchdog());
        let brings_watchdog =
            stands_in.is_some() || spec.fprocess().is_some() && !offer.has_watchdog;
        let (command, door) = if brings_watchdog {
            (vec![WATCHDOG.to_owned()], Door::Socket)
        } else if own.is_empty() {
            return Err(nothing_to_run(spec, offer));
        } else if spec.takes_socket() {
            (own, Door::Socket)
        } else {
            (own, Door::Port(port(spec, offer)))
        };
        let network = way_out.permit(spec)?;
        if let (Network::Host, Door::Port(port)) = (network, door) {
            return Err(at_a_port_of_the_host(spec, offer, port));
        }
        let user = if offer.is_host {
            User { uid: NOBODY, gid: NOBODY, groups: Vec::new() }
        } else {
            offer.config.user.clone()
        };
        Ok(Self {
            command,
            env: environment(spec, offer, door, (brings_watchdog, stands_in)),
            working_dir: Some(offer.config.working_dir.clone())
                .filter(|dir| !dir.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
            user,
            stop_signal: offer.config.stop_signal.unwrap_or(SIGTERM),
            door,
            network,
            brings_watchdog,
        })
    }

    /// What is bound in for it. `programs` is where our programs lie on the host.
    #[must_use]
    pub fn binds(&self, programs: &Path) -> Vec<Bind> {
        let watchdog =
            || Bind { source: programs.join("pinnace-watchdog"), target: WATCHDOG.into() };
        self.brings_watchdog.then(watchdog).into_iter().collect()
    }
}

/// The bounds of a replica.
#[must_use]
pub fn bounds(spec: &FunctionSpec, defaults: Defaults) -> Bounds {
    let memory_bytes = spec.memory_bytes.unwrap_or(defaults.memory_bytes);
    Bounds { cpu_millicores: spec.cpu_millicores, ..Defaults { memory_bytes, ..defaults }.bounds() }
}

impl Defaults {
    /// The bounds of a replica whose function names none.
    #[must_use]
    pub fn bounds(self) -> Bounds {
        Bounds {
            memory_bytes: self.memory_bytes,
            cpu_millicores: None,
            pids: self.pids,
            open_files: limits::OPEN_FILES_PER_PROCESS,
            // Files on a tmpfs count as memory: half of it stays for the program however full they are.
            upper_bytes: self.memory_bytes / 4,
            tmp_bytes: self.memory_bytes / 4,
        }
    }
}

/// What functions may reach beside the platform on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// Why none can leave, if so.
    pub missing: Option<String>,
    /// Why none may share the host's network, if so.
    pub no_host: Option<String>,
    /// Where those that leave ask for names.
    pub resolvers: Resolvers,
}

impl WayOut {
    /// What a function reaches: its choice, else the host's own programs stay within, and an image leaves
    /// where that can be had.
    #[must_use]
    pub fn network(&self, spec: &FunctionSpec) -> Network {
        let leaves = self.missing.is_none() && !spec.is_host();
        spec.network.unwrap_or(if leaves { Network::Nat } else { Network::None })
    }

    /// The same, if the function may have it whatever its image is.
    ///
    /// # Errors
    /// It may not, or this host does not have it.
    pub fn permit(&self, spec: &FunctionSpec) -> Result<Network, Refusal> {
        let network = self.network(spec);
        let obstacle = match network {
            Network::None => None,
            Network::Nat => {
                self.missing.as_ref().map(|why| format!("{why}; network none can be had"))
            }
            Network::Host if spec.scale.max > 1 => Some(format!(
                "it may have {} replicas, which would have the host's ports in common; set label {LABEL_SCALE_MAX} \
                 to 1",
                spec.scale.max
            )),
            Network::Host => self.no_host.clone(),
        };
        match obstacle {
            None => Ok(network),
            Some(obstacle) => Err(no_such_network(spec, network, &obstacle)),
        }
    }

    /// The resolv.conf of a function.
    #[must_use]
    pub fn resolv_conf(&self, network: Network) -> String {
        match network {
            Network::None => {
                "# No name is resolved: the network of this function is none.\n".to_owned()
            }
            Network::Nat | Network::Host => self.resolvers.to_conf(),
        }
    }
}

fn no_such_network(spec: &FunctionSpec, network: Network, obstacle: &str) -> Refusal {
    Refusal::Unfit(format!("function {} cannot have network {network}: {obstacle}", spec.id))
}

fn at_a_port_of_the_host(spec: &FunctionSpec, offer: &Offer, port: u16) -> Refusal {
    let change = if offer.has_watchdog {
        "its image has a watchdog of its own, so choose network nat".to_owned()
    } else {
        format!(
            "give its command as fprocess (`--fprocess`), which a watchdog runs behind a unix socket, set \
             annotation {ANNOTATION_LISTEN} to socket if its program takes one, or choose network nat"
        )
    };
    let obstacle = format!("it is called at port {port}, which would be the host's; {change}");
    no_such_network(spec, Network::Host, &obstacle)
}

fn nothing_to_run(spec: &FunctionSpec, offer: &Offer) -> Refusal {
    Refusal::Unfit(if offer.is_host {
        format!(
            "function {} has no command: image host runs the command in fprocess (`--fprocess`)",
            spec.id
        )
    } else {
        format!(
            "function {} has no command: its image {} names none, so give one as fprocess (`--fprocess`)",
            spec.id,
            spec.image()
        )
    })
}

fn port(spec: &FunctionSpec, offer: &Offer) -> u16 {
    if offer.has_watchdog {
        return spec.env("port").and_then(|port| port.parse().ok()).unwrap_or(PORT);
    }
    offer.config.exposed_port.unwrap_or(PORT)
}

/// The image's variables, then the platform's, then the function's own.
fn environment(
    spec: &FunctionSpec,
    offer: &Offer,
    door: Door,
    (brings_watchdog, stands_in): (bool, Option<WatchdogKind>),
) -> Vec<String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let image = offer.config.env.iter().filter_map(|pair| pair.split_once('='));
    env.extend(image.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.insert("OPENFAAS_NAME".to_owned(), spec.id.name().to_owned());
    env.insert("OPENFAAS_NAMESPACE".to_owned(), spec.id.namespace().to_owned());
    if let Some(kind) = stands_in {
        env.insert("watchdog_kind".to_owned(), kind.name().to_owned());
    } else if brings_watchdog {
        // A failing command shows in this mode, and in no other of those that run one per call.
        env.insert("mode".to_owned(), "serializing".to_owned());
    }
    if !spec.deployment.env_process.is_empty() {
        env.insert("fprocess".to_owned(), spec.deployment.env_process.clone());
    }
    env.extend(spec.deployment.env_vars.clone().unwrap_or_default());
    if door == Door::Socket {
        // As systemd hands sockets over (sd_listen_fds(3)): they begin at descriptor 3.
        const { assert!(LISTEN_FD == 3 && READY_FD == 4) };
        env.insert("LISTEN_FDS".to_owned(), "2".to_owned());
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> FunctionSpec {
        FunctionSpec::check(serde_json::from_str(json).unwrap()).unwrap()
    }

    fn offer(command: &[&str]) -> Offer {
        let entrypoint = command.iter().map(|word| (*word).to_owned()).collect();
        Offer { config: ImageConfig { entrypoint, ..Default::default() }, ..Default::default() }
    }

    fn out() -> WayOut {
        let resolvers = Resolvers::parse("nameserver 192.0.2.1");
        WayOut { missing: None, no_host: None, resolvers }
    }

    fn has(plan: &Plan, pair: &str) -> bool {
        plan.env.iter().any(|have| have == pair)
    }

    #[test]
    fn an_image_that_serves_runs_as_it_is() {
        let mut image = offer(&["/app", "-v"]);
        image.config.env = vec!["A=image".into(), "PATH=/bin".into(), "B=image".into()];
        image.config.exposed_port = Some(3000);
        let plan = Plan::new(
            &spec(r#"{"service":"a","image":"i","envVars":{"A":"mine"}}"#),
            &image,
            &out(),
        );
        let plan = plan.unwrap();
        assert_eq!(plan.command, ["/app", "-v"]);
        assert_eq!(plan.door, Door::Port(3000));
        assert!(plan.binds(Path::new("/p")).is_empty());
        assert!(has(&plan, "A=mine") && has(&plan, "B=image") && has(&plan, "PATH=/bin"));
        assert!(has(&plan, "OPENFAAS_NAME=a") && has(&plan, "OPENFAAS_NAMESPACE=openfaas-fn"));
        assert_eq!((plan.stop_signal, plan.working_dir.as_str()), (SIGTERM, "/"));
    }

    #[test]
    fn a_watchdog_of_its_own_is_used() {
        let mut image = offer(&["fwatchdog"]);
        image.has_watchdog = true;
        let plan =
            Plan::new(&spec(r#"{"service":"a","image":"i","envProcess":"cat"}"#), &image, &out());
        let plan = plan.unwrap();
        assert_eq!((plan.command[0].as_str(), plan.door), ("fwatchdog", Door::Port(8080)));
        assert!(has(&plan, "fprocess=cat"));
        assert!(!plan.env.iter().any(|pair| pair.starts_with("mode=")));
    }

    #[test]
    fn ours_stands_in_for_one_that_is_known() {
        let mut image = offer(&["fwatchdog"]);
        image.has_watchdog = true;
        image.watchdog_kind = Some(WatchdogKind::Classic);
        image.config.env = vec!["fprocess=cat".into()];
        let plain = spec(r#"{"service":"a","image":"i"}"#);
        let plan = Plan::new(&plain, &image, &out()).unwrap();
        assert_eq!((plan.command[0].as_str(), plan.door), (WATCHDOG, Door::Socket));
        assert!(has(&plan, "watchdog_kind=classic") && has(&plan, "fprocess=cat"));
        assert!(!plan.env.iter().any(|pair| pair.starts_with("mode=")));
        let kept = r#"{"service":"a","image":"i","annotations":{"dev.pinnace.watchdog":"image"}}"#;
        let plan = Plan::new(&spec(kept), &image, &out()).unwrap();
        assert_eq!((plan.command[0].as_str(), plan.door), ("fwatchdog", Door::Port(8080)));
        assert!(!plan.env.iter().any(|pair| pair.starts_with("watchdog_kind=")));
        image.config.cmd = vec!["--version".into()];
        assert_eq!(Plan::new(&plain, &image, &out()).unwrap().door, Door::Port(8080));
    }

    #[test]
    fn a_command_without_a_watchdog_gets_ours() {
        let host = Offer { is_host: true, ..Default::default() };
        let plan =
            Plan::new(&spec(r#"{"service":"a","image":"host","envProcess":"cat"}"#), &host, &out());
        let plan = plan.unwrap();
        assert_eq!(
            (plan.command.as_slice(), plan.door),
            (&[WATCHDOG.to_owned()][..], Door::Socket)
        );
        assert_eq!(plan.binds(Path::new("/p"))[0].source, Path::new("/p/pinnace-watchdog"));
        assert!(has(&plan, "mode=serializing") && has(&plan, "LISTEN_FDS=2"));
        assert_eq!(plan.user.uid, NOBODY);
        let streaming =
            spec(r#"{"service":"a","image":"i","envVars":{"fprocess":"cat","mode":"streaming"}}"#);
        assert!(has(&Plan::new(&streaming, &offer(&["/app"]), &out()).unwrap(), "mode=streaming"));
    }

    #[test]
    fn a_program_may_ask_for_the_socket_itself() {
        let json = r#"{"service":"a","image":"i","annotations":{"dev.pinnace.listen":"socket"}}"#;
        let plan = Plan::new(&spec(json), &offer(&["/app"]), &out()).unwrap();
        assert_eq!((plan.command.as_slice(), plan.door), (&["/app".to_owned()][..], Door::Socket));
        assert!(plan.binds(Path::new("/p")).is_empty());
        assert!(has(&plan, "LISTEN_FDS=2"));
        assert!(!plan.env.iter().any(|pair| pair.starts_with("mode=")));
    }

    #[test]
    fn nothing_to_run_is_said() {
        let refused =
            Plan::new(&spec(r#"{"service":"a","image":"i"}"#), &offer(&[]), &out()).unwrap_err();
        assert!(refused.to_string().contains("give one as fprocess"), "{refused}");
        let host = Offer { is_host: true, ..Default::default() };
        let refused =
            Plan::new(&spec(r#"{"service":"a","image":"host"}"#), &host, &out()).unwrap_err();
        assert!(refused.to_string().contains("image host runs the command"), "{refused}");
    }

    #[test]
    fn half_the_memory_stays_for_the_program() {
        let defaults = Defaults { memory_bytes: 512 << 20, pids: 256 };
        let bounds = bounds(&spec(r#"{"service":"a","image":"i"}"#), defaults);
        assert_eq!(bounds.memory_bytes, 512 << 20);
        assert_eq!(bounds.upper_bytes + bounds.tmp_bytes, 256 << 20);
    }

    /// A function with a command that makes this choice of network, and has this beside.
    fn choosing(network: &str, image: &str, beside: &str) -> FunctionSpec {
        let choice = format!(r#","annotations":{{"dev.pinnace.network":"{network}"}}"#);
        let choice = if network.is_empty() { String::new() } else { choice };
        spec(&format!(r#"{{"service":"a","image":"{image}","envProcess":"cat"{choice}{beside}}}"#))
    }

    #[test]
    fn the_hosts_network_is_for_one_replica_behind_a_socket() {
        let image = offer(&["/app"]);
        let refused = |spec: &FunctionSpec, offer: &Offer, way_out: &WayOut| {
            let refused = Plan::new(spec, offer, way_out).unwrap_err();
            assert!(matches!(refused, Refusal::Unfit(_)), "{refused:?}");
            let text = refused.to_string();
            assert!(
                text.starts_with("function a.openfaas-fn cannot have network host: "),
                "{text}"
            );
            text
        };
        let max = |max: u32| format!(r#","labels":{{"com.openfaas.scale.max":"{max}"}}"#);
        let plan = Plan::new(&choosing("host", "i", &max(1)), &image, &out()).unwrap();
        assert_eq!((plan.network, plan.door), (Network::Host, Door::Socket));
        let two = refused(&choosing("host", "i", &max(2)), &image, &out());
        assert!(two.contains("2 replicas") && two.contains("com.openfaas.scale.max to 1"), "{two}");
        let min = r#","labels":{"com.openfaas.scale.min":"3"}"#;
        assert!(refused(&choosing("host", "i", min), &image, &out()).contains("3 replicas"));

        let at_port = r#"{"service":"a","image":"i","annotations":{"dev.pinnace.network":"host"}}"#;
        let text = refused(&spec(at_port), &image, &out());
        assert!(text.contains("port 8080") && text.contains("--fprocess"), "{text}");
        let own = Offer { has_watchdog: true, ..image.clone() };
        let text = refused(&choosing("host", "i", ""), &own, &out());
        assert!(text.contains("a watchdog of its own") && !text.contains("fprocess"), "{text}");
        let taken = at_port.replace("}}", r#","dev.pinnace.listen":"socket"}}"#);
        assert_eq!(Plan::new(&spec(&taken), &image, &out()).unwrap().network, Network::Host);

        let closed = WayOut { no_host: Some("it is so".into()), ..out() };
        assert!(refused(&choosing("host", "i", ""), &image, &closed).ends_with(": it is so"));
        assert!(Plan::new(&choosing("nat", "i", ""), &image, &closed).is_ok());
    }

    #[test]
    fn images_leave_where_they_can_and_host_programs_do_not() {
        let none = WayOut { missing: Some("it is so".into()), ..out() };
        for (choice, image, way_out, expected) in [
            ("", "i", &out(), Network::Nat),
            ("", "i", &none, Network::None),
            ("", "host", &out(), Network::None),
            ("nat", "host", &out(), Network::Nat),
            ("none", "i", &out(), Network::None),
            ("host", "i", &none, Network::Host),
            ("host", "host", &out(), Network::Host),
        ] {
            let offer = Offer { is_host: image == "host", ..offer(&["/app"]) };
            let plan = Plan::new(&choosing(choice, image, ""), &offer, way_out).unwrap();
            assert_eq!(plan.network, expected, "{choice}");
        }
        let image = offer(&["/app"]);
        let refused = Plan::new(&choosing("nat", "i", ""), &image, &none).unwrap_err().to_string();
        assert_eq!(
            refused,
            "function a.openfaas-fn cannot have network nat: it is so; network none can be had"
        );
        assert_eq!(out().resolv_conf(Network::Nat), "nameserver 192.0.2.1\n");
        assert!(out().resolv_conf(Network::None).starts_with('#'));
    }
}
