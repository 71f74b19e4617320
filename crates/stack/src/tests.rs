use proptest::prelude::*;

use super::{substitute::substitute, *};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_reader_fail_otherwise_than_by_saying_so(
        text in r#"[ a-z$\{\}:#%/^,=?*\[\]\-\\"'\nä]{0,80}"#,
        value in "[ab/ä]{0,6}",
    ) {
        let variable = |_: &str| Some(value.clone());
        let mut faults = Vec::new();
        if let Some(document) = parse(&text, Some(&variable), &mut faults) {
            StackFile::read(&document, &mut faults);
        }
    }

    #[test]
    fn text_without_a_dollar_sign_and_a_backslash_stays_as_it_is(text in r"[^$\\]{0,80}") {
        prop_assert_eq!(substitute(&text, &|_| None), Ok(text));
    }

    #[test]
    fn what_is_left_of_a_value_is_its_beginning_or_end(
        value in "[ab/]{0,8}",
        pattern in "[ab/*?]{1,4}",
        form in prop::sample::select(vec!["#", "##", "%", "%%"]),
    ) {
        let text = format!("${{V{form}{pattern}}}");
        let rest = substitute(&text, &|_| Some(value.clone()));
        // A pattern that begins as the form goes on is part of the form.
        if let Ok(rest) = rest {
            let is_end = form.starts_with('#') && value.ends_with(&rest);
            prop_assert!(is_end || value.starts_with(&rest), "{} of {}", rest, value);
        }
    }
}
