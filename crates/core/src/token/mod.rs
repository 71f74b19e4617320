//! Tokens: what those say that this platform gives, to whom they are given, and what holds of one that is shown
//! (contract sections 2.3 and 8.6).
//!
//! There are two kinds. An **API token** stands for whoever has logged in, and names his policies. A **function token** is
//! for calls of the functions that it names. Functions see the tokens that they are called with, so the second kind
//! opens nothing else: neither the API, nor another function, nor can it be exchanged.
//!
//! Signatures are the business of whoever has the keys.

mod claims;
mod request;

pub use self::{
    claims::{Claims, ClaimsFault, FunctionClaims, POLICY_OF_ADMIN},
    request::{Grant, Refusal, TokenRequest, Wanted},
};
