//! The part of the API that is about namespaces (contract section 4.10).

use std::io::Read;

use pinnace_core::{
    limits,
    wire::{FunctionNamespace, Map},
};
use ureq::http::{Method, StatusCode};

use super::{Answer, Gateway, Patience, TAKEN};

/// What marks a namespace as one for functions, as a label and as an annotation.
const MARK: (&str, &str) = ("openfaas", "1");

/// A namespace with the mark of those for functions, over whatever is given for it.
pub fn marked(name: &str, mut labels: Map, mut annotations: Map) -> FunctionNamespace {
    for map in [&mut labels, &mut annotations] {
        map.insert(MARK.0.to_owned(), MARK.1.to_owned());
    }
    FunctionNamespace { name: name.to_owned(), labels, annotations }
}

impl Gateway {
    /// The names of all namespaces.
    pub fn namespaces(&self) -> anyhow::Result<Vec<String>> {
        let doing = "listing namespaces";
        let answer = self.ask(Method::GET, "/system/namespaces", Patience::Request, doing)?;
        let mut answer = self.expect(answer, &[StatusCode::OK], doing)?;
        let mut text = String::new();
        let body = answer.body_mut().as_reader().take(limits::ANSWER_BYTES_MAX);
        std::io::BufReader::new(body)
            .read_to_string(&mut text)
            .map_err(|error| anyhow::anyhow!("{doing}: the answer broke off: {error}"))?;
        // Gateways without namespaces answer with nothing.
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&text).map_err(|error| {
            anyhow::anyhow!("{doing}: the answer of {} is not understood: {error}", self.address())
        })
    }

    /// One namespace; `None` if there is none of that name.
    pub fn namespace(&self, name: &str) -> anyhow::Result<Option<FunctionNamespace>> {
        let doing = format!("reading namespace {name}");
        let target = format!("/system/namespace/{name}");
        let answer = self.ask(Method::GET, &target, Patience::Request, &doing)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(answer, &doing).map(Some)
    }

    /// Creates a namespace.
    pub fn create_namespace(&self, namespace: &FunctionNamespace) -> anyhow::Result<()> {
        let doing = format!("creating namespace {}", namespace.name);
        // Without the slash at its end the path is another, and gateways have nothing there.
        let answer =
            self.tell(Method::POST, "/system/namespace/", namespace, Patience::Request, &doing)?;
        if answer.status() == StatusCode::CONFLICT {
            anyhow::bail!(
                "{doing}: there is one of that name; `pinnace namespace update` changes it"
            );
        }
        self.expect(answer, &TAKEN, &doing).map(drop)
    }

    /// Replaces a namespace's labels and annotations; `false` if there is none of that name.
    pub fn update_namespace(&self, namespace: &FunctionNamespace) -> anyhow::Result<bool> {
        let doing = format!("updating namespace {}", namespace.name);
        let target = format!("/system/namespace/{}", namespace.name);
        self.done(self.tell(Method::PUT, &target, namespace, Patience::Request, &doing)?, &doing)
    }

    /// Removes a namespace; `false` if there is none of that name.
    pub fn remove_namespace(&self, name: &str) -> anyhow::Result<bool> {
        let doing = format!("removing namespace {name}");
        let marked =
            FunctionNamespace { annotations: Map::new(), ..marked(name, Map::new(), Map::new()) };
        let target = format!("/system/namespace/{name}");
        self.done(self.tell(Method::DELETE, &target, &marked, Patience::Request, &doing)?, &doing)
    }

    fn done(&self, answer: Answer, doing: &str) -> anyhow::Result<bool> {
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.expect(answer, &TAKEN, doing).map(|_| true)
    }
}
