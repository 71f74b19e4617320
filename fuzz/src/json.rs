//! Bodies of the API's requests, and those answers of it that the command line reads.

use std::fmt::Debug;

use pinnace_core::{
    FunctionRef, FunctionSpec, Namespace, limits,
    queue::{CallDocument, QueueListing},
    schedule::ScheduleDocument,
    secret,
    wire::{
        AlertMessage, DeleteFunctionRequest, FunctionDeployment, FunctionNamespace, FunctionStatus,
        ImageSummary, Info, LogMessage, PullRequest, ScaleServiceRequest, Secret,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest sentence about one fault, in bytes: it goes into an answer and a log, and must not be as long as what was
/// sent.
const FAULT_BYTES: usize = 2 << 10;

/// What is taken is the same once it was written and read again, as the store and the next server do, and is judged
/// alike again.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    if let Some(deployment) = same::<FunctionDeployment>(bytes) {
        check_deployment(&deployment);
    }
    if let Some(secret) = same::<Secret>(bytes) {
        check_secret(&secret);
    }
    if let Some(namespace) = same::<FunctionNamespace>(bytes)
        && let Ok(taken) = Namespace::check(namespace.clone())
    {
        let again = FunctionNamespace {
            name: namespace.name,
            labels: taken.labels.clone(),
            annotations: taken.annotations.clone(),
        };
        assert_eq!(Namespace::check(again).ok(), Some(taken));
    }
    if let Ok(message) = serde_json::from_slice::<AlertMessage>(bytes) {
        for alert in message.alerts {
            let _ = FunctionRef::parse(&alert.labels.function_name);
        }
    }
    same::<DeleteFunctionRequest>(bytes);
    same::<ScaleServiceRequest>(bytes);
    same::<PullRequest>(bytes);
    let _ = serde_json::from_slice::<FunctionStatus>(bytes);
    let _ = serde_json::from_slice::<QueueListing>(bytes);
    let _ = serde_json::from_slice::<CallDocument>(bytes);
    let _ = serde_json::from_slice::<ScheduleDocument>(bytes);
    let _ = serde_json::from_slice::<ImageSummary>(bytes);
    same::<Info>(bytes);
    same::<LogMessage>(bytes);
}

/// What the bytes say, if it is that; the same again once it was written.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let taken: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&taken).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, taken, "{}", String::from_utf8_lossy(&written));
    Some(taken)
}

fn check_deployment(deployment: &FunctionDeployment) {
    match FunctionSpec::check(deployment.clone()) {
        Ok(spec) => {
            assert_eq!(&spec.deployment, deployment, "it is kept as it was sent");
            assert_eq!(FunctionSpec::check_kept(deployment.clone()), Ok((spec.clone(), None)));
            assert!(spec.scale.min <= spec.scale.max, "{:?}", spec.scale);
            assert!(spec.grace <= limits::GRACE_MAX);
        }
        Err(faults) => {
            check_faults(&faults.0);
            if let Ok((spec, again)) = FunctionSpec::check_kept(deployment.clone()) {
                assert_eq!(&spec.deployment, deployment, "it is kept as it was sent");
                assert_eq!(again, Some(faults));
            }
        }
    }
}

fn check_faults(faults: &[String]) {
    assert!(!faults.is_empty(), "refused without a reason");
    for fault in faults {
        assert!(fault.len() <= FAULT_BYTES, "a fault of {} bytes", fault.len());
    }
}

fn check_secret(sent: &Secret) {
    if secret::check_name(&sent.name).is_ok() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(sent.name.chars().all(is_plain) && sent.name != "." && sent.name != "..");
    }
    if let Ok(value) = secret::value(sent) {
        assert!(value.0.len() <= limits::SECRET_BYTES_MAX);
    }
}
