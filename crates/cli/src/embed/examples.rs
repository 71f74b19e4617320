//! The functions that `pinnace up --examples` deploys, read from examples/stack.yaml.

use std::collections::BTreeMap;

use pinnace_core::wire::{FunctionDeployment, Map, Resources};
use serde::Deserialize;

use super::{archive, program};

/// The stack file, which `pinnace deploy -f` takes too.
const STACK: &str = include_str!("../../../../examples/stack.yaml");

/// Annotation with a few words about the function.
const ANNOTATION_ABOUT: &str = "dev.pinnace.about";

/// A function that a newcomer runs first.
#[derive(Debug)]
pub struct Example {
    /// Its name.
    pub name: String,
    /// What it does, in a few words.
    pub about: String,
    /// The image to load first, if it needs one.
    pub image: Option<Archive>,
    /// What to deploy.
    pub deployment: FunctionDeployment,
    /// A command that calls it, to be typed where Pinnace's sources are.
    pub curl: String,
}

/// An image as an OCI layout in a tar file (`kind=archive`).
#[derive(Debug)]
pub struct Archive {
    /// Under which reference to load it.
    pub reference: String,
    /// The tar file.
    pub bytes: Vec<u8>,
}

/// The part of a stack file that examples use. A field that is not here is a fault of the file.
#[derive(Deserialize)]
struct Stack {
    functions: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    image: String,
    #[serde(default)]
    fprocess: String,
    environment: Option<Map>,
    annotations: Option<Map>,
    labels: Option<Map>,
    limits: Option<Resources>,
}

/// The examples, with commands for a gateway at this address, such as `http://127.0.0.1:8080`.
///
/// # Errors
/// What is embedded cannot be read; the tests show that it can.
pub fn examples(gateway: &str) -> anyhow::Result<Vec<Example>> {
    let stack: Stack = serde_saphyr::from_str(STACK)?;
    stack.functions.into_iter().map(|(name, entry)| example(name, entry, gateway)).collect()
}

fn example(name: String, entry: Entry, gateway: &str) -> anyhow::Result<Example> {
    let annotations = entry.annotations.unwrap_or_default();
    Ok(Example {
        about: annotations.get(ANNOTATION_ABOUT).cloned().unwrap_or_default(),
        image: image(&name, &entry.image)?,
        curl: curl(&name, gateway),
        deployment: FunctionDeployment {
            service: name.clone(),
            image: entry.image,
            env_process: entry.fprocess,
            env_vars: entry.environment,
            annotations: Some(annotations),
            labels: Some(entry.labels.unwrap_or_default()),
            limits: entry.limits,
            ..FunctionDeployment::default()
        },
        name,
    })
}

/// The image of an example whose program is embedded.
fn image(name: &str, reference: &str) -> anyhow::Result<Option<Archive>> {
    let Some(program) = program(name) else { return Ok(None) };
    let bytes = archive::oci_layout(&archive::Content {
        reference,
        name,
        program: &program.bytes()?,
        port: 8080,
        architecture: std::env::consts::ARCH,
    })?;
    Ok(Some(Archive { reference: reference.to_owned(), bytes }))
}

fn curl(name: &str, gateway: &str) -> String {
    let url = format!("{}/function/{name}", gateway.trim_end_matches('/'));
    // Under an address of this host nobody has a certificate that curl would take.
    let curl = if url.starts_with("https://") { "curl --insecure" } else { "curl" };
    match name {
        "thumbnail" => format!(
            "{curl} --data-binary @examples/thumbnail/astronaut.jpg '{url}?width=200' -o small.jpg"
        ),
        "word-frequencies" => {
            format!("{curl} --data-binary @examples/word-frequencies/gettysburg.txt {url}")
        }
        "csv-statistics" => {
            format!("{curl} --data-binary @examples/csv-statistics/planets.csv {url}")
        }
        _ => format!("{curl} {url}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pinnace_core::FunctionSpec;

    use super::*;

    #[test]
    fn every_example_is_a_valid_deployment_with_a_command_that_names_a_real_file() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let examples = examples("http://127.0.0.1:8080/").unwrap();
        let names: Vec<_> = examples.iter().map(|example| example.name.as_str()).collect();
        assert_eq!(names, ["csv-statistics", "thumbnail", "word-frequencies"]);
        for example in &examples {
            assert!(!example.about.is_empty(), "{}", example.name);
            FunctionSpec::check(example.deployment.clone()).unwrap();
            let file = example.curl.split(['@', ' ']).find(|word| word.starts_with("examples/"));
            assert!(root.join(file.unwrap()).is_file(), "{}", example.curl);
            assert!(example.curl.contains("http://127.0.0.1:8080/function/"), "{}", example.curl);
        }
    }

    #[test]
    fn behind_a_certificate_the_commands_say_so() {
        let examples = examples("https://127.0.0.1:8443").unwrap();
        for example in examples {
            let command = example.curl;
            let fits = command.starts_with("curl --insecure ")
                && command.contains("https://127.0.0.1:8443/function/");
            assert!(fits, "{command}");
        }
    }

    #[test]
    fn the_thumbnail_runs_from_an_image_of_this_version() {
        let examples = examples("http://127.0.0.1:8080").unwrap();
        let thumbnail = examples.iter().find(|example| example.name == "thumbnail").unwrap();
        let image = thumbnail.image.as_ref().unwrap();
        assert_eq!(image.reference, concat!("pinnace/thumbnail:", env!("CARGO_PKG_VERSION")));
        assert_eq!(thumbnail.deployment.image, image.reference);
        assert!(image.bytes.len() > 1024);
    }

    #[test]
    fn the_stack_carries_the_python_handler_word_for_word() {
        let handler = include_str!("../../../../examples/csv-statistics/handler.py");
        let stack: Stack = serde_saphyr::from_str(STACK).unwrap();
        let carried = &stack.functions["csv-statistics"].environment.as_ref().unwrap()["HANDLER"];
        assert_eq!(carried, handler, "copy handler.py into examples/stack.yaml, indented");
    }
}
