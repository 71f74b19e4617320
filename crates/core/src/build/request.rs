//! The function builder API's words (contract section 14.5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    image::check_form,
    limits::{BUILD_ARGUMENTS_MAX, ENVIRONMENT_BYTES_MAX},
};

/// What is asked for beside the source: the file `com.openfaas.docker.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildRequest {
    /// The name that the image is to have.
    pub image: String,
    /// Variables of the commands that are run.
    #[serde(default, deserialize_with = "or_default")]
    pub build_args: BTreeMap<String, String>,
    /// Platforms; this machine's or none.
    #[serde(default, deserialize_with = "or_default")]
    pub platforms: Vec<String>,
    /// Whether the image stays here. It does in any case.
    #[serde(default, deserialize_with = "or_default")]
    pub skip_push: bool,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl BuildRequest {
    /// Refuses what cannot be built. `platform` is this machine's, `linux/amd64` for instance.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self, platform: &str) -> Result<(), String> {
        check_form(&self.image).map_err(|error| format!("`image`: {error}"))?;
        if crate::image::is_host(&self.image) {
            return Err(
                "`image`: `host` stands for the host's own programs; name it otherwise".into()
            );
        }
        if let Some(other) = self.platforms.iter().find(|wanted| *wanted != platform) {
            return Err(format!(
                "`platforms`: a native build is for the machine that it runs on, {platform}, and cannot be for \
                 {other}; build that one with Docker"
            ));
        }
        let count = self.build_args.len();
        if count > BUILD_ARGUMENTS_MAX {
            return Err(format!(
                "`buildArgs`: {count} of them, at most {BUILD_ARGUMENTS_MAX} (BUILD_ARGUMENTS_MAX)"
            ));
        }
        let bytes: usize =
            self.build_args.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ENVIRONMENT_BYTES_MAX {
            return Err(format!(
                "`buildArgs`: {bytes} bytes, at most {ENVIRONMENT_BYTES_MAX} (ENVIRONMENT_BYTES_MAX)"
            ));
        }
        match self.build_args.iter().find(|(name, value)| !is_variable(name, value)) {
            Some((name, _)) => Err(format!("`buildArgs`: {name:?} or its value is no variable")),
            None => Ok(()),
        }
    }
}

/// Whether a process can have this variable.
pub(super) fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

/// How a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// It goes on.
    InProgress,
    /// The image is there.
    Success,
    /// There is none.
    Failed,
}

/// The answer, or a part of it while the build goes on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildResult {
    /// What was said, line by line: all of it in a single answer, else what is new.
    pub log: Vec<String>,
    /// The image's name.
    pub image: String,
    /// How it stands.
    pub status: BuildStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Digest of the image's configuration, by which the store names it. Not in OpenFaaS.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Seconds since the source had arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
}

/// The key that secrets of builds are sealed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicKey {
    /// Its first eight characters.
    pub key_id: String,
    /// `nacl/box`.
    pub algorithm: &'static str,
    /// It, in base64.
    pub public_key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> Option<String> {
        let request: BuildRequest = serde_json::from_str(json).unwrap();
        request.check("linux/amd64").err()
    }

    #[test]
    fn what_clients_send_is_taken() {
        assert_eq!(refusal(r#"{"image":"a/b:1"}"#), None);
        assert_eq!(
            refusal(
                r#"{"image":"ttl.sh/a/b:1","buildArgs":{"A":"1"},"platforms":["linux/amd64"],"skipPush":true,
                    "frontend":"dockerfile.v0"}"#
            ),
            None
        );
        assert_eq!(refusal(r#"{"image":"a","buildArgs":null,"platforms":null}"#), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (json, word) in [
            (r#"{"image":""}"#, "it is empty"),
            (r#"{"image":"host"}"#, "`host` stands for"),
            (r#"{"image":"a","platforms":["linux/arm64"]}"#, "cannot be for linux/arm64"),
            (r#"{"image":"a","buildArgs":{"A=B":""}}"#, "is no variable"),
            (r#"{"image":"a","buildArgs":{"A":"\u0000"}}"#, "is no variable"),
        ] {
            let said = refusal(json).unwrap();
            assert!(said.contains(word), "{json}: {said}");
        }
    }

    #[test]
    fn answers_are_the_contracts() {
        let result = BuildResult {
            log: vec!["a".into()],
            image: "b:1".into(),
            status: BuildStatus::InProgress,
            error: String::new(),
            digest: String::new(),
            duration: None,
        };
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(text, r#"{"log":["a"],"image":"b:1","status":"in_progress"}"#);
    }
}
