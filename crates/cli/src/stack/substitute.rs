//! `${VARIABLE}` in a stack file, before it is read as YAML (contract section 12.1).
//!
//! `${V}`, `${V:-default}` (an empty variable takes the default too), `${V:=default}`, `${V=default}`,
//! `${#V}`, `${V^}`, `${V^^}`, `${V,}`, `${V,,}`; defaults may hold further ones. `$$` is a dollar sign;
//! `\/` and `\\` lose their backslash, as in the clients that people come from. A `$` alone is nothing
//! special.

use super::Fault;

/// How deep defaults may hold further substitutions.
const DEPTH_MAX: usize = 16;

/// The text with every substitution done.
///
/// # Errors
/// Every form that is not understood, with its line.
pub fn substitute(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<Fault>> {
    let mut reader = Reader { text, at: 0, variable, faults: Vec::new() };
    let out = reader.until_end();
    if reader.faults.is_empty() { Ok(out) } else { Err(reader.faults) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    variable: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn until_end(&mut self) -> String {
        let mut out = String::with_capacity(self.text.len());
        while let Some(next) = self.peek() {
            let rest = self.rest();
            if rest.starts_with("$$") || rest.starts_with("\\/") || rest.starts_with("\\\\") {
                // Both characters are ASCII, and the second is the one meant.
                out.push_str(&rest[1..2]);
                self.at += 2;
            } else if rest.starts_with("${") {
                let start = self.at;
                match self.substitution(0) {
                    Some(value) => out.push_str(&value),
                    None => self.skip_fault(start),
                }
            } else {
                out.push(next);
                self.at += next.len_utf8();
            }
        }
        out
    }

    /// Reads one substitution that begins at `${`; `None` if it is not understood.
    fn substitution(&mut self, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.at += 2;
        if self.take("#") {
            let value = self.value()?;
            return self.take("}").then(|| value.chars().count().to_string());
        }
        let value = self.value()?;
        if self.take("}") {
            return Some(value);
        }
        if self.take(":-") || self.take(":=") || self.take("=") {
            let default = self.default(depth)?;
            return Some(if value.is_empty() { default } else { value });
        }
        let cased = if self.take("^^") {
            value.to_uppercase()
        } else if self.take(",,") {
            value.to_lowercase()
        } else if self.take("^") {
            first_char(&value, |c| c.to_uppercase().to_string())
        } else if self.take(",") {
            first_char(&value, |c| c.to_lowercase().to_string())
        } else {
            return None;
        };
        self.take("}").then_some(cased)
    }

    /// Reads a default up to its closing brace.
    fn default(&mut self, depth: usize) -> Option<String> {
        let mut out = String::new();
        loop {
            if self.take("}") {
                return Some(out);
            }
            if self.rest().starts_with("${") {
                out.push_str(&self.substitution(depth + 1)?);
                continue;
            }
            let next = self.peek().filter(|c| *c != '\n')?;
            out.push(next);
            self.at += next.len_utf8();
        }
    }

    /// Reads a name and looks its variable up.
    fn value(&mut self) -> Option<String> {
        let rest = self.rest();
        let allowed = |c: char| c.is_alphanumeric() || c == '_';
        let end = rest.find(|c: char| !allowed(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() {
            return None;
        }
        self.at += end;
        Some((self.variable)(name).unwrap_or_default())
    }

    fn skip_fault(&mut self, start: usize) {
        let line = 1 + self.text[..start].matches('\n').count() as u64;
        let shown = self.text[start..].lines().next().unwrap_or_default();
        let shown: String =
            shown.split_inclusive('}').next().unwrap_or(shown).chars().take(60).collect();
        self.faults.push(Fault::at(
            line,
            format!(
                "{shown:?} is no substitution: write ${{NAME}} or ${{NAME:-default}}, or $${{ for a \
                 dollar sign and a brace"
            ),
        ));
        self.at = self.at.max(start + 2);
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.rest().starts_with(token);
        self.at += if taken { token.len() } else { 0 };
        taken
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
}

fn first_char(text: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| change(first) + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "A" => Some("alpha".into()),
            "EMPTY" => Some(String::new()),
            "B_2" => Some("bEta".into()),
            _ => None,
        }
    }

    fn done(text: &str) -> String {
        substitute(text, &variable).unwrap()
    }

    #[test]
    fn forms() {
        for (text, expected) in [
            ("plain $A $ 100% {x}", "plain $A $ 100% {x}"),
            ("${A}/${A}", "alpha/alpha"),
            ("<${NONE}>", "<>"),
            ("${A:-d} ${EMPTY:-d} ${NONE:-d e:f}", "alpha d d e:f"),
            ("${NONE:=x} ${NONE=y}", "x y"),
            ("${NONE:-${EMPTY:-<${A}>}}", "<alpha>"),
            ("${NONE:-}", ""),
            ("${#A}", "5"),
            ("${A^} ${A^^} ${B_2,,}", "Alpha ALPHA beta"),
            ("$${A} $$", "${A} $"),
            (r"a\/b \\ \n", r"a/b \ \n"),
            ("ä${A}ö", "äalphaö"),
        ] {
            assert_eq!(done(text), expected, "{text}");
        }
    }

    #[test]
    fn every_bad_form_is_reported_with_its_line() {
        let faults = substitute("a: ${A\nb: ${}\nc: ${A:1:2}\n${A}\n", &variable).unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(3)]);
        assert!(faults[2].text.contains("${A:1:2}"), "{}", faults[2].text);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "${N:-".repeat(10_000) + &"}".repeat(10_000);
        assert!(substitute(&deep, &variable).is_err());
    }
}
