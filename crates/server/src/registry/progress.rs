//! How far a pull is, for those who wait for it.

use std::fmt;

use tokio::sync::watch;

use super::error::PullError;
use pinnace_core::wire::ImageSummary;

/// How far a pull is. Displayed as a sentence part: "pulling x: …".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What is being done.
    pub step: PullStep,
    /// Layers fetched, those that the store had included.
    pub layers: usize,
    /// Layers of the image.
    pub layers_total: usize,
    /// Bytes fetched of what the store did not have.
    pub bytes: u64,
    /// Bytes of what the store did not have.
    pub bytes_total: u64,
}

/// What a pull is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PullStep {
    /// Nothing yet: as many others as may be are under way.
    #[default]
    Waiting,
    /// Finding out what the image is made of.
    Asking,
    /// Fetching layers.
    Fetching,
    /// Unpacking or saving, in the store's words.
    Storing(String),
}

/// What is known of a pull.
#[derive(Clone, Debug)]
pub(super) enum State {
    Under(PullProgress),
    Done(Result<ImageSummary, PullError>),
}

/// Tells those who wait.
#[derive(Debug)]
pub(super) struct Teller(pub watch::Sender<State>);

impl PullProgress {
    /// What is being done, without how many bytes of it.
    #[must_use]
    pub fn step(&self) -> String {
        match &self.step {
            PullStep::Waiting => "waiting for other pulls".to_owned(),
            PullStep::Asking => "asking the registry".to_owned(),
            PullStep::Fetching => format!("{} of {} layers", self.layers, self.layers_total),
            PullStep::Storing(step) => step.clone(),
        }
    }
}

impl fmt::Display for PullProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step())?;
        if self.step != PullStep::Fetching {
            return Ok(());
        }
        let (unit, name) =
            if self.bytes_total < 1_000_000 { (1000, "kB") } else { (1_000_000, "MB") };
        let total = self.bytes_total.div_ceil(unit);
        write!(f, ", {} of {total} {name}", self.bytes / unit)
    }
}

impl Teller {
    /// Changes what is told.
    pub(super) fn change(&self, change: impl FnOnce(&mut PullProgress)) {
        self.0.send_modify(|state| {
            if let State::Under(progress) = state {
                change(progress);
            }
        });
    }

    pub(super) fn step(&self, step: PullStep) {
        self.change(|progress| progress.step = step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let mut progress = PullProgress::default();
        assert_eq!(progress.to_string(), "waiting for other pulls");
        progress = PullProgress {
            step: PullStep::Fetching,
            layers: 3,
            layers_total: 5,
            bytes: 40_900_000,
            bytes_total: 119_100_000,
        };
        assert_eq!(progress.to_string(), "3 of 5 layers, 40 of 120 MB");
        (progress.bytes, progress.bytes_total) = (1500, 2500);
        assert_eq!(progress.to_string(), "3 of 5 layers, 1 of 3 kB");
        progress.step = PullStep::Storing("unpacking layer 2 of 5".into());
        assert_eq!(progress.to_string(), "unpacking layer 2 of 5");
    }
}
