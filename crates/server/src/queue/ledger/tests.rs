use std::collections::BTreeMap;

use super::*;

fn call(id: &str, body: &[u8]) -> Call {
    Call {
        function: FunctionRef::new("f", "").unwrap(),
        id: id.to_owned(),
        method: "POST".to_owned(),
        target: "/a?b".to_owned(),
        headers: b"A: b\r\n".to_vec(),
        callback: Some(Callback { url: "http://h/".to_owned(), reach: Reach::Nat }),
        body: body.to_vec(),
    }
}

fn open(state: &Path) -> (Arc<Ledger>, Vec<Left>) {
    Ledger::open(state, |_| {}).unwrap()
}

fn files(state: &Path) -> usize {
    std::fs::read_dir(state.join("queue")).unwrap().count()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_again_until_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![7; limits::QUEUED_BODY_INLINE_BYTES_MAX + 1];
    {
        let (ledger, left) = open(dir.path());
        assert!(left.is_empty());
        for (id, body) in [("one", &b"small"[..]), ("two", &large), ("three", &large)] {
            assert!(ledger.add(call(id, body), None).await.unwrap());
        }
        assert_eq!(ledger.load(1).unwrap().unwrap().call, call("one", b"small"));
        let attempt = Attempt { at: "now".into(), status: Some(500), error: "it failed".into() };
        let history = vec![attempt];
        let progress = Progress { attempts: 1, due_ms: 77, is_failed: false, history };
        assert!(ledger.note(2, progress).await.unwrap());
        ledger.end(3);
        ledger.flush().await;
        assert_eq!(files(dir.path()), 1);
    }
    std::fs::write(dir.path().join("queue/99"), "of no call").unwrap();
    let (ledger, left) = open(dir.path());
    let left: Vec<_> = left.iter().map(|l| (l.number, l.id.as_str(), l.due_ms)).collect();
    assert_eq!(left, [(1, "one", 0), (2, "two", 77)]);
    assert_eq!(files(dir.path()), 1, "what belongs to no call is swept");
    let two = ledger.load(2).unwrap().unwrap();
    assert_eq!((two.call.body, two.attempts, two.history.len()), (large, 1, 1));
    assert!(ledger.load(3).unwrap().is_none());
    assert!(ledger.add(call("four", b""), None).await.unwrap());
    assert!(ledger.load(3).unwrap().is_some(), "numbers go on");
}

#[tokio::test]
async fn a_mark_makes_a_call_happen_once() {
    let dir = tempfile::tempdir().unwrap();
    let mark = |name: &str, at| Some(Mark { name: name.to_owned(), at });
    {
        let (ledger, _) = open(dir.path());
        assert!(ledger.add(call("a", b""), mark("k", 60)).await.unwrap());
        assert!(!ledger.add(call("b", b""), mark("k", 60)).await.unwrap());
        assert!(ledger.mark(vec![Mark { name: "new".into(), at: 7 }], vec![]).await.unwrap());
        ledger.end(1);
        ledger.flush().await;
    }
    let (ledger, left) = open(dir.path());
    assert!(left.is_empty());
    assert!(!ledger.add(call("c", b""), mark("k", 60)).await.unwrap(), "also afterwards");
    assert!(!ledger.add(call("d", b""), mark("k", 50)).await.unwrap());
    assert!(!ledger.add(call("e", b""), mark("new", 7)).await.unwrap());
    assert!(ledger.add(call("f", b""), mark("k", 120)).await.unwrap());
    let kept = ledger.mark(vec![Mark { name: "k".into(), at: 1 }], vec!["new".into()]).await;
    assert!(kept.unwrap());
    assert_eq!(ledger.marks().unwrap(), BTreeMap::from([("k".to_owned(), 120)]));
}

#[tokio::test]
async fn failed_calls_are_kept_apart_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for id in ["a", "b", "c"] {
        ledger.add(call(id, b"x"), None).await.unwrap();
    }
    let failed = Progress { attempts: 10, is_failed: true, ..Progress::default() };
    ledger.note(1, failed.clone()).await.unwrap();
    ledger.note(2, failed).await.unwrap();
    let ids = |calls: Vec<Stored>| calls.into_iter().map(|c| c.call.id).collect::<Vec<_>>();
    assert_eq!(ids(ledger.failed(None, 9).unwrap()), ["a", "b"]);
    assert_eq!(ids(ledger.waiting(None, 9).unwrap()), ["c"]);
    assert_eq!(ledger.count_failed().unwrap(), 2);
    let other = FunctionRef::new("other", "").unwrap();
    assert!(ledger.failed(Some(&other), 9).unwrap().is_empty());
    assert_eq!(ids(ledger.failed_of("a").unwrap()), ["a"]);
    assert!(ledger.retry(1).await.unwrap());
    assert!(!ledger.retry(3).await.unwrap(), "it has not failed");
    assert!(ledger.forget(vec![2]).await.unwrap());
    assert!(!ledger.forget(vec![2]).await.unwrap());
    assert_eq!(ledger.count_failed().unwrap(), 0);
    drop(ledger);
    assert_eq!(open(dir.path()).1.len(), 2);
}

#[tokio::test]
async fn of_failed_calls_the_oldest_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let connection = Connection::open(dir.path().join("queue.db")).unwrap();
    let many = limits::FAILED_CALLS_PER_FUNCTION_MAX + 5;
    let insert = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
         INSERT INTO calls (number, name, namespace, id, method, target, headers, body_bytes,
             submitted_ms, failed_ms, body)
         SELECT 0, 'g', 'n', 'x', 'POST', '/', x'', 1, 0, {}, x''
         UNION ALL SELECT i, 'f', 'n', 'x', 'POST', '/', x'', iif(i = 11, {}, 1), 0,
             iif(i = {many}, 0, {} + i), x'' FROM n",
        now_ms(),
        limits::FAILED_CALLS_BYTES_PER_FUNCTION_MAX,
        now_ms()
    );
    connection.execute_batch(&insert).unwrap();
    writer::prune(&connection).unwrap();
    let others: usize = connection
        .query_row("SELECT count(*) FROM calls WHERE name = 'g'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(others, 1, "of another function");
    let sql = "SELECT min(number), max(number) FROM calls WHERE name = 'f'";
    let (first, last): (usize, usize) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!((first, last), (12, many - 1), "too many bytes, and too old");
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Ledger::open(dir.path(), |_| {}).err().unwrap().to_string();
    assert!(error.contains("newer"), "{error}");
}

#[test]
fn a_history_keeps_its_latest_attempts() {
    let attempt = |n: usize| Attempt { at: n.to_string(), ..Attempt::default() };
    let history = (0..100).map(attempt).fold(Vec::new(), lengthened);
    assert_eq!(history.len(), limits::DELIVERY_HISTORY_MAX);
    assert_eq!(history.last(), Some(&attempt(99)));
}
