//! The variables of a build's commands. They are part of what a layer depends on.

use std::collections::BTreeMap;

use pinnace_core::build::SOURCE_DATE_EPOCH;

/// Home of the user that builds. Nothing of it gets into a layer.
pub const HOME: &str = "/var/tmp/home";

/// Where large temporary files go, on disk.
pub const TMPDIR: &str = "/var/tmp";

/// What keeps the day, the machine and chance out of what common tools write, and their questions out of the log.
const FIXED: [(&str, &str); 16] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", HOME),
    ("TMPDIR", TMPDIR),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    ("CI", "true"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONHASHSEED", "0"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_INPUT", "1"),
    ("GOFLAGS", "-trimpath -buildvcs=false"),
    ("GOTOOLCHAIN", "local"),
    ("npm_config_update_notifier", "false"),
    ("npm_config_fund", "false"),
    ("npm_config_audit", "false"),
];

/// `NAME=VALUE` each, sorted: the base's, in their place the fixed ones, then the recipe's, then what was asked for with
/// the build.
pub fn environment(
    base: &[String],
    recipe: &BTreeMap<String, String>,
    arguments: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut env: BTreeMap<&str, &str> = FIXED.into_iter().collect();
    let date = SOURCE_DATE_EPOCH.to_string();
    env.insert("SOURCE_DATE_EPOCH", &date);
    let base = base.iter().filter_map(|pair| pair.split_once('='));
    // Where the base's programs are, it knows best.
    env.extend(base.filter(|(name, _)| !matches!(*name, "HOME" | "TMPDIR")));
    let chosen = recipe.iter().chain(arguments);
    env.extend(chosen.map(|(name, value)| (name.as_str(), value.as_str())));
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_word_counts() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let base = ["PATH=/opt".to_owned(), "HOME=/root".to_owned(), "A=base".to_owned()];
        let env =
            environment(&base, &map(&[("A", "recipe"), ("B", "recipe")]), &map(&[("B", "asked")]));
        for pair in ["PATH=/opt", "HOME=/var/tmp/home", "A=recipe", "B=asked", "TZ=UTC"] {
            assert!(env.contains(&pair.to_owned()), "{pair} is not in {env:?}");
        }
        assert!(env.is_sorted());
    }
}
