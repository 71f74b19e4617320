//! Where `pinnace` deliberately differs from the recorded faas-cli, and why.
//!
//! For all recordings alike: `User-Agent` is ours; without a login no `Authorization` is sent, where the
//! recorded client sends `Bearer` without a token; after a deploy the function is looked at once, because a
//! server of ours says whether it can serve, and then the exit code says so too.

/// One recording where ours differs.
pub struct Difference {
    /// The recording.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Our exit code.
    pub exit: i64,
    /// Our standard output, with the placeholders of the recordings.
    pub stdout: &'static str,
    /// A part of our standard error.
    pub stderr: &'static str,
    /// Our requests, if they are others.
    pub requests: &'static [&'static str],
}

/// The differences.
pub const ALL: &[Difference] = &[];
