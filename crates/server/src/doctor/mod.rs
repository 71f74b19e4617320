//! What this host can do for functions, what is missing and what would mend it, and what dead Pinnaces left.
//!
//! Facts are gathered first (here and in [`leftovers`]), then put into words by functions that only look at
//! them ([`abilities`], [`bounds`], [`place`]). Nothing is changed, and no server is needed.

mod abilities;
mod bounds;
mod leftovers;
mod place;

#[cfg(test)]
pub(crate) use self::abilities::tests::able;

use std::{io, path::Path};

use pinnace_sandbox::{
    cgroup::{Cgroups, survey::survey},
    host::{Host, network::Network},
};
use serde::Serialize;

use crate::{
    descriptors,
    state_dir::{RUN, StateDir},
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Whether functions can run here for this user and state directory.
    pub functions_can_run: bool,
    /// All checks, in groups.
    pub groups: Vec<Group>,
}

/// Checks that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The checks.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, where it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Functions run, with less than Pinnace can give.
    Less,
    /// No function can run.
    No,
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict: Verdict::Ok, found: found.into(), mend: None }
    }

    fn less(name: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into());
        Self { name: name.to_owned(), verdict: Verdict::Less, found: found.into(), mend }
    }

    fn no(name: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::No, ..Self::less(name, found, mend) }
    }
}

impl Diagnosis {
    fn new(groups: Vec<Group>) -> Self {
        let mut checks = groups.iter().flat_map(|group| &group.checks);
        Self { functions_can_run: checks.all(|check| check.verdict != Verdict::No), groups }
    }

    /// How many checks are not well.
    #[must_use]
    pub fn not_ok(&self) -> usize {
        let checks = self.groups.iter().flat_map(|group| &group.checks);
        checks.filter(|check| check.verdict != Verdict::Ok).count()
    }
}

/// Looks at this host for a state directory, which need not be there. `spawner` is the spawner's program.
///
/// # Errors
/// The program cannot be run.
pub fn doctor(spawner: &Path, state_dir: &Path) -> io::Result<Diagnosis> {
    let place = place::Place::look(state_dir);
    let cgroups = Cgroups::detect(&StateDir::name(&place.path), &place.path.join(RUN));
    let host = Host::probe(spawner, &place.nearest, &cgroups)?;
    let network = Network::probe(spawner)?;
    let (survey, shares) = (survey(), descriptors::share_out());
    let group = |title, checks| Group { title, checks };
    Ok(Diagnosis::new(vec![
        group("Kernel", abilities::kernel(&host, &abilities::Switches::read())),
        group("State directory", place.checks(&host)),
        group("Limits", bounds::checks(&host, &survey, &bounds::Numbers::read(shares))),
        group("Network", abilities::network(&network, host.root, abilities::forwards())),
        group("Clock", vec![abilities::clock(&abilities::Clock::read())]),
        group("Pinnaces on this host", leftovers::checks(&place.path)),
    ]))
}

fn number_in(path: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_no_means_that_nothing_runs() {
        let group = |checks| Group { title: "t", checks };
        let well = vec![Check::ok("a", ""), Check::less("b", "", "")];
        assert!(Diagnosis::new(vec![group(well.clone())]).functions_can_run);
        let ill = vec![Check::no("c", "there is none", "get one")];
        let diagnosis = Diagnosis::new(vec![group(well), group(ill)]);
        assert!(!diagnosis.functions_can_run);
        assert_eq!(diagnosis.not_ok(), 2);
        let json = serde_json::to_value(&diagnosis).unwrap();
        assert_eq!(json["functionsCanRun"], false);
        let check = &json["groups"][1]["checks"][0];
        assert_eq!((&check["verdict"], &check["mend"]), (&"no".into(), &"get one".into()));
        assert!(json["groups"][0]["checks"][0].get("mend").is_none());
    }
}
