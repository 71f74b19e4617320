//! Sources of functions as the builder API takes them.

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{Answer, Gateway};

/// A source with what is asked for.
#[derive(Clone, Debug)]
pub struct Source {
    config: Value,
    files: Vec<(String, Vec<u8>)>,
    /// Time, owner and order that another day or machine would give the archive.
    odd: bool,
}

/// Variables by which this machine's package managers find their registries and trust them: a build has none of them
/// by itself.
const REGISTRY_VARIABLES: [&str; 9] = [
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "GOPROXY",
    "GOSUMDB",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_registry",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "SSL_CERT_FILE",
];

impl Source {
    /// An image of this name, built by this `template.yml`.
    #[must_use]
    pub fn new(image: &str, template: &str) -> Self {
        let arguments: serde_json::Map<String, Value> = REGISTRY_VARIABLES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?.into())))
            .collect();
        let config = json!({ "image": image, "buildArgs": arguments });
        Self { config, files: Vec::new(), odd: false }.file("template.yml", template)
    }

    /// With a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((path.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// With a variable of its commands.
    #[must_use]
    pub fn argument(mut self, name: &str, value: &str) -> Self {
        self.config["buildArgs"][name] = value.into();
        self
    }

    /// Archived on another day, by another user, in another order.
    #[must_use]
    pub fn of_another_day(mut self) -> Self {
        self.odd = true;
        self.files.reverse();
        self
    }

    /// The archive.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        let config = self.config.to_string();
        let files = self
            .files
            .iter()
            .map(|(path, content)| (format!("context/{path}"), content.as_slice()));
        let config = [("com.openfaas.docker.config".to_owned(), config.as_bytes())];
        for (path, content) in config.into_iter().chain(files) {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            let (mode, time, owner) =
                if self.odd { (0o640, 1_700_000_000, 501) } else { (0o644, 0, 0) };
            header.set_mode(mode);
            header.set_mtime(time);
            header.set_uid(owner);
            header.set_gid(owner);
            tar.append_data(&mut header, path, content).expect("memory takes it");
        }
        tar.into_inner().expect("memory takes it")
    }
}

impl Gateway {
    /// Asks for a build, answered in one piece.
    ///
    /// # Panics
    /// There is no answer.
    #[must_use]
    pub fn try_build(&self, tar: &[u8], headers: &[(&str, &str)]) -> Answer {
        let authorization = self.authorization();
        let mut all = vec![("Authorization", authorization.as_str())];
        all.extend(headers);
        let time_max = std::time::Duration::from_secs(300);
        let url = format!("{}/build", self.url());
        let answer = crate::http::send_within(time_max, "POST", &url, &all, tar);
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Builds an image: the answer, which says that it is there.
    ///
    /// # Panics
    /// It is not built.
    #[must_use]
    pub fn build(&self, source: &Source) -> Value {
        let answer = self.try_build(&source.tar(), &[]).expect(200).json();
        assert_eq!(answer["status"], "success", "{answer:#}");
        answer
    }
}

/// The lines of a build's log.
#[must_use]
pub fn log(answer: &Value) -> String {
    let lines = answer["log"].as_array().into_iter().flatten();
    lines.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}
