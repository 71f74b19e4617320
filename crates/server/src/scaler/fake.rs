//! A provider that runs nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use pinnace_core::{FunctionRef, FunctionSpec, Network, wire::Usage};

use crate::{
    catalog::{Deployed, Entry},
    logs::{LogQuery, LogStream},
    provider::{Provider, Refusal, Used},
    proxy::admission::Activate,
};

/// Takes every order and does nothing.
pub struct FakeProvider;

impl Activate for FakeProvider {
    fn activate(&self, _: &Arc<Entry>) {}
}

impl Provider for FakeProvider {
    fn check(&self, _: &FunctionSpec) -> Result<(), Refusal> {
        Ok(())
    }

    fn apply(&self, _: &Arc<Entry>, _: Arc<Deployed>, _: u32) {}

    fn want(&self, _: &FunctionRef, _: u32) {}

    fn remove(&self, _: &FunctionRef) {}

    fn secret_changed<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn logs<'a>(
        &'a self,
        _: &'a FunctionRef,
        _: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Refusal>> {
        Box::pin(async { Err(Refusal::Broken("there are none".to_owned())) })
    }

    fn missing(&self) -> Vec<String> {
        Vec::new()
    }

    fn used(&self, _: Option<&HashSet<FunctionRef>>) -> HashMap<FunctionRef, Used> {
        HashMap::new()
    }

    fn usage(&self, _: &FunctionRef) -> Usage {
        Usage::default()
    }

    fn network(&self, _: &FunctionSpec) -> Network {
        Network::None
    }
}
