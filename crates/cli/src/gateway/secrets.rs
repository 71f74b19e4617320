//! The part of the API that is about secrets (contract section 4.9).

use pinnace_core::wire::Secret;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, StatusCode};

use super::{Gateway, Patience, TAKEN, query};

/// A secret as gateways list it: without its value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecretName {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

impl Gateway {
    /// The names of the secrets of a namespace.
    pub fn secrets(&self, namespace: Option<&str>) -> anyhow::Result<Vec<SecretName>> {
        let doing = "listing secrets";
        let target = format!("/system/secrets{}", query(&[("namespace", namespace)]));
        let answer = self.ask(Method::GET, &target, Patience::Request, doing)?;
        let listed = [StatusCode::OK, StatusCode::ACCEPTED];
        // Some gateways answer an empty list with null.
        Ok(self.read_of::<Option<_>>(answer, &listed, doing)?.unwrap_or_default())
    }

    /// Creates a secret; `None` if there is one of that name.
    pub fn create_secret(&self, secret: &Secret) -> anyhow::Result<Option<StatusCode>> {
        let doing = format!("creating secret {}", secret.name);
        self.send_secret(Method::POST, secret, StatusCode::CONFLICT, &doing)
    }

    /// Gives a secret another value; `None` if there is none of that name.
    pub fn update_secret(&self, secret: &Secret) -> anyhow::Result<Option<StatusCode>> {
        let doing = format!("updating secret {}", secret.name);
        self.send_secret(Method::PUT, secret, StatusCode::NOT_FOUND, &doing)
    }

    /// Removes a secret; `false` if there was none.
    pub fn remove_secret(&self, name: &str, namespace: &str) -> anyhow::Result<bool> {
        let doing = format!("removing secret {name}");
        let request =
            Secret { name: name.to_owned(), namespace: namespace.to_owned(), ..Secret::default() };
        let removed = self.send_secret(Method::DELETE, &request, StatusCode::NOT_FOUND, &doing)?;
        Ok(removed.is_some())
    }

    fn send_secret(
        &self,
        method: Method,
        secret: &Secret,
        absent: StatusCode,
        doing: &str,
    ) -> anyhow::Result<Option<StatusCode>> {
        let answer = self.tell(method, "/system/secrets", secret, Patience::Request, doing)?;
        if answer.status() == absent {
            return Ok(None);
        }
        Ok(Some(self.expect(answer, &TAKEN, doing)?.status()))
    }
}
