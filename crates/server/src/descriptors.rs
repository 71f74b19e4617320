//! How the process's descriptors are shared out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are neither a client's nor a replica's: listeners, files, the runtimes' own.
const RESERVED: u64 = 512;

/// The limits that follow from the descriptor limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Descriptors that the process may have.
    pub limit: u64,
    /// Client connections at once; each may need one more to a replica.
    pub clients: usize,
}

/// Raises the limit as far as this process may, and shares it out: a third each for clients, for
/// connections to replicas, and for the replicas themselves (pipes, sockets, handles).
#[must_use]
pub fn share_out() -> Shares {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: maximum, maximum };
    // Refused: it stays as it was.
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(_) => current.unwrap_or(u64::MAX),
    };
    shares(limit)
}

fn shares(limit: u64) -> Shares {
    let clients = usize::try_from(limit.saturating_sub(RESERVED) / 3).unwrap_or(usize::MAX);
    // More would not fit the memory of any machine that this runs on.
    Shares { limit, clients: clients.clamp(16, 1 << 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_each() {
        assert_eq!(shares(20_000).clients, 6496);
        assert_eq!(shares(64).clients, 16);
        assert_eq!(shares(u64::MAX).clients, 1 << 20);
    }
}
