//! The resources themselves: OpenFaaS's Function (contract section 17) and Knative's Service.

use pinnace_core::wire::{FunctionDeployment, Map, Resources};
use serde::Serialize;

use crate::failure::usage;

/// The API of OpenFaaS's operator.
pub const OPENFAAS: &str = "openfaas.com/v1";

/// The API of Knative Serving.
const KNATIVE: &str = "serving.knative.dev/v1";

/// Where functions find their secrets.
const SECRETS: &str = "/var/openfaas/secrets";

/// A function as a resource, in YAML.
///
/// # Errors
/// There is no such API.
pub fn render(function: &FunctionDeployment, api: &str, namespace: &str) -> anyhow::Result<String> {
    let options =
        serde_saphyr::ser_options! { compact_list_indent: false, folded_wrap_chars: usize::MAX };
    let text = match api {
        KNATIVE => serde_saphyr::to_string_with_options(&knative(function, namespace), options),
        OPENFAAS => serde_saphyr::to_string_with_options(&openfaas(function, namespace), options),
        _ => return Err(usage(format!("--api {api:?} is neither {OPENFAAS} nor {KNATIVE}"))),
    };
    text.map_err(|error| anyhow::anyhow!("function {}: {error}", function.service))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource<S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: S,
}

#[derive(Serialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    annotations: Map,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Function {
    name: String,
    image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    handler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Map>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Map>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Map>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only_root_filesystem: bool,
}

fn openfaas(function: &FunctionDeployment, namespace: &str) -> Resource<Function> {
    let some = |map: &Option<Map>| map.clone().filter(|map| !map.is_empty());
    Resource {
        api_version: OPENFAAS,
        kind: "Function",
        metadata: Metadata {
            name: function.service.clone(),
            namespace: namespace.to_owned(),
            annotations: Map::new(),
        },
        spec: Function {
            name: function.service.clone(),
            image: function.image.clone(),
            handler: function.env_process.clone(),
            environment: some(&function.env_vars),
            labels: some(&function.labels),
            annotations: some(&function.annotations),
            limits: function.limits.clone(),
            requests: function.requests.clone(),
            constraints: function.constraints.clone(),
            secrets: function.secrets.clone(),
            read_only_root_filesystem: function.read_only_root_filesystem,
        },
    }
}

#[derive(Serialize)]
struct Service {
    template: Template,
}

#[derive(Serialize)]
struct Template {
    spec: Pod,
}

#[derive(Serialize)]
struct Pod {
    containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<Variable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volume_mounts: Vec<Mount>,
}

#[derive(Serialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: String,
    read_only: bool,
}

#[derive(Serialize)]
struct Volume {
    name: String,
    secret: SecretSource,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretSource {
    secret_name: String,
}

fn knative(function: &FunctionDeployment, namespace: &str) -> Resource<Service> {
    let variables = function.env_vars.iter().flatten();
    let secrets = function.secrets.as_deref().unwrap_or_default();
    let container = Container {
        image: function.image.clone(),
        env: variables
            .map(|(name, value)| Variable { name: name.clone(), value: value.clone() })
            .collect(),
        volume_mounts: secrets
            .iter()
            .map(|name| Mount {
                name: name.clone(),
                mount_path: format!("{SECRETS}/{name}"),
                read_only: true,
            })
            .collect(),
    };
    let volume = |name: &String| Volume {
        name: name.clone(),
        secret: SecretSource { secret_name: name.clone() },
    };
    let pod = Pod { containers: vec![container], volumes: secrets.iter().map(volume).collect() };
    Resource {
        api_version: KNATIVE,
        kind: "Service",
        metadata: Metadata {
            name: function.service.clone(),
            namespace: namespace.to_owned(),
            annotations: function.annotations.clone().unwrap_or_default(),
        },
        spec: Service { template: Template { spec: pod } },
    }
}
