//! Several builds or pushes at a time.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Does something for each item, at most so many at a time, begun in their order. What came of each is answered in
/// their order too.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    at_a_time: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_a_time.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((at, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, atomic::AtomicUsize};

    use super::*;

    #[test]
    fn as_many_as_allowed_run_at_a_time_and_results_are_in_order() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Four items in two rounds of two: each waits for another one that runs at the same time.
        let barrier = Barrier::new(2);
        let results = each(&[1, 2, 3, 4], 2, |number| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            barrier.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            number * 10
        });
        assert_eq!(results, [10, 20, 30, 40]);
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn nothing_to_do() {
        assert!(each(&[] as &[u8], 0, |_| 1).is_empty());
    }
}
