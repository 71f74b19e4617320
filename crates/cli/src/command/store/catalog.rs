//! A store's `functions.json` (contract section 12.3).

use pinnace_core::{limits, wire::Map};
use serde::{Deserialize, Serialize};

use crate::fetch;

/// Where OpenFaaS keeps its store.
pub const DEFAULT_URL: &str =
    "https://raw.githubusercontent.com/openfaas/store/master/functions.json";

/// A store's functions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Catalog {
    functions: Vec<Item>,
}

/// A function of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Item {
    /// Where its picture is.
    pub icon: String,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What it is, in a few words.
    pub title: String,
    /// What it is, in a sentence or more.
    pub description: String,
    /// Its name.
    pub name: String,
    /// The command that the watchdog runs.
    pub fprocess: String,
    /// Where its source is.
    pub repo_url: String,
    /// Whether its root filesystem is read-only.
    #[serde(rename = "readOnlyRootFilesystem")]
    pub read_only_root_filesystem: bool,
    /// Environment.
    pub environment: Option<Map>,
    /// Labels.
    pub labels: Option<Map>,
    /// Annotations.
    pub annotations: Option<Map>,
    /// Its image for each platform.
    pub images: Map,
}

impl Item {
    /// Who made it, in a word.
    pub fn author(&self) -> &str {
        if self.author.is_empty() { "unknown" } else { &self.author }
    }

    /// Its image for a platform.
    pub fn image(&self, platform: &str) -> Option<&str> {
        let mut images = self.images.iter();
        let found = images.find(|(name, _)| name.eq_ignore_ascii_case(platform));
        found.map(|(_, image)| image.as_str())
    }
}

impl Catalog {
    /// Reads the store at a URL or path.
    ///
    /// # Errors
    /// It cannot be read or is no store.
    pub fn read(url: &str) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let text = fetch::text(url, limits::FUNCTION_STORE_BYTES_MAX)?;
        Self::parse(&text).map_err(|why| anyhow::anyhow!("{url}: is no store of functions: {why}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // One without names would be read as this object's fields in their order.
        if text.trim_start().starts_with('[') {
            return Err(
                "it is a list; a store is an object that has the list as \"functions\"".into()
            );
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The functions that have an image for a platform.
    pub fn of_platform(&self, platform: &str) -> impl Iterator<Item = &Item> {
        self.functions.iter().filter(move |item| item.image(platform).is_some())
    }

    /// The function of a name or title that has an image for a platform.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str, platform: &str) -> anyhow::Result<&Item> {
        let is_meant = |item: &&Item| item.name == name || item.title == name;
        if let Some(item) = self.of_platform(platform).find(is_meant) {
            return Ok(item);
        }
        let elsewhere = self.functions.iter().find(is_meant);
        Err(match elsewhere.map(|item| item.images.keys().cloned().collect::<Vec<_>>()) {
            Some(others) => anyhow::anyhow!(
                "function {name} of the store is not made for {platform}, but for {}; choose one with \
                 --platform",
                others.join(", ")
            ),
            None => anyhow::anyhow!(
                "there is no function {name} in the store; `pinnace store list` shows those there are"
            ),
        })
    }

    /// The platforms that any function has an image for.
    pub fn platforms(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.functions.iter().flat_map(|item| item.images.keys().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// The store's name for machines like this one.
pub fn this_platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "arm" => "armhf",
        other => other,
    }
}

/// The store's name for a platform, which may be given as container images name it.
pub fn platform_of(name: &str) -> &str {
    match name {
        "linux/amd64" => "x86_64",
        "linux/arm64" => "arm64",
        "linux/arm/v6" | "linux/arm/v7" => "armhf",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        serde_json::from_str(
            r#"{"version":"0.2.1","functions":[
                {"name":"a","title":"First","images":{"x86_64":"a:1","ARM64":"a:2"},"labels":null},
                {"name":"b","title":"Second","images":{"armhf":"b:1"},"network":"func_functions"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn functions_are_found_by_name_and_title_where_they_have_an_image() {
        let catalog = catalog();
        assert_eq!(catalog.find("First", "arm64").unwrap().image("arm64"), Some("a:2"));
        assert_eq!(catalog.find("a", "x86_64").unwrap().title, "First");
        let said = catalog.find("b", "x86_64").unwrap_err().to_string();
        assert!(said.contains("but for armhf"), "{said}");
        assert!(catalog.find("c", "x86_64").unwrap_err().to_string().contains("no function c"));
        assert_eq!(catalog.platforms(), ["ARM64", "armhf", "x86_64"]);
    }

    #[test]
    fn a_list_alone_is_no_store() {
        let said = Catalog::parse("\n[{\"name\":\"a\"}]").unwrap_err();
        assert!(said.contains("it is a list"), "{said}");
        assert!(Catalog::parse("{\"functions\":[{\"name\":\"a\"}]}").is_ok());
    }

    #[test]
    fn platforms_may_be_named_as_images_name_them() {
        assert_eq!(platform_of("linux/amd64"), "x86_64");
        assert_eq!(platform_of("arm64"), "arm64");
    }
}
