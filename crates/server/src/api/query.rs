//! Queries of requests, read as clients of all ages write them: a repeated key counts as last given (contract
//! section 4.8), an unknown one not at all.

use std::collections::BTreeMap;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use percent_encoding::percent_decode_str;
use serde::de::{
    DeserializeOwned,
    value::{Error, MapDeserializer},
};

use super::error::ApiError;

/// A query as a type whose fields are texts.
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query.
///
/// # Errors
/// Nothing can be made of it.
pub(super) fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let last: BTreeMap<_, _> = pairs(query).collect();
    let read = T::deserialize(MapDeserializer::<_, Error>::new(last.into_iter()));
    read.map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the query cannot be read: {error}"))
    })
}

/// Keys and values of a query, decoded. A key without a value has an empty one.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Two {
        one: String,
        two: String,
    }

    #[test]
    fn the_last_value_counts_and_what_is_unknown_does_not() {
        let two = |one: &str, two: &str| Two { one: one.to_owned(), two: two.to_owned() };
        for (query, wanted) in [
            ("", two("", "")),
            ("one=1&two=2&one=3", two("3", "2")),
            ("one=1&one", two("", "")),
            ("o%6Ee=a+b%2Bc&three=4", two("a b+c", "")),
            ("&&=&one==&two=%zz", two("=", "%zz")),
        ] {
            assert_eq!(read::<Two>(query).unwrap(), wanted, "{query}");
        }
    }
}
