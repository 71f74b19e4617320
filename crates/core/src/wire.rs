//! OpenFaaS's own words: the JSON that its clients send and read (contract section 5).
//!
//! Names and the presence of fields follow the contract to the letter: labels and annotations of a status
//! are always objects, absent maps stay absent, unknown fields are ignored, and `null` is as good as nothing.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// String to string, in a stable order.
pub type Map = BTreeMap<String, String>;

/// What a user deploys: the body of POST and PUT `/system/functions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionDeployment {
    /// The function's name.
    #[serde(deserialize_with = "null_default")]
    pub service: String,
    /// The image reference, kept byte for byte.
    #[serde(deserialize_with = "null_default")]
    pub image: String,
    /// Namespace; empty means the default one.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub namespace: String,
    /// The command that the watchdog runs (`fprocess`).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub env_process: String,
    /// Environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<Map>,
    /// Placement constraints, stored only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<String>>,
    /// Names of secrets to mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Map>,
    /// Annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Map>,
    /// Upper bounds of resources.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub limits: Option<Resources>,
    /// Resources asked for.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub requests: Option<Resources>,
    /// Whether the root filesystem is read-only (/tmp stays writable).
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub read_only_root_filesystem: bool,
}

/// Resource quantities, kept as the strings that were sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes, such as `128Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processors, such as `500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Nvidia devices.
    #[serde(rename = "nvidia.com/gpu", skip_serializing_if = "Option::is_none")]
    pub nvidia_gpu: Option<String>,
    /// AMD devices.
    #[serde(rename = "amd.com/gpu", skip_serializing_if = "Option::is_none")]
    pub amd_gpu: Option<String>,
    /// Intel devices.
    #[serde(rename = "intel.com/gpu", skip_serializing_if = "Option::is_none")]
    pub intel_gpu: Option<String>,
}

impl Resources {
    /// Whether any quantity is given. Clients take an empty object for one that was.
    #[must_use]
    pub fn says_something(&self) -> bool {
        *self != Self::default()
    }
}

/// What GET answers about a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionStatus {
    /// The function's name.
    pub name: String,
    /// The image reference as it was sent.
    pub image: String,
    /// Its namespace.
    pub namespace: String,
    /// The watchdog's command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env_process: String,
    /// Environment; absent if none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<Map>,
    /// Constraints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<String>>,
    /// Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// Labels, always an object, with `faas_function` among them.
    #[serde(deserialize_with = "null_default")]
    pub labels: Map,
    /// Annotations, always an object.
    #[serde(deserialize_with = "null_default")]
    pub annotations: Map,
    /// Limits; absent if none were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Requests; absent if none were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// Whether the root filesystem is read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root_filesystem: bool,
    /// Calls answered since the server keeps count.
    #[serde(skip_serializing_if = "is_zero")]
    pub invocation_count: f64,
    /// Replicas wanted.
    #[serde(skip_serializing_if = "is_none_wanted")]
    pub replicas: u32,
    /// Replicas that accepted a connection.
    #[serde(skip_serializing_if = "is_none_wanted")]
    pub available_replicas: u32,
    /// RFC 3339 time of the first deploy.
    pub created_at: String,
    /// What the replicas use, if it was asked for (`usage=1`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How far the latest deploy has come. Not in OpenFaaS; its clients ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What it reaches beside the platform: `none`, `nat` or `host`, also where its image decided that. Told
    /// of a function that is asked for by name. Not in OpenFaaS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What is wrong with the function, a sentence each. Not in OpenFaaS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// How far a deploy has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Counts the deploys of this function, from 1.
    pub revision: u64,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// A sentence about it, such as why it failed.
    pub message: String,
}

/// Where a deploy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// Replicas of the new revision are being started; older ones serve.
    Progressing,
    /// The new revision serves, or is scaled to zero and will serve the next call.
    Ready,
    /// The new revision cannot serve. Older replicas, if there were any, still do.
    Failed,
}

/// Resource use summed over the replicas of a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Thousandths of a processor.
    pub cpu: f64,
    /// Bytes of memory.
    pub total_memory_bytes: f64,
}

/// Body of POST `/system/alert`: a message of Alertmanager, as far as it is read (contract section 4.11).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AlertMessage {
    /// The alerts, firing and resolved ones mixed.
    pub alerts: Vec<Alert>,
}

/// One alert.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// What it is about.
    pub labels: AlertLabels,
}

/// Labels of an alert, as far as they are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AlertLabels {
    /// The function, `name.namespace`.
    pub function_name: String,
}

/// Answer of GET `/system/telemetry`. Its form is our own: no client reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// Of the server.
    pub version: Version,
    /// Functions that are deployed.
    pub functions: usize,
    /// Namespaces that have functions.
    pub namespaces: usize,
    /// Replicas wanted.
    pub replicas_wanted: u64,
    /// Replicas that serve.
    pub replicas_ready: usize,
    /// Calls that arrived since the server started.
    pub calls_started: u64,
    /// Calls that were answered.
    pub calls_answered: u64,
}

/// Body of DELETE `/system/functions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteFunctionRequest {
    /// The function's name.
    #[serde(deserialize_with = "null_default")]
    pub function_name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub namespace: String,
}

/// Body of POST `/system/scale-function/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleServiceRequest {
    /// The function's name.
    #[serde(default, deserialize_with = "null_default")]
    pub service_name: String,
    /// Replicas wanted. Not to say how many is a mistake, and none to be made into zero.
    #[serde(deserialize_with = "whole")]
    pub replicas: u64,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub namespace: String,
}

/// A secret: the body of POST, PUT and DELETE `/system/secrets`, and without its value an item of the list.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// Its name.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// Its namespace; empty means the default one.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub namespace: String,
    /// Its value, if that is text.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub value: String,
    /// Its value in base64; if it is there, `value` does not count.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub raw_value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// A namespace: the body of POST, PUT and DELETE `/system/namespace/NAME`, and the answer of GET.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionNamespace {
    /// Its name.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// Labels.
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "null_default")]
    pub labels: Map,
    /// Annotations.
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "null_default")]
    pub annotations: Map,
}

/// One line of `/system/logs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogMessage {
    /// The function's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The replica.
    pub instance: String,
    /// RFC 3339 with nanoseconds.
    pub timestamp: String,
    /// The line, without its line feed.
    pub text: String,
}

/// Answer of `/system/info` (contract section 4.7). The fields after `arch` are ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// What runs the functions.
    pub provider: ProviderInfo,
    /// The gateway's version.
    pub version: Version,
    /// Machine architecture, as `uname -m` says it.
    pub arch: String,
    /// What this host cannot enforce, a sentence each.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// The provider's part of [`Info`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderInfo {
    /// `pinnace-sandbox`, `pinnace-docker` or `pinnace-kubernetes`.
    pub provider: String,
    /// What it is built on.
    pub orchestration: String,
    /// Its version.
    pub version: Version,
}

/// A version as clients print it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Release, such as `0.1.0`.
    pub release: String,
    /// Git revision.
    pub sha: String,
    /// First line of that revision's message.
    #[serde(default)]
    pub commit_message: String,
}

/// An image in the store: answer of GET `/system/images`. Not in OpenFaaS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSummary {
    /// Reference under which functions name it.
    pub reference: String,
    /// Digest of its configuration, `sha256:…`.
    pub digest: String,
    /// Bytes of its unpacked layers; shared layers count for each image.
    pub size_bytes: u64,
    /// Number of layers.
    pub layers: usize,
    /// RFC 3339 time it was loaded.
    pub loaded_at: String,
    /// Functions that use it, `name.namespace` each.
    #[serde(default)]
    pub functions: Vec<String>,
}

/// Body of POST `/system/images/pull`. Not in OpenFaaS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    /// What to pull, as Docker writes references.
    pub reference: String,
}

/// Answer of POST `/system/images/prune`: what was removed. Not in OpenFaaS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// References that no function names.
    pub references: Vec<String>,
    /// Images that nothing leads to any more.
    pub images: usize,
    /// Their layers.
    pub layers: usize,
    /// Bytes of these layers' files, and of what broken-off pulls had fetched.
    pub bytes: u64,
}

/// One line of the answer to POST `/system/images` and `/system/images/pull`, newline-delimited JSON. Not in
/// OpenFaaS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum LoadEvent {
    /// Bytes of the archive read or of the layers fetched so far, and what is being done.
    Progress {
        /// Bytes read.
        bytes: u64,
        /// Bytes to be read, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// `reading`, `unpacking layer 2 of 5`, …
        step: String,
    },
    /// An image is in the store.
    Loaded {
        /// The image.
        image: ImageSummary,
    },
    /// The load failed and left nothing.
    Failed {
        /// Why.
        error: String,
    },
}

fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An object or null: of itself a list of its fields' values would do too.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(fields) = Option::<serde_json::Map<String, Value>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    T::deserialize(Value::Object(fields)).map(Some).map_err(serde::de::Error::custom)
}

/// A whole number, which JSON may write as `2.0` too.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0);
    let not_whole = || serde::de::Error::custom(format!("{number} is no whole number from 0 on"));
    number.as_u64().or(whole.map(|number| number as u64)).ok_or_else(not_whole)
}

fn is_zero(count: &f64) -> bool {
    *count == 0.0
}

fn is_none_wanted(replicas: &u32) -> bool {
    *replicas == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_send_null_maps() {
        let deployment: FunctionDeployment = serde_json::from_str(
            r#"{"service":"a","image":"b","labels":null,"annotations":null,"namespace":null,
                "network":"func_functions","registryAuth":""}"#,
        )
        .unwrap();
        assert_eq!(deployment.labels, None);
        assert_eq!(deployment.namespace, "");
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let deployment: FunctionDeployment =
            serde_json::from_str(r#"{"service":null,"image":null,"limits":{"cpu":null}}"#).unwrap();
        let limits = deployment.limits.clone().unwrap();
        assert!(!limits.says_something());
        assert!(Resources { cpu: Some("1".into()), ..limits }.says_something());
        assert_eq!(
            FunctionDeployment { limits: None, ..deployment },
            FunctionDeployment::default()
        );
        let scale: ScaleServiceRequest =
            serde_json::from_str(r#"{"serviceName":null,"replicas":0,"namespace":null}"#).unwrap();
        assert_eq!(scale, ScaleServiceRequest::default());
    }

    #[test]
    fn a_status_has_maps_but_omits_what_was_not_given() {
        let status = FunctionStatus { name: "a".into(), image: "b".into(), ..Default::default() };
        let json = serde_json::to_value(status).unwrap();
        assert_eq!(json["labels"], serde_json::json!({}));
        assert_eq!(json["annotations"], serde_json::json!({}));
        for absent in ["envVars", "limits", "requests", "replicas", "usage", "conditions"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn resources_are_an_object() {
        let read = |limits: &str| {
            let text = format!(r#"{{"service":"a","image":"b","limits":{limits}}}"#);
            serde_json::from_str::<FunctionDeployment>(&text).map(|sent| sent.limits)
        };
        assert_eq!(read("null").unwrap(), None);
        assert_eq!(read(r#"{"cpu":"1","pods":"3"}"#).unwrap().unwrap().cpu.as_deref(), Some("1"));
        assert!(read("[null,null]").is_err() && read(r#"{"cpu":1}"#).is_err());
    }

    #[test]
    fn replicas_are_a_whole_number() {
        let read = |number: &str| {
            let text = format!(r#"{{"serviceName":"a","replicas":{number}}}"#);
            serde_json::from_str::<ScaleServiceRequest>(&text).map(|request| request.replicas).ok()
        };
        assert_eq!((read("0"), read("2.0"), read("1e2")), (Some(0), Some(2), Some(100)));
        assert!(serde_json::from_str::<ScaleServiceRequest>(r#"{"serviceName":"a"}"#).is_err());
        for bad in ["-1", "1.5", "\"1\"", "null", "true"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secrets_value_is_shown_to_nobody() {
        let secret: Secret =
            serde_json::from_str(r#"{"name":"a","value":"hush","rawValue":"aHVzaA=="}"#).unwrap();
        assert_eq!(format!("{secret:?}"), r#"Secret { name: "a", namespace: "", .. }"#);
        let shown = Secret { name: "a".into(), namespace: "n".into(), ..Secret::default() };
        assert_eq!(serde_json::to_string(&shown).unwrap(), r#"{"name":"a","namespace":"n"}"#);
    }

    #[test]
    fn quantities_round_trip_as_strings() {
        let text = r#"{"memory":"5Mi","cpu":"100m","nvidia.com/gpu":"1"}"#;
        let resources: Resources = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&resources).unwrap(), text);
    }
}
