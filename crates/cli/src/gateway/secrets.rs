//! The part of the API that is about secrets (contract section 4.9).

use std::fmt;

use serde::{Deserialize, Serialize};
use ureq::http::{Method, StatusCode};

use super::{Gateway, Patience, TAKEN, query};

/// A secret on its way to a gateway.
#[derive(Clone, Default, Serialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Where it is; empty for the gateway's own namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its value, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Its bytes in base64, which win over the text.
    #[serde(rename = "rawValue", skip_serializing_if = "String::is_empty")]
    pub raw_value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_printed() {
        let secret = Secret { name: "s".into(), value: "hunter2".into(), ..Secret::default() };
        assert_eq!(format!("{secret:?}"), "Secret { name: \"s\", .. }");
    }
}
