//! A new function in a stack file. The file is somebody's own: it is added to as text, so that comments and the order
//! of things stay, and what comes of it is read before it is written.

use pinnace_core::{quantity, wire::Resources};
use pinnace_stack::{Kind, Node, StackFile, parse};

/// A function to be written down.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The template.
    pub lang: String,
    /// The folder of its source.
    pub handler: String,
    /// Its image.
    pub image: String,
    /// Resources asked for.
    pub requests: Resources,
    /// Upper bounds of resources.
    pub limits: Resources,
}

impl Entry {
    /// Its lines, so far indented.
    fn text(&self, indent: &str) -> String {
        let Self { name, lang, handler, image, .. } = self;
        let mut text = format!(
            "{indent}{name}:\n{indent}  lang: {lang}\n{indent}  handler: {handler}\n{indent}  image: {image}\n"
        );
        for (title, resources) in [("requests", &self.requests), ("limits", &self.limits)] {
            let lines = [("cpu", &resources.cpu), ("memory", &resources.memory)];
            let lines: Vec<_> =
                lines.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
            if !lines.is_empty() {
                text.push_str(&format!("{indent}  {title}:\n"));
            }
            for (key, value) in lines {
                text.push_str(&format!("{indent}    {key}: {value}\n"));
            }
        }
        text
    }

    /// A new stack file with this function alone.
    pub fn new_file(&self, gateway: &str) -> String {
        let entry = self.text("  ");
        format!(
            "version: 1.0\nprovider:\n  name: openfaas\n  gateway: {gateway}\nfunctions:\n{entry}\n"
        )
    }

    /// The text of a stack file with this function added to it.
    ///
    /// # Errors
    /// It is no stack file, has a function of that name, or is written in a way that text cannot be added to.
    pub fn added_to(&self, text: &str) -> Result<String, String> {
        let before = functions_of(text)?;
        if before.contains(&self.name) {
            return Err(format!("it has a function {} already", self.name));
        }
        let added = self.inserted(text);
        let after = added.as_deref().map(functions_of).and_then(Result::ok).unwrap_or_default();
        let expected: Vec<_> = before.iter().chain([&self.name]).cloned().collect();
        if after == expected {
            return Ok(added.unwrap_or_default());
        }
        Err(format!(
            "its functions are written in a way that nothing can be added to; add this yourself:\n{}",
            self.text("  ")
        ))
    }

    /// The text with the entry behind the last function.
    fn inserted(&self, text: &str) -> Option<String> {
        let document = Node::parse(text).ok()?;
        let Kind::Map(entries) = document.kind else { return None };
        let at = entries.iter().position(|(key, _)| key.text() == Some("functions"))?;
        let Kind::Map(functions) = &entries[at].1.kind else { return None };
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let first = lines.get(usize::try_from(functions.first()?.0.line).ok()? - 1)?;
        let indent = &first[..first.len() - first.trim_start().len()];
        let next = entries.get(at + 1).map(|(key, _)| key.line);
        let mut end = match next {
            Some(line) => usize::try_from(line).ok()? - 1,
            None => lines.len(),
        };
        // Comments and blank lines before what follows are about that.
        let is_apart = |line: &str| line.trim().is_empty() || line.starts_with('#');
        while end > 0 && is_apart(lines[end - 1]) {
            end -= 1;
        }
        let mut added = lines[..end].concat();
        if !added.ends_with('\n') {
            added.push('\n');
        }
        added.push('\n');
        added.push_str(&self.text(indent));
        added.push_str(&lines[end..].concat());
        Some(added)
    }
}

fn functions_of(text: &str) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    // Variables are none of an addition's business.
    let document = parse(text, None, &mut faults);
    let file = document.map(|document| StackFile::read(&document, &mut faults));
    match (file, faults.first()) {
        (Some(file), None) => Ok(file.functions.into_iter().map(|f| f.name).collect()),
        (_, Some(fault)) => Err(fault.to_string()),
        (None, None) => Err("it is empty".to_owned()),
    }
}

/// Whether a text may stand in the file as it is.
///
/// # Errors
/// It would mean something else there.
pub fn check_plain(what: &str, text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+~%=${},[]".contains(c);
    let means = parse(text, None, &mut Vec::new());
    let same = !text.is_empty() && means.is_some_and(|node| node.text() == Some(text));
    if same && text.chars().all(plain) {
        return Ok(());
    }
    Err(format!("{what} {text:?} has characters that cannot stand in a stack file unquoted"))
}

/// Checks an amount of memory or processor time.
///
/// # Errors
/// It is none.
pub fn check_amount(flag: &str, text: &str) -> Result<(), String> {
    let fits = if flag.contains("cpu") {
        quantity::parse_millicores(text).is_some()
    } else {
        quantity::parse_bytes(text).is_some()
    };
    if fits { Ok(()) } else { Err(format!("{flag} {text:?} is no amount such as 128Mi or 100m")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            name: "new".into(),
            lang: "python".into(),
            handler: "./new".into(),
            image: "new:latest".into(),
            ..Entry::default()
        }
    }

    #[test]
    fn a_new_file_is_as_faas_cli_writes_it() {
        let full = Entry {
            requests: Resources {
                cpu: Some("100m".into()),
                memory: Some("5Mi".into()),
                ..Resources::default()
            },
            limits: Resources { memory: Some("10Mi".into()), ..Resources::default() },
            ..entry()
        };
        assert_eq!(
            full.new_file("http://127.0.0.1:8080"),
            "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://127.0.0.1:8080\nfunctions:\n  new:\n    \
             lang: python\n    handler: ./new\n    image: new:latest\n    requests:\n      cpu: 100m\n      \
             memory: 5Mi\n    limits:\n      memory: 10Mi\n\n"
        );
    }

    #[test]
    fn everything_else_stays_where_it_is() {
        let text = "# ours\nprovider: {name: openfaas}\nfunctions:\n    a:   # first\n        image: ${A:-a}\n\n\
                    # of all\nconfiguration:\n    copy: [x]\n";
        let added = entry().added_to(text).unwrap();
        assert_eq!(
            added,
            "# ours\nprovider: {name: openfaas}\nfunctions:\n    a:   # first\n        image: ${A:-a}\n\n    \
             new:\n      lang: python\n      handler: ./new\n      image: new:latest\n\n# of all\nconfiguration:\n    \
             copy: [x]\n"
        );
    }

    #[test]
    fn a_file_without_a_last_line_feed() {
        let text = "provider:\n  name: openfaas\nfunctions:\n  a:\n    image: a";
        let added = entry().added_to(text).unwrap();
        assert!(added.contains("    image: a\n\n  new:\n    lang: python\n"), "{added}");
    }

    #[test]
    fn what_cannot_be_added_to_is_left_alone() {
        for (text, why) in [
            ("provider: {name: openfaas}\nfunctions: {a: {image: a}}\n", "add this yourself"),
            (
                "provider: {name: openfaas}\nfunctions:\n  new:\n    image: a\n",
                "has a function new",
            ),
            ("packages: [.]\n", "provider is missing"),
            ("", "provider is missing"),
        ] {
            let said = entry().added_to(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn texts_that_would_mean_something_else() {
        for text in ["http://127.0.0.1:8080", "ghcr.io/me/x:1", "./a b".trim_end_matches(" b")] {
            assert_eq!(check_plain("it", text), Ok(()), "{text}");
        }
        for text in ["a: b", "a #b", "", "[a]", "a\nb", "'a'", "*a", "{a}"] {
            assert!(check_plain("it", text).is_err(), "{text:?}");
        }
        assert!(check_amount("--cpu-limit", "100m").is_ok());
        assert!(check_amount("--memory-limit", "100m: x").is_err());
    }
}
