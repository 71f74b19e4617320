//! A template store's `templates.json` (contract section 12.4).

use pinnace_core::limits;
use serde::{Deserialize, Serialize};

use crate::fetch;

/// Where OpenFaaS keeps its store.
pub const DEFAULT_URL: &str =
    "https://raw.githubusercontent.com/openfaas/store/master/templates.json";

/// The variable that names another one.
const VARIABLE: &str = "OPENFAAS_TEMPLATE_STORE_URL";

/// A store's templates.
#[derive(Debug, Default)]
pub struct Store(pub Vec<StoreItem>);

/// A template of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreItem {
    /// Its name.
    pub template: String,
    /// The machines it is for.
    pub platform: String,
    /// Its language.
    pub language: String,
    /// Who made it.
    pub source: String,
    /// What it is, in a sentence.
    pub description: String,
    /// The URL of its repository.
    pub repo: String,
    /// `true` if it is the store's owners' own.
    pub official: String,
    /// Whether its owners advise it.
    pub recommended: bool,
}

impl StoreItem {
    /// Whether it is the store's owners' own.
    pub fn is_official(&self) -> bool {
        self.official == "true"
    }
}

impl Store {
    /// Reads the store at a URL or path: the one given, else the variable's, else OpenFaaS's.
    ///
    /// # Errors
    /// It cannot be read or is no store.
    pub fn read(url: Option<&str>) -> anyhow::Result<Self> {
        let given = |url: &String| !url.is_empty();
        let variable = std::env::var(VARIABLE).ok().filter(given);
        let url = url.map(str::to_owned).filter(given).or(variable);
        let url = url.as_deref().unwrap_or(DEFAULT_URL);
        let text = fetch::text(url, limits::TEMPLATE_STORE_BYTES_MAX)?;
        serde_json::from_str(&text)
            .map(Self)
            .map_err(|error| anyhow::anyhow!("{url}: is no store of templates: {error}"))
    }

    /// The template of a name, which may have its maker before it: `openfaas/go`.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> anyhow::Result<&StoreItem> {
        let is_meant = |item: &&StoreItem| match name.split_once('/') {
            Some((maker, name)) => item.source == maker && item.template == name,
            None => item.template == name,
        };
        self.0.iter().find(is_meant).ok_or_else(|| {
            anyhow::anyhow!(
                "there is no template {name} in the store; `pinnace template store list` shows those there are"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_found_with_and_without_their_maker() {
        let store: Vec<StoreItem> = serde_json::from_str(
            r#"[{"template":"go","source":"a","official":"true"},{"template":"go","source":"b"}]"#,
        )
        .unwrap();
        let store = Store(store);
        assert_eq!(store.find("go").unwrap().source, "a");
        assert!(store.find("a/go").unwrap().is_official());
        assert!(!store.find("b/go").unwrap().is_official());
        let said = store.find("c/go").unwrap_err().to_string();
        assert!(said.contains("no template c/go in the store"), "{said}");
    }
}
