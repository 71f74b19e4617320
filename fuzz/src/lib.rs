//! Fuzz targets: what reads bytes of strangers, and what must hold of it.
//!
//! A target is a function that takes any bytes and panics if something does not hold. `src/bin` has a program for
//! each, which is libFuzzer's with the feature `libfuzzer`, and else tries the files it is given: that is how a
//! finding is looked at in a debugger. The tests here try each target with its seeds, so that ordinary builds
//! without a fuzzer keep the targets true. `cargo xtask fuzz` runs them.
//!
//! What is given is text wherever the real thing is, with nothing of the target's own around it but, where one
//! target tries several parsers, a first letter that says which: seeds can be read, and so can findings.

#![forbid(unsafe_code)]

pub mod cgi;
mod cuts;
pub mod header_rules;
pub mod json;
mod plain;
mod pushes;
pub mod request_head;
pub mod response_head;
pub mod route;
pub mod small_parsers;
pub mod stack_yaml;

/// Makes a program of a target: libFuzzer's, or one that tries the files it is given.
#[macro_export]
macro_rules! program {
    ($target:path) => {
        #[cfg(feature = "libfuzzer")]
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $target(bytes));

        #[cfg(not(feature = "libfuzzer"))]
        fn main() -> std::io::Result<()> {
            for path in std::env::args_os().skip(1) {
                $target(&std::fs::read(path)?);
            }
            Ok(())
        }
    };
}

#[cfg(feature = "libfuzzer")]
#[doc(hidden)]
pub use libfuzzer_sys;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Tries a target with its seeds, and with each of them cut at every byte.
    fn tried(name: &str, target: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        let mut some = false;
        for seed in fs::read_dir(seeds).unwrap() {
            let bytes = fs::read(seed.unwrap().path()).unwrap();
            (0..=bytes.len()).for_each(|end| target(&bytes[..end]));
            some = true;
        }
        assert!(some, "{name} has no seeds");
    }

    #[test]
    fn cgi() {
        tried("cgi", crate::cgi::check);
    }

    #[test]
    fn header_rules() {
        tried("header-rules", crate::header_rules::check);
    }

    #[test]
    fn json() {
        tried("json", crate::json::check);
    }

    #[test]
    fn request_head() {
        tried("request-head", crate::request_head::check);
    }

    #[test]
    fn response_head() {
        tried("response-head", crate::response_head::check);
    }

    #[test]
    fn route() {
        tried("route", crate::route::check);
    }

    #[test]
    fn small_parsers() {
        tried("small-parsers", crate::small_parsers::check);
    }

    #[test]
    fn stack_yaml() {
        tried("stack-yaml", crate::stack_yaml::check);
    }
}
