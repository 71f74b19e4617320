use std::fs;

use proptest::prelude::*;

use super::*;

const HEAD: &str =
    "version: 1.0\nprovider: {name: openfaas, gateway: http://gw:8080}\nfunctions:\n";

fn read(text: &str, selection: &Selection) -> anyhow::Result<Stack> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack.yaml");
    fs::write(&path, format!("{HEAD}{text}")).unwrap();
    fs::write(dir.path().join("one.yml"), "environment: {a: file, b: file, n: 1.0}\n").unwrap();
    fs::write(dir.path().join("two.yml"), "environment:\n  b: ${WHO:-later}\n").unwrap();
    fs::write(dir.path().join("bad.yml"), "environment:\n  b: [1]\n").unwrap();
    Stack::read(&path, selection, Some(&|_| None))
}

fn only(text: &str) -> FunctionDeployment {
    let mut stack = read(text, &Selection::All).unwrap();
    assert_eq!(stack.functions.len(), 1);
    stack.functions.remove(0).deployment
}

#[test]
fn later_environment_files_win_over_earlier_and_over_the_file_itself() {
    let found = only(
        "  f:\n    image: a:1\n    environment: {a: inline, c: inline}\n    \
         environment_file: [one.yml, two.yml]\n",
    );
    let expected = [("a", "file"), ("b", "later"), ("c", "inline"), ("n", "1.0")];
    let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(found.env_vars, Some(Map::from(expected)));
}

#[test]
fn images_get_a_tag_but_the_host_does_not() {
    assert_eq!(only("  f: {image: a/b}\n").image, "a/b:latest");
    assert_eq!(only("  f: {image: 'localhost:5000/b'}\n").image, "localhost:5000/b:latest");
    assert_eq!(only("  f: {image: 'a@sha256:00'}\n").image, "a@sha256:00");
    assert_eq!(only("  f: {image: host}\n").image, "host");
}

#[test]
fn absent_parts_are_absent_and_maps_are_there() {
    let found = only("  f: {image: a}\n");
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(json, r#"{"service":"f","image":"a:latest","labels":{},"annotations":{}}"#);
}

#[test]
fn every_fault_of_every_function_at_once() {
    let error = read(
        "  Bad_Name: {image: a}\n  g:\n    image: a\n    limits: {memory: lots}\n    \
         environment_file: [none.yml, bad.yml]\n  h: {}\n",
        &Selection::All,
    )
    .unwrap_err();
    let said = error.to_string();
    for part in [
        "stack.yaml has 5 faults",
        "line 4: functions.Bad_Name: service:",
        "line 5: functions.g: limits.memory: \"lots\"",
        "line 8: environment_file",
        "bad.yml: line 2: environment.b is a list, not a word",
        "line 9: functions.h: image: is required",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}

#[test]
fn selections() {
    let text = "  first: {image: a}\n  second: {image: a}\n  f: {image: a}\n";
    let names = |selection: &Selection| -> Vec<String> {
        let stack = read(text, selection).unwrap();
        stack.functions.into_iter().map(|f| f.deployment.service).collect()
    };
    assert_eq!(names(&Selection::Glob("f*st".into())), ["first"]);
    assert_eq!(names(&Selection::Glob("*s*".into())), ["first", "second"]);
    assert_eq!(names(&Selection::Regex(Regex::new("^f").unwrap())), ["first", "f"]);
    let none = read(text, &Selection::Glob("x*".into())).unwrap_err().to_string();
    assert!(none.contains("it has 3 functions, but none named like --filter \"x*\""), "{none}");
}

#[test]
fn an_empty_filter_is_none() {
    let empty = Some(String::new());
    let args = StackArgs { filter: empty.clone(), regex: empty, ..StackArgs::default() };
    assert!(matches!(Selection::of(&args), Ok(Selection::All)));
}

#[test]
fn globs() {
    for (glob, name, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*a", "a", false),
        ("a*b*c", "a-b-b-c", true),
        ("*b", "abab", true),
        ("a*b*", "ac", false),
    ] {
        assert_eq!(globbed(glob, name), expected, "{glob} {name}");
    }
}

#[test]
fn a_fault_of_a_function_that_is_not_selected_does_not_matter_to_its_deployment() {
    let text = "  good: {image: a}\n  Bad: {image: a}\n";
    assert!(read(text, &Selection::Glob("good".into())).is_ok());
    assert!(read(text, &Selection::All).is_err());
}

#[test]
fn files_are_bounded_and_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.yaml");
    fs::write(&path, vec![b'#'; limits::STACK_FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(read_bounded(&path).unwrap_err().to_string().contains("is more than"));
    let none = read_bounded(&dir.path().join("none.yaml")).unwrap_err().to_string();
    assert!(none.ends_with("none.yaml: there is no such file"), "{none}");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(read_bounded(&path).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn what_a_file_says_to_terminals_is_shown_escaped() {
    let said = read("  \"f\\e[31m\":\n    image: [a]\n", &Selection::All).unwrap_err().to_string();
    assert!(said.contains("\\u{1b}[31m") && !said.contains('\u{1b}'), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_wildcard_matches_what_its_regular_expression_does(
        glob in "[ab*]{0,6}",
        name in "[ab]{0,8}",
    ) {
        let regex = Regex::new(&format!("^{}$", glob.replace('*', ".*"))).unwrap();
        prop_assert_eq!(globbed(&glob, &name), regex.is_match(&name));
    }
}
