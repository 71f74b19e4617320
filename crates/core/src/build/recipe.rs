//! The section `pinnace:` of a `template.yml`, read into what a build does.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{
    paths::{check_in_context, check_in_image, is_at_or_below},
    request::is_variable,
};
use crate::{
    image::{self, check_form},
    limits::{BUILD_PATHS_MAX, ENVIRONMENT_BYTES_MAX},
};

/// Where the source lies in the image if the template does not say.
const WORKDIR: &str = "/home/app";

/// A `template.yml` as it is written, as far as builds go by it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Template {
    #[serde(default)]
    fprocess: Option<String>,
    #[serde(default)]
    pinnace: Option<Written>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    base: String,
    #[serde(default)]
    install: Option<WrittenInstall>,
    #[serde(default)]
    compile: Option<WrittenCompile>,
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    #[serde(default)]
    workdir: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    serves_http: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInstall {
    files: Vec<String>,
    run: Vec<String>,
    keep: Vec<String>,
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    in_image: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCompile {
    run: Vec<String>,
    keep: Vec<String>,
    #[serde(default)]
    base: Option<String>,
}

/// A value of a variable, which may be written as a number or a boolean.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// What a build does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What the image stands on.
    pub base: Base,
    /// Makes the layer of dependencies.
    pub install: Option<Step>,
    /// Makes the layer of code; without it, the context is that layer.
    pub compile: Option<Step>,
    /// Variables of the image, and of the commands that make it.
    pub env: BTreeMap<String, String>,
    /// Where the context lies in the image.
    pub workdir: String,
    /// What the image runs.
    pub command: Vec<String>,
    /// What the watchdog is told to run: the template's own words, else those of `command`.
    pub fprocess: String,
    /// Whether the command serves HTTP by itself.
    pub serves_http: bool,
}

/// One command of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `install` or `compile`.
    pub name: &'static str,
    /// What it runs on.
    pub base: Base,
    /// Files and directories of the context that it sees; `None` for all.
    pub files: Option<Vec<String>>,
    /// Program and arguments.
    pub run: Vec<String>,
    /// What of the result becomes the layer, sorted, none below another.
    pub keep: Vec<String>,
    /// Whether the layer is part of the image, and not only there for the next step.
    pub in_image: bool,
}

/// What stands under everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The host's own programs.
    Host,
    /// Nothing.
    Scratch,
    /// An image.
    Image(String),
}

/// All that is wrong with a recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Scratch => f.write_str("scratch"),
            Self::Image(reference) => f.write_str(reference),
        }
    }
}

impl Base {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "scratch" => Ok(Self::Scratch),
            text if image::is_host(text) => Ok(Self::Host),
            text => match check_form(text) {
                Ok(()) => Ok(Self::Image(text.to_owned())),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

impl Template {
    /// What it says to do.
    ///
    /// # Errors
    /// It says nothing of a native build, or something that cannot be done.
    pub fn recipe(self) -> Result<Recipe, Faults> {
        let Self { fprocess, pinnace } = self;
        let Some(written) = pinnace else {
            let text = "it has no section `pinnace`, so Pinnace cannot build it without Docker: choose a template \
                        that has one, or build its Dockerfile with `docker`, `buildah` or `podman`";
            return Err(Faults(vec![text.to_owned()]));
        };
        let mut reading = Reading::default();
        let recipe = reading.recipe(written, fprocess.unwrap_or_default());
        match recipe {
            Some(recipe) if reading.faults.0.is_empty() => Ok(recipe),
            _ => Err(reading.faults),
        }
    }
}

/// Gathers what is wrong.
#[derive(Default)]
struct Reading {
    faults: Faults,
}

impl Reading {
    fn recipe(&mut self, written: Written, fprocess: String) -> Option<Recipe> {
        let base = self.base("base", &written.base)?;
        let workdir = written.workdir.unwrap_or_else(|| WORKDIR.to_owned());
        self.place("workdir", &workdir, &base);
        let install = written.install.and_then(|step| {
            let files = self.files(step.files);
            let made =
                self.step("install", (step.run, step.keep, step.base), Some(files), &base)?;
            let in_image = step.in_image.unwrap_or(made.base == base);
            Some(Step { in_image, ..made })
        });
        let compile = written
            .compile
            .and_then(|step| self.step("compile", (step.run, step.keep, step.base), None, &base));
        let fprocess = self.fprocess(&written.command, fprocess, written.serves_http);
        let command = if written.command.is_empty() {
            fprocess.split_whitespace().map(str::to_owned).collect()
        } else {
            written.command
        };
        if command.iter().any(|word| word.contains('\0')) {
            self.say("`command` has a zero byte in it".to_owned());
        }
        Some(Recipe {
            env: self.env(&written.env),
            base,
            install,
            compile,
            workdir,
            command,
            fprocess,
            serves_http: written.serves_http,
        })
    }

    fn say(&mut self, text: String) {
        self.faults.0.push(text);
    }

    fn base(&mut self, key: &str, text: &str) -> Option<Base> {
        match Base::read(text) {
            Ok(base) => Some(base),
            Err(error) => {
                self.say(format!("`{key}`: {error}; or `host`, or `scratch`"));
                None
            }
        }
    }

    fn step(
        &mut self,
        name: &'static str,
        (run, keep, base): (Vec<String>, Vec<String>, Option<String>),
        files: Option<Vec<String>>,
        image_base: &Base,
    ) -> Option<Step> {
        let base = match base {
            Some(text) => self.base(&format!("{name}.base"), &text)?,
            None => image_base.clone(),
        };
        if base == Base::Scratch {
            self.say(format!(
                "`{name}` has nothing to run on: `scratch` has no programs, so give `{name}.base`, `host` for \
                 instance"
            ));
        }
        if run.first().is_none_or(String::is_empty) {
            self.say(format!("`{name}.run` has no command"));
        }
        if run.iter().any(|word| word.contains('\0')) {
            self.say(format!("`{name}.run` has a zero byte in it"));
        }
        if keep.is_empty() || keep.len() > BUILD_PATHS_MAX {
            self.say(format!(
                "`{name}.keep` names {} paths; 1 to {BUILD_PATHS_MAX} are possible",
                keep.len()
            ));
        }
        for path in &keep {
            self.place(&format!("{name}.keep"), path, image_base);
        }
        Some(Step { name, base, files, run, keep: outermost(keep), in_image: true })
    }

    /// A path of the image that is to be filled.
    fn place(&mut self, key: &str, path: &str, base: &Base) {
        let found = check_in_image(path).and_then(|()| {
            if *base == Base::Host && is_at_or_below(path, "/usr") {
                return Err("is the host's own on base `host`; take a path outside of /usr");
            }
            Ok(())
        });
        if let Err(why) = found {
            self.say(format!("`{key}`: {path:?} {why}"));
        }
    }

    fn files(&mut self, files: Vec<String>) -> Vec<String> {
        if files.len() > BUILD_PATHS_MAX {
            self.say(format!(
                "`install.files` names {} paths; {BUILD_PATHS_MAX} are possible",
                files.len()
            ));
        }
        for path in &files {
            if let Err(why) = check_in_context(path) {
                self.say(format!("`install.files`: {path:?} {why}"));
            }
        }
        outermost(files)
    }

    fn env(&mut self, env: &BTreeMap<String, Scalar>) -> BTreeMap<String, String> {
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        if let Some((name, _)) = env.iter().find(|(name, value)| !is_variable(name, value)) {
            self.say(format!("`env`: {name:?} or its value is no variable"));
        }
        let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ENVIRONMENT_BYTES_MAX {
            self.say(format!(
                "`env` has {bytes} bytes, at most {ENVIRONMENT_BYTES_MAX} (ENVIRONMENT_BYTES_MAX)"
            ));
        }
        env
    }

    /// What the watchdog runs. It takes its command apart at spaces.
    fn fprocess(&mut self, command: &[String], fprocess: String, serves_http: bool) -> String {
        if command.is_empty() && fprocess.trim().is_empty() {
            self.say(
                "there is nothing to run: give `command`, or `fprocess` beside `pinnace`"
                    .to_owned(),
            );
        }
        if command.is_empty() || serves_http {
            return fprocess;
        }
        if let Some(word) =
            command.iter().find(|word| word.is_empty() || word.contains(char::is_whitespace))
        {
            self.say(format!(
                "`command`: {word:?} is empty or has a space in it, and a watchdog takes its command apart at \
                 spaces: put it into a script"
            ));
        }
        command.join(" ")
    }
}

/// Paths sorted, without those below another.
fn outermost(mut paths: Vec<String>) -> Vec<String> {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|above| above != path && is_at_or_below(path, above)));
    paths
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(pinnace: serde_json::Value) -> Result<Recipe, String> {
        let mut template = json!({ "language": "x", "fprocess": "python3 index.py" });
        template["pinnace"] = pinnace;
        let template: Template = serde_json::from_value(template).map_err(|e| e.to_string())?;
        template.recipe().map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_template_is_read() {
        let recipe = read(json!({
            "base": "host",
            "install": {
                "files": ["function/requirements.txt"],
                "run": ["sh", "-c", "pip"],
                "keep": ["/home/app/python/x", "/home/app/python", "/home/app/pythons"],
            },
            "compile": { "run": ["make"], "keep": ["/home/app/bin"], "base": "tools:1" },
            "env": { "A": "1", "B": 2, "C": true },
            "command": ["python3", "main.py"],
        }))
        .unwrap();
        let install = recipe.install.unwrap();
        assert_eq!(install.base, Base::Host);
        assert_eq!(install.files.unwrap(), ["function/requirements.txt"]);
        assert_eq!(install.keep, ["/home/app/python", "/home/app/pythons"]);
        let compile = recipe.compile.unwrap();
        assert_eq!((compile.base, compile.files), (Base::Image("tools:1".into()), None));
        assert_eq!(recipe.env["B"], "2");
        assert_eq!(recipe.env["C"], "true");
        assert_eq!(
            (recipe.workdir.as_str(), recipe.fprocess.as_str()),
            ("/home/app", "python3 main.py")
        );
    }

    #[test]
    fn what_is_installed_for_the_compiler_alone_stays_out() {
        let in_image = |install_base: Option<&str>, in_image: Option<bool>| {
            let mut install =
                json!({ "files": ["go.mod"], "run": ["x"], "keep": ["/home/app/go"] });
            install["base"] = install_base.map_or(json!("host"), Into::into);
            install["in_image"] = in_image.into();
            let base = if install_base.is_some() { "scratch" } else { "host" };
            read(json!({ "base": base, "install": install })).unwrap().install.unwrap().in_image
        };
        assert!(in_image(None, None));
        assert!(!in_image(None, Some(false)));
        assert!(!in_image(Some("host"), None));
        assert!(in_image(Some("host"), Some(true)));
    }

    #[test]
    fn fprocess_stands_in_for_a_command() {
        let recipe = read(json!({ "base": "scratch" })).unwrap();
        assert_eq!(recipe.command, ["python3", "index.py"]);
        assert_eq!(recipe.fprocess, "python3 index.py");
        let recipe =
            read(json!({ "base": "host", "command": ["a b"], "serves_http": true })).unwrap();
        assert_eq!(recipe.command, ["a b"]);
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let step = |keep: &str| json!({ "run": ["x"], "keep": [keep] });
        for (pinnace, word) in [
            (json!({ "bass": "host" }), "unknown field `bass`"),
            (json!({ "base": "host", "compile": { "runs": [] } }), "unknown field `runs`"),
            (json!({ "base": "no image" }), "`base`: \"no image\" is no image reference"),
            (
                json!({ "base": "scratch", "compile": step("/a") }),
                "`compile` has nothing to run on",
            ),
            (json!({ "base": "host", "compile": step("a") }), "\"a\" is not absolute"),
            (json!({ "base": "host", "compile": step("/a/../b") }), "has `.` or `..` in it"),
            (json!({ "base": "host", "compile": step("/") }), "names nothing"),
            (
                json!({ "base": "host", "compile": step("/proc/x") }),
                "mounted anew in every sandbox",
            ),
            (json!({ "base": "host", "compile": step("/usr/x") }), "outside of /usr"),
            (json!({ "base": "host", "compile": step("/a/.wh.b") }), "begins with `.wh.`"),
            (
                json!({ "base": "host", "compile": { "run": [], "keep": [] } }),
                "has no command; `compile.keep`",
            ),
            (json!({ "base": "host", "workdir": "/tmp" }), "`workdir`: \"/tmp\" is mounted"),
            (
                json!({ "base": "host", "install": { "files": ["../x"], "run": ["x"], "keep": ["/a"] } }),
                "`install.files`: \"../x\" has `.` or `..`",
            ),
            (json!({ "base": "host", "env": { "A=B": 1 } }), "`env`: \"A=B\""),
            (
                json!({ "base": "host", "command": ["sh", "-c", "a b"] }),
                "takes its command apart at spaces",
            ),
        ] {
            let said = read(pinnace.clone()).unwrap_err();
            assert!(said.contains(word), "{pinnace}: {said}");
        }
        let said = Template::default().recipe().unwrap_err().to_string();
        assert!(said.contains("no section `pinnace`"), "{said}");
        let nothing: Template =
            serde_json::from_value(json!({ "pinnace": { "base": "host" } })).unwrap();
        assert!(nothing.recipe().unwrap_err().to_string().contains("nothing to run"));
    }
}
