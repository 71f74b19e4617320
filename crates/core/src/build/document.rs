//! The configuration of a built image (OCI image-spec `config.md`). It has nothing of the day or the machine in it,
//! so that the same source has the same digest.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Base, Recipe};
use crate::image::ImageConfig;

/// The time that everything in a built image is of, in seconds: the first that a zip archive can hold.
pub const SOURCE_DATE_EPOCH: u64 = 315_532_800;

/// The same as images write it.
const CREATED: &str = "1980-01-01T00:00:00Z";

/// Label of an image that stands on the host's own programs.
pub const LABEL_BASE: &str = "dev.pinnace.base";

/// Its value.
pub const BUILT_ON_HOST: &str = "host";

/// Label of an image whose command is a watchdog that the platform brings: which one.
pub const LABEL_WATCHDOG: &str = "dev.pinnace.watchdog";

/// Who builds and runs where the base does not say.
const USER: u32 = 1000;

/// An image that was built, as its configuration.
#[derive(Clone, Debug, Default)]
pub struct ImageDocument {
    /// What its base says of itself.
    pub base: ImageConfig,
    /// The layers' diff_ids, lowest first.
    pub diff_ids: Vec<String>,
    /// What each of the last layers was made by.
    pub history: Vec<String>,
    /// The machine, as Go names it.
    pub architecture: String,
}

impl ImageDocument {
    /// Who the image's files belong to, who runs it, and who has built it: user and group.
    #[must_use]
    pub fn owner(base: &ImageConfig) -> (u32, u32) {
        match (base.user.uid, base.user.gid) {
            (0, _) => (USER, USER),
            ids => ids,
        }
    }

    /// It, as it is hashed and stored.
    #[must_use]
    pub fn to_json(&self, recipe: &Recipe) -> Vec<u8> {
        let (uid, gid) = Self::owner(&self.base);
        let mut labels = BTreeMap::new();
        if recipe.base == Base::Host {
            labels.insert(LABEL_BASE, BUILT_ON_HOST);
        }
        let command = if recipe.serves_http {
            recipe.command.clone()
        } else {
            labels.insert(LABEL_WATCHDOG, "of");
            vec!["fwatchdog".to_owned()]
        };
        // Those of lower layers are the base's own, which its own image tells.
        let below = self.diff_ids.len().saturating_sub(self.history.len());
        let inherited = (0..below).map(|_| json!({ "created": CREATED, "created_by": "base" }));
        let own = self.history.iter().map(|by| json!({ "created": CREATED, "created_by": by }));
        let history: Vec<Value> = inherited.chain(own).collect();
        let document = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": CREATED,
            "config": {
                "User": format!("{uid}:{gid}"),
                "Env": self.env(recipe),
                "Cmd": command,
                "WorkingDir": recipe.workdir,
                "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
            "history": history,
        });
        document.to_string().into_bytes()
    }

    /// The base's variables, then the recipe's, sorted.
    fn env(&self, recipe: &Recipe) -> Vec<String> {
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        let base = self.base.env.iter().filter_map(|pair| pair.split_once('='));
        env.extend(base.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if !recipe.serves_http {
            env.insert("fprocess".to_owned(), recipe.fprocess.clone());
            // A failing command shows in this mode; a template names another if it serves HTTP behind a watchdog.
            env.entry("mode".to_owned()).or_insert_with(|| "serializing".to_owned());
        }
        env.extend(recipe.env.clone());
        env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::User;

    fn recipe(serves_http: bool) -> Recipe {
        Recipe {
            base: Base::Host,
            install: None,
            compile: None,
            env: BTreeMap::from([("mode".to_owned(), "http".to_owned())]),
            workdir: "/home/app".to_owned(),
            command: vec!["a".to_owned(), "b".to_owned()],
            fprocess: "a b".to_owned(),
            serves_http,
        }
    }

    fn document() -> ImageDocument {
        ImageDocument {
            base: ImageConfig { env: vec!["PATH=/x".into()], ..ImageConfig::default() },
            diff_ids: vec!["sha256:a".into(), "sha256:b".into()],
            history: vec!["code".into()],
            architecture: "amd64".into(),
        }
    }

    #[test]
    fn it_says_what_runs_and_nothing_of_today() {
        let value: Value = serde_json::from_slice(&document().to_json(&recipe(false))).unwrap();
        assert_eq!(value["config"]["Cmd"], json!(["fwatchdog"]));
        assert_eq!(value["config"]["Env"], json!(["PATH=/x", "fprocess=a b", "mode=http"]));
        assert_eq!(value["config"]["User"], "1000:1000");
        assert_eq!(value["config"]["Labels"][LABEL_BASE], "host");
        assert_eq!(value["created"], CREATED);
        assert_eq!(value["history"].as_array().unwrap().len(), 2);
        let value: Value = serde_json::from_slice(&document().to_json(&recipe(true))).unwrap();
        assert_eq!(value["config"]["Cmd"], json!(["a", "b"]));
        assert_eq!(value["config"]["Labels"][LABEL_WATCHDOG], Value::Null);
    }

    #[test]
    fn a_base_that_runs_as_somebody_is_followed() {
        let user = User { uid: 100, gid: 101, groups: Vec::new() };
        let base = ImageConfig { user, ..ImageConfig::default() };
        assert_eq!(ImageDocument::owner(&base), (100, 101));
        assert_eq!(ImageDocument::owner(&ImageConfig::default()), (1000, 1000));
    }
}
