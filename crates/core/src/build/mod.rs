//! Native builds: from a function's source to an image without Docker.
//!
//! What is built is told by a [`Recipe`], the section `pinnace:` of a template's `template.yml`: a base, a layer of
//! dependencies that is made anew only when certain files change, and a layer of code. What is asked for with it
//! comes in a [`BuildRequest`] (contract section 14.5).

mod document;
mod paths;
mod recipe;
mod request;

pub use document::{BUILT_ON_HOST, ImageDocument, LABEL_BASE, LABEL_WATCHDOG, SOURCE_DATE_EPOCH};
pub use recipe::{Base, Faults, Recipe, Step, Template};
pub use request::{BuildRequest, BuildResult, BuildStatus, PublicKey};
