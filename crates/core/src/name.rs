//! Names of functions, as users write them and as routes carry them.
//!
//! A reference is `name` or `name.namespace`, split at the *last* dot; without a namespace the default
//! one is meant (contract section 1).

use std::fmt;

/// The namespace of a function that names none (contract section 1).
pub const DEFAULT_NAMESPACE: &str = "openfaas-fn";

/// Longest name of a function or namespace, in bytes: a DNS-1123 label (RFC 1123 section 2.1).
pub const NAME_BYTES_MAX: usize = 63;

/// A function's full name. Both parts are DNS-1123 labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionRef {
    name: String,
    namespace: String,
}

impl FunctionRef {
    /// A reference of two checked parts; an empty namespace means the default one.
    ///
    /// # Errors
    /// Either part is no DNS-1123 label.
    pub fn new(name: &str, namespace: &str) -> Result<Self, NameError> {
        check_label("function", name)?;
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        check_label("namespace", namespace)?;
        Ok(Self { name: name.to_owned(), namespace: namespace.to_owned() })
    }

    /// Reads `name` or `name.namespace` as a route carries it.
    ///
    /// # Errors
    /// Either part is no DNS-1123 label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.rsplit_once('.') {
            Some((name, namespace)) if !namespace.is_empty() => Self::new(name, namespace),
            _ => Self::new(text, DEFAULT_NAMESPACE),
        }
    }

    /// The function's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace it is in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether it is in the default namespace, where its name alone is a route to it.
    #[must_use]
    pub fn is_default_namespace(&self) -> bool {
        self.namespace == DEFAULT_NAMESPACE
    }
}

impl fmt::Display for FunctionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Why a name was refused, with the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} name {shown:?} is not valid: use 1 to {NAME_BYTES_MAX} lower-case letters, digits and '-', \
     beginning and ending with a letter or digit"
)]
pub struct NameError {
    kind: &'static str,
    shown: String,
}

/// Checks one DNS-1123 label; `kind` is the word for it in the error.
///
/// # Errors
/// `text` is no such label.
pub fn check_label(kind: &'static str, text: &str) -> Result<(), NameError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = text.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
    let valid = bytes.len() <= NAME_BYTES_MAX
        && bytes.iter().all(|b| inner(*b))
        && ends_well(bytes.first())
        && ends_well(bytes.last());
    if valid {
        return Ok(());
    }
    // A hostile name may be a megabyte long; the error shows its beginning only.
    Err(NameError { kind, shown: text.chars().take(NAME_BYTES_MAX + 1).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        FunctionRef::parse(text).ok().map(|r| r.to_string())
    }

    #[test]
    fn references_split_at_the_last_dot() {
        assert_eq!(parsed("env").as_deref(), Some("env.openfaas-fn"));
        assert_eq!(parsed("env.dev").as_deref(), Some("env.dev"));
        assert_eq!(parsed("env.").as_deref(), None);
        assert_eq!(parsed(".openfaas-fn").as_deref(), None);
        assert_eq!(parsed("a.b.c").as_deref(), None, "a dot is no part of a name");
    }

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "0", "a-b", "x0-1y", &"a".repeat(63)] {
            assert!(check_label("function", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a b", "ä", "a/b", "..", &"a".repeat(64)] {
            assert!(check_label("function", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_error_names_the_object_and_the_rule() {
        let error = FunctionRef::new("Bad_Name", "").unwrap_err().to_string();
        assert!(error.starts_with("function name \"Bad_Name\" is not valid"), "{error}");
    }
}
