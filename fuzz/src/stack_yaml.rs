//! A `stack.yaml`, with its variables.

use pinnace_stack::{Kind, Node, StackFile, parse};

/// Bytes of all that is read of a file, for each byte that the fuzzer may give: what aliases make of a few lines must
/// stay small. Reading longer files is held by a test of the crate.
const TREE_BYTES: usize = 4 << 20;

/// Variables as an environment has them.
fn variable(name: &str) -> Option<String> {
    Some(match name {
        "A" => "a".repeat(100),
        "HOME" => "/home/someone".to_owned(),
        "TEXT" => "Ünï: [code] {x} 'y' \"z\" #\n- more".to_owned(),
        "EMPTY" => String::new(),
        _ => return None,
    })
}

/// A file is read in little memory, and whatever is wrong with it is told.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = |text: &str, variable| {
        let mut faults = Vec::new();
        let document = parse(text, variable, &mut faults);
        assert_eq!(document.is_none(), !faults.is_empty(), "no document and no fault: {faults:?}");
        let file = document.as_ref().map(|document| StackFile::read(document, &mut faults));
        for fault in &faults {
            assert!(!fault.text.is_empty());
            // In YAML a carriage return alone ends a line too.
            let lines = text.matches(['\n', '\r']).count() as u64 + 1;
            assert!(variable.is_some() || fault.line.is_none_or(|line| line <= lines), "{fault}");
        }
        assert!(document.as_ref().map_or(0, bytes_of) <= TREE_BYTES, "a tree that is too large");
        (file, faults)
    };
    let plain = read(text, None);
    let replaced = read(text, Some(&variable));
    if !text.contains(['$', '\\']) {
        assert_eq!(replaced, plain, "nothing is to be replaced");
    }
}

fn bytes_of(node: &Node) -> usize {
    let inner = match &node.kind {
        Kind::Null => 0,
        Kind::Scalar(text) => text.len(),
        Kind::List(items) => items.iter().map(bytes_of).sum(),
        Kind::Map(entries) => entries.iter().map(|(k, v)| bytes_of(k) + bytes_of(v)).sum(),
    };
    inner + size_of::<Node>()
}
