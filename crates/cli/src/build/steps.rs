//! The command lines of the programs that build Dockerfiles (contract sections 14.2 and 14.3). Nothing is run here.

use std::path::Path;

use pinnace_core::wire::Map;

use super::Engine;

/// A program to run in the folder that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub words: Vec<String>,
}

impl Step {
    fn new(program: &'static str, words: &[&str]) -> Self {
        Self { program, words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// What is said of it: the program and its command, without values that may be nobody's business.
    pub fn shown(&self) -> String {
        let is_command = |word: &&String| !word.contains('=') && !word.contains('/');
        let count = if self.words.first().is_some_and(|word| word == "buildx") { 2 } else { 1 };
        let words = self.words.iter().take(count).filter(is_command);
        std::iter::once(self.program).chain(words.map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

/// What is built, and how.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The image.
    pub image: String,
    /// Build arguments.
    pub args: Map,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
    /// Files that the build may read, absolute, by the name that it knows them under.
    pub secrets: Map,
    /// Whether the user's SSH agent may be used.
    pub ssh: bool,
    /// Whether everything is done anew.
    pub no_cache: bool,
    /// Whether base images are pulled anew.
    pub pull: bool,
    /// Whether the image has one layer.
    pub squash: bool,
    /// Variables with proxies that are handed on, by name.
    pub proxies: Vec<&'static str>,
}

/// The variables with proxies.
pub const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// Where images are published.
#[derive(Clone, Debug, Default)]
pub struct Publishing {
    /// Platforms.
    pub platforms: Vec<String>,
    /// The same image under other tags.
    pub more_images: Vec<String>,
}

/// The program of a builder.
fn program(engine: Engine) -> &'static str {
    match engine {
        Engine::Buildah => "buildah",
        Engine::Podman => "podman",
        Engine::Native | Engine::Buildx | Engine::Docker => "docker",
    }
}

/// Builds an image into the builder's own store.
///
/// # Errors
/// The builder cannot do what is asked.
pub fn build(engine: Engine, recipe: &Recipe) -> Result<Step, String> {
    let more: &[&str] = if engine == Engine::Buildx { &["--load"] } else { &[] };
    let mut step = begun(engine, recipe, more)?;
    step.words.extend(["--tag".to_owned(), recipe.image.clone(), ".".to_owned()]);
    Ok(step)
}

/// The command up to what is done with the image.
fn begun(engine: Engine, recipe: &Recipe, more: &[&str]) -> Result<Step, String> {
    let mut step = match engine {
        Engine::Buildx => Step::new("docker", &["buildx", "build", "--progress=plain"]),
        Engine::Docker | Engine::Native => Step::new("docker", &["build"]),
        // Docker's form, as that of OCI has no health checks.
        Engine::Buildah | Engine::Podman => {
            Step::new(program(engine), &["build", "--format", "docker", "--layers"])
        }
    };
    let is_docker = matches!(engine, Engine::Buildx | Engine::Docker);
    if recipe.squash && engine == Engine::Buildx {
        return Err("--squash is not for docker buildx; --builder docker or buildah can".to_owned());
    }
    let mut word = |word: &str| step.words.push(word.to_owned());
    more.iter().for_each(|one| word(one));
    for (is_set, flag) in [
        (recipe.no_cache, "--no-cache"),
        (recipe.squash, "--squash"),
        (recipe.pull && is_docker, "--pull"),
        (recipe.pull && !is_docker, "--pull-always"),
    ] {
        if is_set {
            word(flag);
        }
    }
    // Without a value it is taken from the environment, where it is not for everybody to read.
    for name in &recipe.proxies {
        word("--build-arg");
        word(name);
    }
    for (name, value) in &recipe.args {
        word("--build-arg");
        word(&format!("{name}={value}"));
    }
    for (name, value) in &recipe.labels {
        word("--label");
        word(&format!("{name}={value}"));
    }
    for (id, path) in &recipe.secrets {
        if id.contains([',', '=']) || path.contains(',') {
            return Err(format!("build secret {id} of {path}: neither may have a comma in it"));
        }
        word("--secret");
        word(&format!("id={id},src={path}"));
    }
    if recipe.ssh {
        word("--ssh");
        word("default");
    }
    Ok(step)
}

/// Pushes an image from the builder's own store.
pub fn push(engine: Engine, image: &str) -> Step {
    Step::new(program(engine), &["push", image])
}

/// Builds an image and pushes it.
///
/// # Errors
/// The builder cannot do what is asked.
pub fn publish(engine: Engine, recipe: &Recipe, to: &Publishing) -> Result<Vec<Step>, String> {
    let platforms = to.platforms.join(",");
    if engine == Engine::Buildx {
        let platform = format!("--platform={platforms}");
        let more = ["--builder=multiarch", platform.as_str(), "--output=type=registry,push=true"];
        let mut step = begun(engine, recipe, &more)?;
        for image in std::iter::once(&recipe.image).chain(&to.more_images) {
            step.words.extend(["--tag".to_owned(), image.clone()]);
        }
        step.words.push(".".to_owned());
        return Ok(vec![step]);
    }
    let program = program(engine);
    if to.platforms.len() < 2 {
        let mut first = build(engine, recipe)?;
        if let Some(platform) = to.platforms.first() {
            first.words.insert(1, format!("--platform={platform}"));
        }
        let mut steps = vec![first];
        for image in &to.more_images {
            steps.push(Step::new(program, &["tag", &recipe.image, image]));
        }
        steps
            .extend(std::iter::once(&recipe.image).chain(&to.more_images).map(|i| push(engine, i)));
        return Ok(steps);
    }
    if engine == Engine::Docker {
        return Err(format!(
            "docker without its plugin buildx builds for one platform at a time, not for {platforms}"
        ));
    }
    let platform = format!("--platform={platforms}");
    let mut first = begun(engine, recipe, &[&platform, "--manifest", &recipe.image])?;
    first.words.push(".".to_owned());
    let mut steps = vec![first];
    for image in std::iter::once(&recipe.image).chain(&to.more_images) {
        let target = format!("docker://{image}");
        steps.push(Step::new(program, &["manifest", "push", "--all", &recipe.image, &target]));
    }
    Ok(steps)
}

/// Makes the builder that buildx publishes with; that it is there already is no failure.
pub fn make_buildx_builder() -> Step {
    Step::new("docker", &["buildx", "create", "--name=multiarch", "--node=multiarch"])
}

/// Lets this machine run programs of other machines, which publishing for those may need.
pub fn reset_qemu() -> Step {
    let image = "multiarch/qemu-user-static";
    Step::new("docker", &["run", "--rm", "--privileged", image, "--reset", "-p", "yes"])
}

/// Writes an image from the builder's own store into an archive.
pub fn save(engine: Engine, image: &str, archive: &Path) -> Step {
    let archive = archive.display().to_string();
    match engine {
        Engine::Buildah => {
            let target = format!("docker-archive:{archive}:{image}");
            Step::new("buildah", &["push", "--quiet", image, &target])
        }
        _ => Step::new(program(engine), &["save", "--output", &archive, image]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let map = |name: &str, value: &str| Map::from([(name.to_owned(), value.to_owned())]);
        Recipe {
            image: "r/f:1".into(),
            args: map("A", "b c"),
            labels: vec![("l".into(), "v".into())],
            secrets: map("npm", "/x/npmrc"),
            ssh: true,
            no_cache: true,
            pull: true,
            squash: true,
            proxies: vec!["http_proxy"],
        }
    }

    fn line(step: &Step) -> String {
        format!("{} {}", step.program, step.words.join(" "))
    }

    #[test]
    fn each_builder_is_told_in_its_own_words() {
        let rest = "--build-arg http_proxy --build-arg A=b c --label l=v --secret id=npm,src=/x/npmrc --ssh default \
                    --tag r/f:1 .";
        let docker = build(Engine::Docker, &recipe()).unwrap();
        assert_eq!(line(&docker), format!("docker build --no-cache --squash --pull {rest}"));
        let buildah = build(Engine::Buildah, &recipe()).unwrap();
        assert_eq!(
            line(&buildah),
            format!(
                "buildah build --format docker --layers --no-cache --squash --pull-always {rest}"
            )
        );
        assert!(build(Engine::Buildx, &recipe()).unwrap_err().contains("--squash"));
        let buildx = Recipe { squash: false, ..recipe() };
        let buildx = build(Engine::Buildx, &buildx).unwrap();
        let start = "docker buildx build --progress=plain --load --no-cache --pull";
        assert_eq!(line(&buildx), format!("{start} {rest}"));
        assert_eq!(buildx.shown(), "docker buildx build");
        assert_eq!(buildah.shown(), "buildah build");
    }

    #[test]
    fn a_plain_build_says_no_more_than_it_must() {
        let plain = Recipe { image: "f:1".into(), ..Recipe::default() };
        let podman = build(Engine::Podman, &plain).unwrap();
        assert_eq!(line(&podman), "podman build --format docker --layers --tag f:1 .");
    }

    #[test]
    fn a_secret_cannot_become_two() {
        let mut bad = recipe();
        bad.secrets = Map::from([("npm".to_owned(), "/x,type=env".to_owned())]);
        assert!(build(Engine::Docker, &bad).unwrap_err().contains("comma"));
    }

    #[test]
    fn publishing_for_one_platform_and_for_several() {
        let plain = Recipe { image: "r/f:1".into(), ..Recipe::default() };
        let to = |platforms: &[&str]| Publishing {
            platforms: platforms.iter().map(|one| (*one).to_owned()).collect(),
            more_images: vec!["r/f:x".into()],
        };
        let lines = |engine, platforms: &[&str]| -> Vec<String> {
            publish(engine, &plain, &to(platforms)).unwrap().iter().map(line).collect()
        };
        let both = &["linux/amd64", "linux/arm64"];
        assert_eq!(
            lines(Engine::Buildx, both),
            [
                "docker buildx build --progress=plain --builder=multiarch --platform=linux/amd64,linux/arm64 \
              --output=type=registry,push=true --tag r/f:1 --tag r/f:x ."
            ]
        );
        assert_eq!(
            lines(Engine::Docker, &["linux/amd64"]),
            [
                "docker build --platform=linux/amd64 --tag r/f:1 .",
                "docker tag r/f:1 r/f:x",
                "docker push r/f:1",
                "docker push r/f:x"
            ]
        );
        assert_eq!(
            lines(Engine::Buildah, both),
            [
                "buildah build --format docker --layers --platform=linux/amd64,linux/arm64 --manifest r/f:1 .",
                "buildah manifest push --all r/f:1 docker://r/f:1",
                "buildah manifest push --all r/f:1 docker://r/f:x"
            ]
        );
        let said = publish(Engine::Docker, &plain, &to(both)).unwrap_err();
        assert!(said.contains("one platform at a time"), "{said}");
    }

    #[test]
    fn archives() {
        let path = Path::new("/t/i.tar");
        assert_eq!(line(&save(Engine::Docker, "f:1", path)), "docker save --output /t/i.tar f:1");
        assert_eq!(
            line(&save(Engine::Buildah, "f:1", path)),
            "buildah push --quiet f:1 docker-archive:/t/i.tar:f:1"
        );
    }
}
