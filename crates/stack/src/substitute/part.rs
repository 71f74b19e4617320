//! What the forms of a substitution make of a variable's value.

use regex::Regex;

/// The value in another case: `^` and `,` its first letter, `^^` and `,,` all of it.
pub fn cased(value: &str, form: &str) -> String {
    match form {
        "^^" => value.to_uppercase(),
        ",," => value.to_lowercase(),
        "^" => first_char(value, |c| c.to_uppercase().to_string()),
        _ => first_char(value, |c| c.to_lowercase().to_string()),
    }
}

fn first_char(text: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| change(first) + chars.as_str()).unwrap_or_default()
}

/// A part of the value. What is no number leaves it whole, as in a shell.
pub fn cut(value: &str, begin: &str, length: Option<&str>) -> String {
    let number = |text: &str| text.parse::<i64>().ok();
    let count = i64::try_from(value.chars().count()).unwrap_or(i64::MAX);
    let Some(begin) = number(begin) else { return value.to_owned() };
    let length = match length.map(number) {
        None => i64::MAX,
        Some(Some(length)) => length,
        Some(None) => return value.to_owned(),
    };
    let begin = if begin < 0 { count.saturating_add(begin).max(0) } else { begin };
    let index = |number: i64| usize::try_from(number.max(0)).unwrap_or(usize::MAX);
    value.chars().skip(index(begin)).take(index(length)).collect()
}

/// The value without a beginning (`#`, `##`) or an end (`%`, `%%`) that a pattern matches: the shortest
/// that is not empty, or the longest.
pub fn trimmed(value: &str, form: &str, pattern: &str) -> String {
    let Some(pattern) = regex_of(pattern) else { return value.to_owned() };
    let is_longest = form.len() == 2;
    let from_start = form.starts_with('#');
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
    cuts.push(value.len());
    // The shortest piece first, whichever side it is on.
    if !from_start {
        cuts.reverse();
    }
    let pieces = cuts.iter().skip(1).map(|at| value.split_at(*at));
    let pieces = pieces.map(|(left, right)| if from_start { (left, right) } else { (right, left) });
    let mut fitting = pieces.filter(|(piece, _)| pattern.is_match(piece)).map(|(_, rest)| rest);
    let found = if is_longest { fitting.next_back() } else { fitting.next() };
    found.unwrap_or(value).to_owned()
}

/// A shell pattern as a regular expression for the whole of a text; `None` if it is none.
fn regex_of(pattern: &str) -> Option<Regex> {
    let mut out = String::from(r"(?s)\A");
    let mut chars = pattern.chars();
    while let Some(next) = chars.next() {
        match next {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '\\' => out.push_str(&regex::escape(chars.next()?.encode_utf8(&mut [0; 4]))),
            '[' => out.push_str(&class_of(&mut chars)?),
            other => out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&(out + r"\z")).ok()
}

/// The rest of a class of characters, after its bracket.
fn class_of(chars: &mut std::str::Chars<'_>) -> Option<String> {
    let mut out = String::from("[");
    let mut is_first = true;
    loop {
        match chars.next()? {
            ']' if !is_first => return Some(out + "]"),
            '^' if is_first => {
                out.push('^');
                continue;
            }
            '-' => out.push('-'),
            '\\' => out.push_str(&format!("\\x{{{:x}}}", u32::from(chars.next()?))),
            other => out.push_str(&format!("\\x{{{:x}}}", u32::from(other))),
        }
        is_first = false;
    }
}

/// The value with a text replaced: the first (`/`), each (`//`), a beginning (`/#`) or an end (`/%`).
pub fn replaced(value: &str, form: &str, text: &str, by: &str) -> String {
    match form {
        "//" => value.replace(text, by),
        "/#" => value.strip_prefix(text).map_or(value.to_owned(), |rest| format!("{by}{rest}")),
        "/%" => value.strip_suffix(text).map_or(value.to_owned(), |rest| format!("{rest}{by}")),
        _ => value.replacen(text, by, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_many_stars_end_soon() {
        let value = "a".repeat(5000);
        assert_eq!(trimmed(&value, "##", "*a*a*a*b"), value);
    }

    #[test]
    fn classes_of_characters() {
        assert_eq!(trimmed("x1y", "#", "[^0-9]"), "1y");
        assert_eq!(trimmed("]x", "#", "[]]"), "x");
        assert_eq!(trimmed("a-b", "%", "[-b]"), "a-");
        assert_eq!(trimmed("abc", "#", "[a"), "abc");
        assert_eq!(trimmed("*b", "#", r"\*"), "b");
    }
}
