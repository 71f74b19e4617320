//! Who builds.

use std::{
    fmt,
    process::{Command, Stdio},
    sync::OnceLock,
};

use clap::ValueEnum;

/// Who makes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Pinnace itself: the gateway, from what the template says; no Dockerfile is needed
    Native,
    /// docker buildx build
    Buildx,
    /// docker build
    Docker,
    /// buildah build
    Buildah,
    /// podman build
    Podman,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "Pinnace itself",
            Self::Buildx => "docker buildx",
            Self::Docker => "docker build",
            Self::Buildah => "buildah",
            Self::Podman => "podman",
        })
    }
}

/// What there is on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    /// The program docker.
    docker: bool,
    /// A Docker Engine that answers it.
    daemon: bool,
    /// Its plugin buildx.
    buildx: bool,
    buildah: bool,
    podman: bool,
}

impl Found {
    fn look() -> Self {
        let docker = runs("docker", &["--version"]);
        let daemon = docker && runs("docker", &["version", "--format", "{{.Server.Version}}"]);
        Self {
            docker,
            daemon,
            buildx: daemon && runs("docker", &["buildx", "version"]),
            buildah: runs("buildah", &["--version"]),
            podman: runs("podman", &["--version"]),
        }
    }

    /// The first of those that build Dockerfiles.
    fn choose(self) -> Result<Engine, String> {
        match self {
            Self { buildx: true, .. } => Ok(Engine::Buildx),
            Self { daemon: true, .. } => Ok(Engine::Docker),
            Self { buildah: true, .. } => Ok(Engine::Buildah),
            Self { podman: true, .. } => Ok(Engine::Podman),
            _ => Err(format!(
                "its template has a Dockerfile, and nothing here builds one{}; install buildah (apt-get install \
                 buildah), podman or Docker, or choose a template that needs none (`pinnace new --list`)",
                if self.docker {
                    ": docker is installed, but no Docker Engine answers it"
                } else {
                    ""
                }
            )),
        }
    }
}

/// Who builds which function, looked for once and only if it matters.
#[derive(Debug, Default)]
pub struct Engines {
    /// The one that was asked for.
    wanted: Option<Engine>,
    found: OnceLock<Result<Engine, String>>,
}

impl Engines {
    /// Those to choose from, or the one that is wanted.
    pub fn new(wanted: Option<Engine>) -> Self {
        Self { wanted, found: OnceLock::new() }
    }

    /// Who builds a function whose template Pinnace can build itself, or cannot.
    ///
    /// # Errors
    /// Nobody can.
    pub fn of(&self, is_native: bool) -> Result<Engine, String> {
        match self.wanted {
            Some(Engine::Native) if !is_native => Err("Pinnace itself builds templates whose template.yml has a section \
                                                       `pinnace`, and its template has none; leave out --builder native"
                .to_owned()),
            Some(wanted) => Ok(wanted),
            None if is_native => Ok(Engine::Native),
            None => self.found.get_or_init(|| Found::look().choose()).clone(),
        }
    }
}

/// Whether a program runs and succeeds.
fn runs(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_works_is_taken() {
        let all = Found { docker: true, daemon: true, buildx: true, buildah: true, podman: true };
        assert_eq!(all.choose(), Ok(Engine::Buildx));
        let all = Found { buildx: false, ..all };
        assert_eq!(all.choose(), Ok(Engine::Docker));
        let all = Found { daemon: false, ..all };
        assert_eq!(all.choose(), Ok(Engine::Buildah));
        let all = Found { buildah: false, ..all };
        assert_eq!(all.choose(), Ok(Engine::Podman));
        let said = Found { podman: false, ..all }.choose().unwrap_err();
        assert!(said.contains("no Docker Engine answers it; install buildah"), "{said}");
        let said = Found::default().choose().unwrap_err();
        assert!(said.contains("nothing here builds one; install"), "{said}");
    }

    #[test]
    fn what_is_asked_for_is_not_looked_for() {
        let engines = Engines::new(Some(Engine::Podman));
        assert_eq!(engines.of(true), Ok(Engine::Podman));
        let engines = Engines::new(Some(Engine::Native));
        assert_eq!(engines.of(true), Ok(Engine::Native));
        assert!(engines.of(false).unwrap_err().contains("section `pinnace`"));
        assert_eq!(Engines::default().of(true), Ok(Engine::Native));
    }
}
