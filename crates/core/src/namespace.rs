//! Namespaces: groups of functions and secrets that do not see each other's names.
//!
//! A namespace is ours to manage if a label or annotation marks it (contract section 4.10). Annotations of ours
//! bound what is in it.

use crate::{
    image::shown,
    limits,
    name::{NameError, check_label},
    wire::{FunctionNamespace, Map},
};

/// Label or annotation, with the value `1`, of a namespace that functions may be put in.
pub const MARK: &str = "openfaas";

/// Annotation of ours: most functions in the namespace.
pub const ANNOTATION_FUNCTIONS: &str = "dev.pinnace.quota.functions";
/// Annotation of ours: most secrets in it.
pub const ANNOTATION_SECRETS: &str = "dev.pinnace.quota.secrets";

/// A checked namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Labels, as they were sent.
    pub labels: Map,
    /// Annotations, as they were sent.
    pub annotations: Map,
    /// What its annotations allow.
    pub quota: Quota,
}

/// How much may be in a namespace. `None` where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Functions.
    pub functions: Option<u32>,
    /// Secrets.
    pub secrets: Option<u32>,
}

/// What is wrong with a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceFault {
    /// It cannot have this name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing marks it.
    #[error("namespace {0} is not marked: give it label or annotation {MARK}=1")]
    Unmarked(String),
    /// It says too much.
    #[error(
        "namespace {name}: {entries} labels and annotations, at most {}",
        limits::SPEC_ENTRIES_MAX
    )]
    Entries {
        /// Its name.
        name: String,
        /// How many there are.
        entries: usize,
    },
    /// A bound is none.
    #[error("namespace {name}: annotation {annotation} is {text:?}, but must be a number")]
    Quota {
        /// Its name.
        name: String,
        /// The annotation.
        annotation: &'static str,
        /// What it holds.
        text: String,
    },
}

impl Namespace {
    /// Checks a namespace.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(sent: FunctionNamespace) -> Result<Self, NamespaceFault> {
        let FunctionNamespace { name, labels, annotations } = sent;
        check_label("namespace", &name)?;
        let entries = labels.len() + annotations.len();
        if entries > limits::SPEC_ENTRIES_MAX {
            return Err(NamespaceFault::Entries { name, entries });
        }
        let marks = |map: &Map| map.get(MARK).is_some_and(|value| value == "1");
        if !marks(&labels) && !marks(&annotations) {
            return Err(NamespaceFault::Unmarked(name));
        }
        let quota = Quota::read(&name, &annotations)?;
        Ok(Self { labels, annotations, quota })
    }

    /// A namespace of which nothing is said but that it is there.
    #[must_use]
    pub fn plain() -> Self {
        let labels = Map::from([(MARK.to_owned(), "1".to_owned())]);
        Self { labels, ..Self::default() }
    }
}

impl Quota {
    fn read(name: &str, annotations: &Map) -> Result<Self, NamespaceFault> {
        let bound = |annotation: &'static str| {
            let Some(text) = annotations.get(annotation) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| NamespaceFault::Quota {
                name: name.to_owned(),
                annotation,
                text: shown(text),
            })
        };
        Ok(Self { functions: bound(ANNOTATION_FUNCTIONS)?, secrets: bound(ANNOTATION_SECRETS)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Namespace, String> {
        Namespace::check(serde_json::from_str(json).unwrap()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_namespace_is_marked_by_a_label_or_an_annotation() {
        assert!(check(r#"{"name":"dev","labels":{"openfaas":"1"}}"#).is_ok());
        assert!(check(r#"{"name":"dev","annotations":{"openfaas":"1"},"labels":null}"#).is_ok());
        for unmarked in [r#"{"name":"dev"}"#, r#"{"name":"dev","labels":{"openfaas":"0"}}"#] {
            assert!(check(unmarked).unwrap_err().contains("openfaas=1"), "{unmarked}");
        }
        assert!(check(r#"{"name":"Dev","labels":{"openfaas":"1"}}"#).is_err());
    }

    #[test]
    fn quotas_are_numbers() {
        let with = |text: &str| {
            check(&format!(
                r#"{{"name":"dev","annotations":{{"openfaas":"1","dev.pinnace.quota.functions":"{text}"}}}}"#
            ))
        };
        assert_eq!(with("7").unwrap().quota, Quota { functions: Some(7), ..Quota::default() });
        for bad in ["", "-1", "many", "4294967296"] {
            let error = with(bad).unwrap_err();
            assert!(error.contains("dev.pinnace.quota.functions"), "{error}");
        }
    }
}
