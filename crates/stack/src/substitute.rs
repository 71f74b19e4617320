//! `${VARIABLE}` in a stack file, before it is read as YAML (contract section 12.1).
//!
//! - `${V}`; `${#V}`, its length in characters
//! - `${V:-word}`, `${V:=word}`, `${V=word}`: the word if the variable is absent or empty
//! - `${V^}`, `${V^^}`, `${V,}`, `${V,,}`: the first letter or all, in upper or lower case
//! - `${V:begin}`, `${V:begin:length}`: a part, in characters; a negative begin counts from the end
//! - `${V#p}`, `${V##p}`, `${V%p}`, `${V%%p}`: without the shortest or longest beginning or end that the
//!   pattern matches; in a pattern `*` is any characters, `?` one, `[a-z]` one of these
//! - `${V/text/by}`, `${V//text/by}`, `${V/#text/by}`, `${V/%text/by}`: the first, each, a beginning, an end
//!   replaced
//!
//! Words may hold further ones. `$$` is a dollar sign; `\/` and `\\` lose their backslash. A `$` alone is
//! nothing special. These are the forms of the Go library drone/envsubst, which faas-cli uses; like it, this
//! knows no `:?` and no `:+`.

mod part;

use pinnace_core::limits::STACK_FILE_BYTES_MAX;

use super::Fault;

/// How deep defaults may hold further substitutions.
const DEPTH_MAX: usize = 16;

/// How many faults of one file are told. Reached: the rest of the file is not looked at.
const FAULTS_MAX: usize = 20;

/// The text with every substitution done.
///
/// # Errors
/// Every form that is not understood, with its line.
pub fn substitute(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<Fault>> {
    let mut reader = Reader { text, at: 0, variable, faults: Vec::new(), is_too_large: false };
    let out = reader.until_end();
    if reader.faults.is_empty() { Ok(out) } else { Err(reader.faults) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    variable: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
    /// Whether something became larger than a file may be. Replacements within replacements multiply.
    is_too_large: bool,
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
                    None if self.is_too_large => {}
                    None => self.skip_fault(start),
                }
                if self.fits(out.len()).is_none() {
                    self.faults.push(Fault::new(format!(
                        "is more than {STACK_FILE_BYTES_MAX} bytes after substitution"
                    )));
                    return out;
                }
                if self.faults.len() == FAULTS_MAX {
                    return out;
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
        let expanded = if let Some(form) = self.take_any(&[":-", ":=", "=", ":?", ":+"]) {
            if form == ":?" || form == ":+" {
                return None;
            }
            let default = self.word("}", depth)?;
            if value.is_empty() { default } else { value }
        } else if let Some(form) = self.take_any(&["^^", ",,", "^", ","]) {
            part::cased(&value, form)
        } else if let Some(form) = self.take_any(&["##", "#", "%%", "%"]) {
            let pattern = self.word("}", depth).filter(|pattern| !pattern.is_empty())?;
            part::trimmed(&value, form, &pattern)
        } else if let Some(form) = self.take_any(&["//", "/#", "/%", "/"]) {
            self.replaced(&value, form, depth)?
        } else if self.take(":") {
            let begin = self.word(":}", depth)?;
            let length = if self.take(":") { Some(self.word("}", depth)?) } else { None };
            part::cut(&value, &begin, length.as_deref())
        } else {
            return None;
        };
        self.take("}").then_some(expanded)
    }

    /// Reads what is to be replaced and by what, up to the closing brace.
    fn replaced(&mut self, value: &str, form: &str, depth: usize) -> Option<String> {
        let text = self.word("/", depth).filter(|text| !text.is_empty())?;
        if !self.take("/") {
            return None;
        }
        let by = self.word("}", depth)?;
        let found = if form == "//" { value.matches(&*text).count() } else { 1 };
        self.fits(found.saturating_mul(by.len()).saturating_add(value.len()))?;
        Some(part::replaced(value, form, &text, &by))
    }

    /// Reads a word up to one of the characters that end it, which is left.
    fn word(&mut self, ends: &str, depth: usize) -> Option<String> {
        let mut out = String::new();
        loop {
            let next = self.peek().filter(|c| *c != '\n')?;
            if ends.contains(next) {
                return Some(out);
            }
            let rest = self.rest();
            if rest.starts_with("${") {
                out.push_str(&self.substitution(depth + 1)?);
                self.fits(out.len())?;
                continue;
            }
            if rest.starts_with("\\/") || rest.starts_with("\\\\") {
                out.push_str(&rest[1..2]);
                self.at += 2;
                continue;
            }
            out.push(next);
            self.at += next.len_utf8();
        }
    }

    /// Says that nothing becomes larger than a file may be, and remembers if it would.
    fn fits(&mut self, bytes: usize) -> Option<()> {
        self.is_too_large |= bytes as u64 > STACK_FILE_BYTES_MAX;
        (!self.is_too_large).then_some(())
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

    /// Takes the first of these tokens that stands here.
    fn take_any(&mut self, tokens: &[&'static str]) -> Option<&'static str> {
        tokens.iter().copied().find(|token| self.take(token))
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "A" => Some("alpha".into()),
            "EMPTY" => Some(String::new()),
            "PATHS" => Some("a/b/c".into()),
            "B_2" => Some("bEta".into()),
            _ => None,
        }
    }

    fn done(text: &str) -> String {
        substitute(text, &variable).unwrap()
    }

    #[test]
    fn what_grows_too_large_is_refused_before_it_does() {
        let lookup = |name: &str| (name == "A").then(|| "a".repeat(1000));
        let nested = format!("{}b{}", "${A//a/".repeat(9), "}".repeat(9));
        for text in [nested, "${A}".repeat(2000)] {
            let faults = substitute(&text, &lookup).unwrap_err();
            assert!(faults[0].text.contains("after substitution"), "{faults:?}");
        }
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
            ("${A:1} ${A:1:2} ${A:9}|${A:0:99}|${A:x}", "lpha lp |alpha|alpha"),
            ("${A: -2} ${A:${NONE:--2}} ${A:2:-1}|", "alpha ha |"),
            ("${A#al} ${A#*l} ${A##*a} ${A#x}", "pha pha  alpha"),
            ("${A%a} ${A%a*} ${A%%a*}| ${A%ph?} ${A%[a-z]}", "alph alph | al alph"),
            ("${PATHS##*/} ${PATHS%/*} ${PATHS%%/*}|", "c a/b a|"),
            ("${A/a/x} ${A//a/x} ${A//a/}|", "xlpha xlphx lph|"),
            ("${A/#al/x} ${A/%ha/x} ${A/#pha/x}", "xpha alpx alpha"),
            (r"${PATHS//\//-} ${A/a/\/}", "a-b-c /lpha"),
            ("${A/${B:-a}/x} ${A%${NONE:-pha}}", "xlpha al"),
            ("${NONE^}${NONE:1}${NONE#x}|", "|"),
        ] {
            assert_eq!(done(text), expected, "{text}");
        }
    }

    #[test]
    fn every_bad_form_is_reported_with_its_line() {
        let faults = substitute("a: ${A\nb: ${}\nc: ${A:?no}\n${A}\n", &variable).unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(3)]);
        assert!(faults[2].text.contains("${A:?no}"), "{}", faults[2].text);
        for bad in ["${A-x}", "${A+x}", "${A:+x}", "${A/a}", "${A//x/", "${A#}", "${A^x}"] {
            assert!(substitute(bad, &variable).is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_are_counted() {
        let faults = substitute(&"${".repeat(500_000), &variable).unwrap_err();
        assert_eq!(faults.len(), FAULTS_MAX);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "${N:-".repeat(10_000) + &"}".repeat(10_000);
        assert!(substitute(&deep, &variable).is_err());
    }
}
