//! Reads a `stack.yaml`, functions as code, and a `template.yml`, how code of a language becomes a function.
//!
//! The way of a file: substitution → YAML tree → typed data. Every fault on the way is collected and reported at
//! once. Nothing here does I/O: the text and the variables are given. It is a crate of its own, not a module of the
//! command line, so that its fuzz target does not build all that the binary embeds; nor of `pinnace-core`, since no
//! server and no watchdog reads YAML.

#![forbid(unsafe_code)]

pub mod build;
pub mod file;
pub mod node;
mod substitute;
pub mod template;

use std::fmt;

pub use self::{
    build::{Build, Configuration},
    file::{Function, StackFile},
    node::{Kind, Node},
    template::Definition,
};

/// How a variable of `${VARIABLE}` is looked up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One thing that is wrong with a stack file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, if it has a place.
    pub line: Option<u64>,
    /// What.
    pub text: String,
}

impl Fault {
    /// A fault without a place.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { line: None, text }
    }

    /// A fault in this line; 0 is no place.
    #[must_use]
    pub fn at(line: u64, text: String) -> Self {
        Self { line: (line > 0).then_some(line), text }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Reads a document, with its variables replaced if they are given. Without one, `faults` says why.
pub fn parse(text: &str, variable: Option<Lookup<'_>>, faults: &mut Vec<Fault>) -> Option<Node> {
    let text = match variable.map(|variable| substitute::substitute(text, variable)) {
        None => text.to_owned(),
        Some(Ok(text)) => text,
        Some(Err(found)) => {
            faults.extend(found);
            return None;
        }
    };
    match Node::parse(&text) {
        Ok(document) => Some(document),
        Err((line, text)) => {
            faults.push(Fault { line, text });
            None
        }
    }
}

#[cfg(test)]
mod tests;
