//! Sockets that the spawner keeps for the server, so that callers wait instead of being refused while a
//! server restarts.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use pinnace_core::limits;

/// The kept sockets, by the server's names for them.
#[derive(Debug, Default)]
pub struct Custody {
    kept: Vec<(String, OwnedFd)>,
}

impl Custody {
    /// Keeps these instead of those before. `false`, with nothing changed, if there are too many or
    /// names and sockets do not match.
    #[must_use]
    pub fn keep(&mut self, names: Vec<String>, sockets: Vec<OwnedFd>) -> bool {
        let good = names.len() == sockets.len() && names.len() <= limits::KEPT_SOCKETS_MAX;
        if good {
            self.kept = names.into_iter().zip(sockets).collect();
        }
        good
    }

    /// Names and sockets, in one order.
    pub fn lend(&self) -> (Vec<String>, Vec<BorrowedFd<'_>>) {
        self.kept.iter().map(|(name, socket)| (name.clone(), socket.as_fd())).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| tempfile::tempfile().unwrap().into()).collect()
    }

    #[test]
    fn the_last_set_is_kept_and_a_bad_one_changes_nothing() {
        let mut custody = Custody::default();
        assert!(custody.keep(vec!["a".into(), "b".into()], sockets(2)));
        assert!(custody.keep(vec!["c".into()], sockets(1)));
        assert!(!custody.keep(vec!["d".into()], sockets(2)));
        let many = limits::KEPT_SOCKETS_MAX + 1;
        assert!(!custody.keep(vec![String::new(); many], sockets(many)));
        let (names, kept) = custody.lend();
        assert_eq!((names, kept.len()), (vec!["c".to_owned()], 1));
    }
}
