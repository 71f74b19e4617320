//! Rust text taken apart into code and comments, so that a rule on words is not broken by a sentence
//! about it, nor by a string.

use std::{iter::Peekable, str::Chars};

/// Code and comments of a file, line for line: what belongs to the other is missing, strings are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The code.
    pub code: String,
    /// The comments.
    pub comments: String,
}

impl Source {
    /// Takes a text apart. It need not be valid Rust.
    pub fn read(text: &str) -> Self {
        let mut source = Self::default();
        let mut rest = text.chars().peekable();
        let mut before = ' ';
        while let Some(this) = rest.next() {
            match (this, rest.peek()) {
                ('/', Some('/')) => source.line_comment(&mut rest),
                ('/', Some('*')) => source.block_comment(&mut rest),
                ('"', _) => source.string(&mut rest),
                ('r', Some('"' | '#')) if !is_word(before) => source.raw_string(&mut rest),
                ('\'', Some(_)) => source.quote(&mut rest),
                _ => source.push(this),
            }
            before = this;
        }
        source
    }

    /// Lines of code with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines of comments with their numbers, from 1.
    pub fn comment_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.comments.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    fn push(&mut self, code: char) {
        self.code.push(code);
        if code == '\n' {
            self.comments.push(code);
        }
    }

    fn skip(&mut self, skipped: char) {
        if skipped == '\n' {
            self.push(skipped);
        }
    }

    fn line_comment(&mut self, rest: &mut Peekable<Chars<'_>>) {
        while let Some(this) = rest.next_if(|this| *this != '\n') {
            self.comments.push(this);
        }
    }

    fn block_comment(&mut self, rest: &mut Peekable<Chars<'_>>) {
        let (mut depth, mut before) = (1, ' ');
        for this in rest.by_ref().skip(1) {
            match (before, this) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            // "*/*" closes once and opens nothing.
            before = if (before, this) == ('*', '/') { ' ' } else { this };
            if this == '\n' {
                self.code.push(this);
            }
            self.comments.push(this);
        }
    }

    fn string(&mut self, rest: &mut Peekable<Chars<'_>>) {
        self.code.push_str("\"\"");
        while let Some(this) = rest.next() {
            match this {
                '"' => break,
                '\\' => rest.next().into_iter().for_each(|escaped| self.skip(escaped)),
                _ => self.skip(this),
            }
        }
    }

    fn raw_string(&mut self, rest: &mut Peekable<Chars<'_>>) {
        let mut hashes = 0;
        while rest.next_if_eq(&'#').is_some() {
            hashes += 1;
        }
        if rest.next_if_eq(&'"').is_none() {
            // A raw identifier, such as r#type.
            return self.code.push_str("r#");
        }
        self.code.push_str("\"\"");
        let mut closing = None;
        for this in rest.by_ref() {
            self.skip(this);
            closing = match (this, closing) {
                ('"', _) => Some(0),
                ('#', Some(count)) => Some(count + 1),
                _ => None,
            };
            if closing == Some(hashes) {
                break;
            }
        }
    }

    /// A character or a lifetime.
    fn quote(&mut self, rest: &mut Peekable<Chars<'_>>) {
        self.code.push('\'');
        let ahead: Vec<char> = rest.clone().take(2).collect();
        match ahead[..] {
            ['\\', _] => {
                rest.nth(1);
                while rest.next().is_some_and(|this| this != '\'') {}
            }
            [_, '\''] => {
                rest.nth(1);
            }
            _ => return,
        }
        self.code.push('\'');
    }
}

/// Whether a character may stand in a name.
pub fn is_word(this: char) -> bool {
    this.is_alphanumeric() || this == '_'
}

/// The names and keywords of a line of code.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|this| !is_word(this)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::read(text).code
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        assert_eq!(code("a // b\nc"), "a \nc");
        assert_eq!(code("a /* b /* c */ d */ e"), "a  e");
        assert_eq!(code("a /* b\n c */ d"), "a \n d");
        assert_eq!(code(r#"f("unsafe \" // x", y)"#), r#"f("", y)"#);
        assert_eq!(code("f(r#\"a \" b\"#, c)"), "f(\"\", c)");
        assert_eq!(code("let r#type = br\"x\";"), "let r#type = br\"\";");
        assert_eq!(Source::read("a // b\n//! c").comments, "/ b\n/! c");
    }

    #[test]
    fn characters_are_not_mistaken_for_lifetimes() {
        assert_eq!(code("x('\"', b'\\'', 'a')"), "x('', b'', '')");
        assert_eq!(code("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert_eq!(code("'\\u{1F600}' \"x\""), "'' \"\"");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = Source::read("one\n\"two\nthree\"\n// four\nfive");
        let five = source.lines().find(|(_, line)| *line == "five");
        assert_eq!(five.map(|(number, _)| number), Some(5));
        assert_eq!(source.comment_lines().nth(3), Some((4, "/ four")));
    }
}
