//! The scaler over a provider that starts nothing, while time is turned.

use pinnace_core::wire::FunctionDeployment;

use super::{fake::FakeProvider, *};
use crate::{
    catalog::Catalog,
    namespaces::Namespaces,
    secrets::{Seal, Secrets},
    store::Store,
};

struct Bench {
    deployments: Arc<Deployments>,
    database: tempfile::TempDir,
}

impl Bench {
    async fn new(labels: &str) -> Self {
        let database = tempfile::tempdir().unwrap();
        let (store, kept) = Store::open(&database.path().join("functions.db")).unwrap();
        let catalog = Arc::new(Catalog::new(1));
        let (seal, _) = Seal::open(&database.path().join("secrets.key")).unwrap();
        let secrets = Arc::new(Secrets::new(kept.secrets, seal, store.clone()));
        let namespaces = Namespaces::new(kept.namespaces, store.clone());
        let provider = Arc::new(FakeProvider);
        let deployments = Deployments::new(catalog, provider, namespaces, secrets, store);
        let deployments = Arc::new(deployments);
        let bench = Self { deployments, database };
        bench.deployments.create(deployment(labels)).await.unwrap();
        let scaler = Scaler::new(bench.deployments.clone()).unwrap();
        tokio::spawn(scaler.run());
        bench
    }

    fn entry(&self) -> Arc<Entry> {
        self.deployments.catalog.find("a").unwrap()
    }

    fn wanted(&self) -> u32 {
        self.entry().standing().wanted
    }

    /// What a next server would begin with.
    fn kept(&self) -> u32 {
        let (_, kept) = Store::open(&self.database.path().join("functions.db")).unwrap();
        kept.functions.values().next().unwrap().replicas
    }

    /// Lets the scaler look so often, with so many calls under way.
    async fn looks(&self, looks: usize, under_way: u32) {
        let entry = self.entry();
        for _ in 0..looks {
            for _ in 0..under_way {
                assert!(entry.enter());
                entry.stats.started(0);
            }
            settle().await;
            tokio::time::advance(LOOK_EVERY).await;
            settle().await;
            for _ in 0..under_way {
                entry.leave();
            }
        }
    }
}

/// Lets all tasks go on until each waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn deployment(labels: &str) -> FunctionDeployment {
    serde_json::from_str(&format!(r#"{{"service":"a","image":"host","labels":{labels}}}"#)).unwrap()
}

const BY_CAPACITY: &str =
    r#"{"com.openfaas.scale.type":"capacity","com.openfaas.scale.target":"10"}"#;

#[tokio::test(start_paused = true)]
async fn replicas_follow_the_load_up_and_down_but_only_wishes_are_kept() {
    let bench = Bench::new(BY_CAPACITY).await;
    bench.looks(2, 30).await;
    assert_eq!((bench.wanted(), bench.kept()), (4, 1));
    bench.deployments.update(deployment(BY_CAPACITY)).await.unwrap();
    assert_eq!((bench.wanted(), bench.kept()), (4, 1), "a deploy under load keeps what it needs");
    bench.looks(10, 0).await;
    assert_eq!(bench.wanted(), 1);
    bench.deployments.scale(&bench.entry().id, 3).await.unwrap();
    bench.looks(3, 1).await;
    assert_eq!((bench.wanted(), bench.kept()), (3, 3), "a scale by hand holds");
}

#[tokio::test(start_paused = true)]
async fn a_function_at_rest_is_left_alone_until_it_is_called() {
    let bench = Bench::new(BY_CAPACITY).await;
    let holders = || Arc::strong_count(&bench.entry());
    let others = holders();
    bench.looks(1, 1).await;
    assert_eq!(holders(), others + 1, "the scaler looks at it");
    bench.looks(15, 0).await;
    assert_eq!(holders(), others);
    bench.looks(2, 30).await;
    assert_eq!(bench.wanted(), 4);
    bench.deployments.scale(&bench.entry().id, 0).await.unwrap();
    bench.looks(1, 0).await;
    assert_eq!(holders(), others, "at zero there is nothing to decide");
}

#[tokio::test(start_paused = true)]
async fn another_deploy_may_follow_its_load_where_the_first_did_not() {
    let bench = Bench::new("{}").await;
    bench.looks(3, 30).await;
    assert_eq!(bench.wanted(), 1);
    bench.deployments.update(deployment(BY_CAPACITY)).await.unwrap();
    bench.looks(2, 30).await;
    assert_eq!(bench.wanted(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_function_at_zero_is_not_started_by_the_end_of_an_alert() {
    let bench = Bench::new("{}").await;
    let id = bench.entry().id.clone();
    bench.deployments.scale(&id, 0).await.unwrap();
    bench.deployments.alert(&id, false).await.unwrap();
    assert_eq!(bench.wanted(), 0);
    bench.deployments.alert(&id, true).await.unwrap();
    assert_eq!((bench.wanted(), bench.kept()), (4, 0));
    bench.deployments.alert(&id, true).await.unwrap();
    assert_eq!(bench.wanted(), 8);
    bench.deployments.alert(&id, false).await.unwrap();
    assert_eq!(bench.wanted(), 1);
}
