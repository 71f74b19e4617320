//! A function as it was deployed, checked once and read many times.
//!
//! [`FunctionSpec::check`] reports every fault of a deployment at once, in the user's words.

use std::{collections::BTreeSet, fmt, time::Duration};

use crate::{
    duration,
    image::{self, Reference, shown},
    limits,
    name::FunctionRef,
    network::{Network, NotANetwork},
    probes::Probes,
    quantity,
    scaling::Rules,
    secret,
    wire::{FunctionDeployment, Map, Resources},
};

/// Label: least replicas (contract section 9).
pub const LABEL_SCALE_MIN: &str = "com.openfaas.scale.min";
/// Label: most replicas.
pub const LABEL_SCALE_MAX: &str = "com.openfaas.scale.max";
/// Label: end the function when it is idle.
pub const LABEL_SCALE_ZERO: &str = "com.openfaas.scale.zero";
/// Label: how long idle before it ends.
pub const LABEL_ZERO_DURATION: &str = "com.openfaas.scale.zero-duration";
/// Label that every function carries in its status: its own name.
pub const LABEL_FUNCTION: &str = "faas_function";
/// Annotation of ours: calls one replica serves at a time, 0 for no limit.
pub const ANNOTATION_CONCURRENCY: &str = "dev.pinnace.concurrency";

/// Annotation of ours: `socket` if the image's own program serves on a listening unix socket that it is
/// handed as systemd does it (sd_listen_fds(3)), which is the fastest way into it; else it listens on TCP.
pub const ANNOTATION_LISTEN: &str = "dev.pinnace.listen";

/// Annotation of ours: when the image is pulled from its registry; `always`, `missing` (the default) or
/// `never`.
pub const ANNOTATION_PULL: &str = "dev.pinnace.pull";

/// Annotation of ours: what the function reaches beside the platform: `none`, `nat` or `host`.
pub const ANNOTATION_NETWORK: &str = "dev.pinnace.network";

/// Annotation of ours: what the function speaks: `http1` (the default), or `h2c` for HTTP/2 without TLS and
/// without asking first. Calls of gRPC go over HTTP/2 in any case.
pub const ANNOTATION_PROTOCOL: &str = "dev.pinnace.protocol";

/// Most replicas of a function that names no maximum (contract section 9). On the host's network it is one.
const SCALE_MAX_DEFAULT: u32 = 20;

/// Annotation of ours: `image` if the watchdog that the image brings is to run; else ours stands in for it.
pub const ANNOTATION_WATCHDOG: &str = "dev.pinnace.watchdog";

/// A checked function. The deployment is kept as it was sent; what the platform acts on is beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionSpec {
    /// Name and namespace.
    pub id: FunctionRef,
    /// The deployment, byte for byte what a GET shows again.
    pub deployment: FunctionDeployment,
    /// How many replicas it may have.
    pub scale: Scale,
    /// Memory limit of a replica in bytes, if it names one.
    pub memory_bytes: Option<u64>,
    /// Processor limit of a replica in thousandths, if it names one.
    pub cpu_millicores: Option<u32>,
    /// Calls one replica serves at a time; `None` for no limit.
    pub concurrency: Option<u32>,
    /// When its image is pulled.
    pub pull: PullPolicy,
    /// Longest time to the first byte of an answer, if its `exec_timeout` names one.
    pub deadline: Option<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Its choice of network; `None` if it makes none.
    pub network: Option<Network>,
    /// How its replicas are asked whether they are ready and healthy.
    pub probes: Probes,
    /// Whether all its calls go over HTTP/2.
    pub speaks_h2c: bool,
}

/// When a function's image is pulled from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// At each deploy.
    Always,
    /// If the store does not have it.
    #[default]
    Missing,
    /// Not at all: the store must have it.
    Never,
}

impl PullPolicy {
    /// The policy of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "always" => Some(Self::Always),
            "missing" => Some(Self::Missing),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// How many replicas a function may have, and whether it may have none.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Replicas at deploy, and the floor while it is active. At least 1.
    pub min: u32,
    /// The ceiling.
    pub max: u32,
    /// Whether idleness ends all replicas; `None` if the function does not say.
    pub to_zero: Option<bool>,
    /// How long idle before that.
    pub zero_after: Duration,
    /// How load changes their number.
    pub rules: Rules,
}

/// Everything that is wrong with a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "validation failed: {}", self.0.join("; "))
    }
}

impl std::error::Error for Faults {}

impl FunctionSpec {
    /// Checks a deployment.
    ///
    /// # Errors
    /// Every fault found, each naming its field.
    pub fn check(deployment: FunctionDeployment) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let id = check_id(&deployment, &mut faults);
        check_image(&deployment, &mut faults);
        check_sizes(&deployment, &mut faults);
        check_environment(&deployment, &mut faults);
        check_secrets(&deployment, &mut faults);
        let network = check_network(deployment.annotations.as_ref(), &mut faults);
        let scale = check_scale(deployment.labels.as_ref(), network, &mut faults);
        let memory_bytes = check_memory(&deployment, &mut faults);
        let cpu_millicores = check_cpu(&deployment, &mut faults);
        check_listen(deployment.annotations.as_ref(), &mut faults);
        check_watchdog(deployment.annotations.as_ref(), &mut faults);
        let speaks_h2c = check_protocol(deployment.annotations.as_ref(), &mut faults);
        let concurrency = check_concurrency(deployment.annotations.as_ref(), &mut faults);
        let probes = Probes::read(deployment.annotations.as_ref(), &mut faults);
        let pull = check_pull(&deployment, &mut faults);
        let env = |name: &str| deployment.env_vars.as_ref().and_then(|env| env.get(name));
        let seconds = |name: &str| env(name).and_then(|text| duration::parse_seconds_or_go(text));
        let deadline = seconds("exec_timeout").filter(|d| !d.is_zero());
        let grace =
            seconds("write_timeout").unwrap_or(limits::GRACE_DEFAULT).min(limits::GRACE_MAX);
        match id {
            Some(id) if faults.is_empty() => Ok(Self {
                id,
                deployment,
                scale,
                memory_bytes,
                cpu_millicores,
                concurrency,
                pull,
                deadline,
                grace,
                network,
                probes,
                speaks_h2c,
            }),
            _ => Err(Faults(faults)),
        }
    }

    /// Checks a deployment that an earlier version took. A label or annotation that this one refuses does not count;
    /// what did not count is answered too, as faults.
    ///
    /// # Errors
    /// Something else is wrong with it, or its labels and annotations do not go together.
    pub fn check_kept(deployment: FunctionDeployment) -> Result<(Self, Option<Faults>), Faults> {
        let faults = match Self::check(deployment.clone()) {
            Ok(spec) => return Ok((spec, None)),
            Err(faults) => faults,
        };
        let bare = FunctionDeployment { labels: None, annotations: None, ..deployment.clone() };
        let alone = |map: Option<Map>, with: &dyn Fn(Map) -> FunctionDeployment| {
            let mut map = map.unwrap_or_default();
            map.retain(|name, value| {
                Self::check(with(Map::from([(name.clone(), value.clone())]))).is_ok()
            });
            Some(map)
        };
        let labels = alone(deployment.labels.clone(), &|labels| FunctionDeployment {
            labels: Some(labels),
            ..bare.clone()
        });
        let annotations = alone(deployment.annotations.clone(), &|annotations| {
            FunctionDeployment { annotations: Some(annotations), ..bare.clone() }
        });
        let spec = Self::check(FunctionDeployment { labels, annotations, ..deployment.clone() })?;
        Ok((Self { deployment, ..spec }, Some(faults)))
    }

    /// The image reference as it was sent.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.deployment.image
    }

    /// Whether it runs the host's own programs.
    #[must_use]
    pub fn is_host(&self) -> bool {
        image::is_host(&self.deployment.image)
    }

    /// The watchdog's command, if one is given: the deployment's `envProcess`, else `fprocess` of its
    /// environment.
    #[must_use]
    pub fn fprocess(&self) -> Option<&str> {
        let from_env = || self.env("function_process").or_else(|| self.env("fprocess"));
        Some(self.deployment.env_process.as_str()).filter(|p| !p.is_empty()).or_else(from_env)
    }

    /// Whether the image's own program serves on a socket that it is handed.
    #[must_use]
    pub fn takes_socket(&self) -> bool {
        let annotations = self.deployment.annotations.as_ref();
        annotations.and_then(|a| a.get(ANNOTATION_LISTEN)).is_some_and(|listen| listen == "socket")
    }

    /// The secrets that it names, each once.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<&str> {
        self.deployment.secrets.iter().flatten().map(String::as_str).collect()
    }

    /// Whether the watchdog that its image brings is to run, though ours could stand in for it.
    #[must_use]
    pub fn keeps_watchdog(&self) -> bool {
        let annotations = self.deployment.annotations.as_ref();
        annotations.and_then(|a| a.get(ANNOTATION_WATCHDOG)).is_some_and(|which| which == "image")
    }

    /// A variable of the function's environment.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<&str> {
        self.deployment.env_vars.as_ref()?.get(name).map(String::as_str)
    }
}

fn check_id(deployment: &FunctionDeployment, faults: &mut Vec<String>) -> Option<FunctionRef> {
    if deployment.service.is_empty() {
        faults.push("service: is required".to_owned());
        return None;
    }
    FunctionRef::new(&deployment.service, &deployment.namespace)
        .map_err(|error| faults.push(format!("service: {error}")))
        .ok()
}

fn check_image(deployment: &FunctionDeployment, faults: &mut Vec<String>) {
    if deployment.image.is_empty() {
        faults.push("image: is required".to_owned());
    } else if let Err(error) = image::check_form(&deployment.image) {
        faults.push(format!("image: {error}"));
    }
}

fn check_sizes(deployment: &FunctionDeployment, faults: &mut Vec<String>) {
    let maps = [
        ("envVars", &deployment.env_vars),
        ("labels", &deployment.labels),
        ("annotations", &deployment.annotations),
    ];
    let lists = [("constraints", &deployment.constraints), ("secrets", &deployment.secrets)];
    let sizes = maps.iter().map(|(name, map)| (*name, map.as_ref().map_or(0, Map::len)));
    let sizes = sizes.chain(lists.iter().map(|(n, l)| (*n, l.as_ref().map_or(0, Vec::len))));
    for (field, size) in sizes.filter(|(_, size)| *size > limits::SPEC_ENTRIES_MAX) {
        faults.push(format!("{field}: {size} entries, at most {}", limits::SPEC_ENTRIES_MAX));
    }
}

fn check_environment(deployment: &FunctionDeployment, faults: &mut Vec<String>) {
    let mut bytes = deployment.env_process.len();
    if deployment.env_process.contains('\0') {
        faults.push("envProcess: holds a NUL byte".to_owned());
    }
    for (name, value) in deployment.env_vars.iter().flatten() {
        bytes += name.len() + value.len() + 2;
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let shown = shown(name);
            faults.push(format!("envVars: {shown:?} cannot be an environment variable"));
        }
    }
    if bytes > limits::ENVIRONMENT_BYTES_MAX {
        faults.push(format!(
            "envVars and envProcess: {bytes} bytes, at most {}; put larger values into a secret or a file",
            limits::ENVIRONMENT_BYTES_MAX
        ));
    }
}

/// Their names become those of files.
fn check_secrets(deployment: &FunctionDeployment, faults: &mut Vec<String>) {
    let names = deployment.secrets.iter().flatten().take(limits::SPEC_ENTRIES_MAX);
    faults.extend(
        names.filter_map(|name| secret::check_name(name).err()).map(|e| format!("secrets: {e}")),
    );
}

fn check_scale(labels: Option<&Map>, network: Option<Network>, faults: &mut Vec<String>) -> Scale {
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    let mut count = |name: &str, default: u32| {
        let Some(text) = label(name) else { return default };
        let most = limits::REPLICAS_PER_FUNCTION_MAX;
        let count = text.parse().ok().filter(|count| (1..=most).contains(count));
        count.unwrap_or_else(|| {
            faults.push(unfit("labels", name, text, &format!("must be a number from 1 to {most}")));
            default
        })
    };
    let min = count(LABEL_SCALE_MIN, 1);
    let most = if network == Some(Network::Host) { 1 } else { SCALE_MAX_DEFAULT };
    let max = count(LABEL_SCALE_MAX, most.max(min));
    if min > max {
        faults
            .push(format!("labels: {LABEL_SCALE_MIN} ({min}) is above {LABEL_SCALE_MAX} ({max})"));
    }
    let to_zero = label(LABEL_SCALE_ZERO).map(|text| text.eq_ignore_ascii_case("true"));
    let zero_after = label(LABEL_ZERO_DURATION).and_then(|text| {
        let after = duration::parse_seconds_or_go(text).filter(|after| !after.is_zero());
        if after.is_none() {
            faults.push(unfit(
                "labels",
                LABEL_ZERO_DURATION,
                text,
                "must be a duration such as 15m",
            ));
        }
        after
    });
    let zero_after = zero_after.unwrap_or(limits::ZERO_AFTER_DEFAULT);
    let rules = Rules::read(labels, label(LABEL_SCALE_MAX).is_some(), faults);
    Scale { min, max, to_zero, zero_after, rules }
}

/// What is said of a label or annotation that must be something else.
pub(crate) fn unfit(field: &str, name: &str, text: &str, must: &str) -> String {
    let shown = shown(text);
    format!("{field}: {name} is {shown:?}, but {must}")
}

fn check_memory(deployment: &FunctionDeployment, faults: &mut Vec<String>) -> Option<u64> {
    let asked = |resources: &Option<Resources>| resources.as_ref().and_then(|r| r.memory.clone());
    let parse = |field: &str, text: String, faults: &mut Vec<String>| {
        let bytes = quantity::parse_bytes(&text);
        match bytes {
            Some(bytes) if bytes >= limits::MEMORY_BYTES_MIN => return Some(bytes),
            Some(_) => faults.push(format!(
                "{field}.memory: {} is too little; give at least {}Mi",
                shown(&text),
                limits::MEMORY_BYTES_MIN >> 20
            )),
            None => {
                let shown = shown(&text);
                faults.push(format!("{field}.memory: {shown:?} is no quantity such as 128Mi"));
            }
        }
        None
    };
    if let Some(text) = asked(&deployment.requests).filter(|text| !text.is_empty()) {
        parse("requests", text, faults);
    }
    asked(&deployment.limits)
        .filter(|text| !text.is_empty())
        .and_then(|text| parse("limits", text, faults))
}

fn check_cpu(deployment: &FunctionDeployment, faults: &mut Vec<String>) -> Option<u32> {
    let mut parse = |field: &str, resources: &Option<Resources>| {
        let text = resources.as_ref()?.cpu.as_ref().filter(|text| !text.is_empty())?;
        let millicores = quantity::parse_millicores(text);
        let shown = shown(text);
        match millicores {
            Some(0) => faults.push(format!("{field}.cpu: {shown} is too little; give at least 1m")),
            Some(_) => {}
            None => faults.push(format!("{field}.cpu: {shown:?} is no quantity such as 500m")),
        }
        millicores
    };
    parse("requests", &deployment.requests);
    parse("limits", &deployment.limits)
}

fn check_concurrency(annotations: Option<&Map>, faults: &mut Vec<String>) -> Option<u32> {
    let text = annotations?.get(ANNOTATION_CONCURRENCY)?;
    match text.parse::<u32>() {
        Ok(0) => None,
        Ok(calls) => Some(calls),
        Err(_) => {
            let must = "must be a number of calls, or 0 for no limit";
            faults.push(unfit("annotations", ANNOTATION_CONCURRENCY, text, must));
            None
        }
    }
}

fn check_listen(annotations: Option<&Map>, faults: &mut Vec<String>) {
    let listen = annotations.and_then(|annotations| annotations.get(ANNOTATION_LISTEN));
    if let Some(text) = listen.filter(|listen| !matches!(listen.as_str(), "socket" | "port")) {
        faults.push(unfit("annotations", ANNOTATION_LISTEN, text, "must be socket or port"));
    }
}

fn check_protocol(annotations: Option<&Map>, faults: &mut Vec<String>) -> bool {
    let protocol = annotations.and_then(|annotations| annotations.get(ANNOTATION_PROTOCOL));
    match protocol.map(String::as_str) {
        Some("h2c") => true,
        None | Some("http1") => false,
        Some(text) => {
            faults.push(unfit("annotations", ANNOTATION_PROTOCOL, text, "must be http1 or h2c"));
            false
        }
    }
}

fn check_watchdog(annotations: Option<&Map>, faults: &mut Vec<String>) {
    let which = annotations.and_then(|annotations| annotations.get(ANNOTATION_WATCHDOG));
    if let Some(text) = which.filter(|which| !matches!(which.as_str(), "image" | "pinnace")) {
        faults.push(unfit("annotations", ANNOTATION_WATCHDOG, text, "must be image or pinnace"));
    }
}

/// An image that is pulled at each deploy must be one of a registry.
fn check_pull(deployment: &FunctionDeployment, faults: &mut Vec<String>) -> PullPolicy {
    let named = deployment.annotations.as_ref().and_then(|a| a.get(ANNOTATION_PULL));
    let Some(named) = named else { return PullPolicy::default() };
    let Some(policy) = PullPolicy::parse(named) else {
        faults.push(unfit(
            "annotations",
            ANNOTATION_PULL,
            named,
            "must be always, missing or never",
        ));
        return PullPolicy::default();
    };
    if policy == PullPolicy::Always && !image::is_host(&deployment.image) {
        let parsed = Reference::parse(&deployment.image);
        faults.extend(parsed.err().map(|error| format!("image: {error}")));
    }
    policy
}

fn check_network(annotations: Option<&Map>, faults: &mut Vec<String>) -> Option<Network> {
    let text = annotations?.get(ANNOTATION_NETWORK)?;
    let must = |error: NotANetwork| {
        faults.push(unfit("annotations", ANNOTATION_NETWORK, text, &error.to_string()));
    };
    text.parse().map_err(must).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(json: &str) -> FunctionDeployment {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_an_earlier_version_took_goes_on_without_what_is_refused_now() {
        let json = r#"{"service":"a","image":"b","labels":{"com.openfaas.scale.min":"x","com.openfaas.scale.max":"3"},
            "annotations":{"dev.pinnace.network":"none","dev.pinnace.pull":"perhaps"}}"#;
        assert!(FunctionSpec::check(deployment(json)).is_err());
        let (spec, refused) = FunctionSpec::check_kept(deployment(json)).unwrap();
        assert_eq!((spec.scale.min, spec.scale.max), (1, 3));
        assert_eq!(spec.network, Some(Network::None));
        assert_eq!(spec.deployment, deployment(json), "it is shown as it was sent");
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("scale.min") && refused.contains("dev.pinnace.pull"), "{refused}");
        assert!(FunctionSpec::check_kept(deployment(r#"{"service":"A","image":"b"}"#)).is_err());
        let (_, refused) =
            FunctionSpec::check_kept(deployment(r#"{"service":"a","image":"b"}"#)).unwrap();
        assert_eq!(refused, None);
    }

    fn faults(json: &str) -> String {
        FunctionSpec::check(deployment(json)).unwrap_err().to_string()
    }

    #[test]
    fn defaults() {
        let spec = FunctionSpec::check(deployment(r#"{"service":"a","image":"b"}"#)).unwrap();
        assert_eq!(spec.id.to_string(), "a.openfaas-fn");
        assert_eq!((spec.scale.min, spec.scale.max, spec.scale.to_zero), (1, 20, None));
        assert_eq!(spec.memory_bytes, None);
        assert_eq!(spec.grace, limits::GRACE_DEFAULT);
        assert_eq!(spec.fprocess(), None);
    }

    #[test]
    fn the_pull_policy_is_one_of_three() {
        let pull = |image: &str, policy: &str| {
            let json = format!(
                r#"{{"service":"a","image":"{image}","annotations":{{"dev.pinnace.pull":"{policy}"}}}}"#
            );
            FunctionSpec::check(deployment(&json)).map(|spec| spec.pull)
        };
        assert_eq!(pull("a:1", "always"), Ok(PullPolicy::Always));
        assert_eq!(pull("host", "always"), Ok(PullPolicy::Always));
        assert_eq!(pull("Only/Loaded", "never"), Ok(PullPolicy::Never));
        assert_eq!(pull("Only/Loaded", "missing"), Ok(PullPolicy::Missing));
        assert!(pull("Only/Loaded", "always").unwrap_err().to_string().contains("part \"Only\""));
        let refused = pull("a:1", "sometimes").unwrap_err().to_string();
        let protocol = |name: &str| {
            let json = format!(
                r#"{{"service":"a","image":"b","annotations":{{"dev.pinnace.protocol":"{name}"}}}}"#
            );
            FunctionSpec::check(serde_json::from_str(&json).unwrap())
        };
        assert!(protocol("h2c").unwrap().speaks_h2c && !protocol("http1").unwrap().speaks_h2c);
        assert!(protocol("h3").unwrap_err().to_string().contains("must be http1 or h2c"));
        let expected = "dev.pinnace.pull is \"sometimes\", but must be always, missing or never";
        assert!(refused.ends_with(expected), "{refused}");
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let said = faults(
            r#"{"service":"A","image":"","limits":{"memory":"lots","cpu":"x"},
                "annotations":{"dev.pinnace.network":"bridge"},
                "labels":{"com.openfaas.scale.min":"0"}}"#,
        );
        for part in [
            "service:",
            "image: is required",
            "limits.memory",
            "limits.cpu",
            "dev.pinnace.network is \"bridge\", but must be none, nat or host",
            "scale.min",
        ] {
            assert!(said.contains(part), "{part} not in: {said}");
        }
        assert!(faults("{}").contains("service: is required"));
    }

    #[test]
    fn limits_are_not_nothing() {
        let said = faults(r#"{"service":"a","image":"b","limits":{"memory":"0","cpu":"0"}}"#);
        assert!(said.contains("limits.memory: 0 is too little; give at least 4Mi"), "{said}");
        assert!(said.contains("limits.cpu: 0 is too little; give at least 1m"), "{said}");
    }

    #[test]
    fn the_environment_is_bounded() {
        let big = "x".repeat(limits::ENVIRONMENT_BYTES_MAX);
        let json = format!(r#"{{"service":"a","image":"b","envVars":{{"A":"{big}"}}}}"#);
        assert!(faults(&json).contains("at most 65536"));
        assert!(faults(r#"{"service":"a","image":"b","envVars":{"A=B":"1"}}"#).contains("A=B"));
    }

    #[test]
    fn settings_come_from_labels_limits_and_environment() {
        let spec = FunctionSpec::check(deployment(
            r#"{"service":"a","image":"host","envProcess":"cat",
                "envVars":{"exec_timeout":"2m","write_timeout":"7"},
                "limits":{"memory":"64Mi","cpu":"250m"},
                "annotations":{"dev.pinnace.concurrency":"1","dev.pinnace.network":"nat"},
                "labels":{"com.openfaas.scale.zero":"true","com.openfaas.scale.zero-duration":"5m",
                          "com.openfaas.scale.min":"30"}}"#,
        ))
        .unwrap();
        assert!(spec.is_host());
        assert_eq!(spec.fprocess(), Some("cat"));
        assert_eq!(spec.memory_bytes, Some(64 << 20));
        assert_eq!(spec.cpu_millicores, Some(250));
        assert_eq!(spec.concurrency, Some(1));
        assert_eq!(spec.network, Some(Network::Nat));
        let max = |annotations: &str, labels: &str| {
            let json = format!(
                r#"{{"service":"a","image":"b","annotations":{annotations},"labels":{labels}}}"#
            );
            FunctionSpec::check(serde_json::from_str(&json).unwrap()).unwrap().scale.max
        };
        let host = r#"{"dev.pinnace.network":"host"}"#;
        assert_eq!((max("{}", "{}"), max(host, "{}")), (SCALE_MAX_DEFAULT, 1));
        assert_eq!(max(host, r#"{"com.openfaas.scale.max":"3"}"#), 3);
        assert_eq!(spec.deadline, Some(Duration::from_secs(120)));
        assert_eq!(spec.grace, Duration::from_secs(7));
        assert_eq!(spec.scale.to_zero, Some(true));
        assert_eq!(spec.scale.zero_after, Duration::from_secs(300));
        assert_eq!((spec.scale.min, spec.scale.max), (30, 30));
    }
}
