//! Which of OpenFaaS's watchdogs an image brings. Both go by the same name, so that the program itself must tell: Go
//! writes the path of its module into it.

use std::path::{Path, PathBuf};

use memchr::memmem;
use pinnace_core::{
    image::{ImageConfig, WatchdogKind},
    limits::WATCHDOG_PROGRAM_BYTES_MAX,
};

use super::{config, layered::Layered, store::Ownership};

/// Module paths of the watchdogs; the classic one was part of another module once.
const MODULES: [(&str, WatchdogKind); 3] = [
    ("github.com/openfaas/of-watchdog", WatchdogKind::Of),
    ("github.com/openfaas/classic-watchdog", WatchdogKind::Classic),
    ("github.com/openfaas/faas/watchdog", WatchdogKind::Classic),
];

/// Where a program without a directory is looked for, if the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kind of the watchdog that an image starts with, if it does and the watchdog is one of those.
pub(super) fn kind(
    config: &ImageConfig,
    layers: &[PathBuf],
    ownership: Ownership,
) -> Option<WatchdogKind> {
    config::watchdog(config)?;
    let layered = Layered::open(layers, ownership).ok()?;
    let read = |path: PathBuf| layered.read(&path, WATCHDOG_PROGRAM_BYTES_MAX).ok().flatten();
    kind_of(&candidates(config).into_iter().find_map(read)?)
}

fn kind_of(program: &[u8]) -> Option<WatchdogKind> {
    let has = |module: &str| memmem::find(program, module.as_bytes()).is_some();
    MODULES.iter().find(|(module, _)| has(module)).map(|(_, kind)| *kind)
}

/// Where the image's first word may be.
fn candidates(config: &ImageConfig) -> Vec<PathBuf> {
    let Some(program) = config.entrypoint.iter().chain(&config.cmd).next() else {
        return Vec::new();
    };
    if program.contains('/') {
        return vec![Path::new("/").join(&config.working_dir).join(program)];
    }
    let named = config.env.iter().find_map(|pair| pair.strip_prefix("PATH="));
    let directories = named.unwrap_or(PATH).split(':');
    directories.map(|directory| Path::new("/").join(directory).join(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_by_its_module() {
        let with = |module: &str| kind_of(format!("\x7fELF ... path\t{module}\n ...").as_bytes());
        assert_eq!(with("github.com/openfaas/of-watchdog"), Some(WatchdogKind::Of));
        assert_eq!(with("github.com/openfaas/classic-watchdog"), Some(WatchdogKind::Classic));
        assert_eq!(with("github.com/openfaas/faas/watchdog"), Some(WatchdogKind::Classic));
        assert_eq!(with("github.com/somebody/watchdog"), None);
    }

    #[test]
    fn it_is_looked_for_as_a_shell_would() {
        let of = |word: &str, env: &[&str], working_dir: &str| {
            let env = env.iter().map(|pair| (*pair).to_owned()).collect();
            let (cmd, working_dir) = (vec![word.to_owned()], working_dir.to_owned());
            let config = ImageConfig { cmd, env, working_dir, ..ImageConfig::default() };
            let all = candidates(&config).into_iter();
            all.map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("/usr/bin/fwatchdog", &[], ""), ["/usr/bin/fwatchdog"]);
        assert_eq!(of("./fwatchdog", &[], "/home/app"), ["/home/app/./fwatchdog"]);
        assert_eq!(of("fwatchdog", &["PATH=/a:/b"], ""), ["/a/fwatchdog", "/b/fwatchdog"]);
        assert!(of("fwatchdog", &[], "").contains(&"/usr/bin/fwatchdog".to_owned()));
    }
}
