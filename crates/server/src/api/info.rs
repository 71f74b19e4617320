//! `/system/info` (contract section 4.7).

use std::sync::Arc;

use axum::{Json, extract::State};
use pinnace_core::wire::{Info, ProviderInfo, Version};

use super::Api;

/// GET `/system/info`: versions, and what this host cannot enforce.
pub async fn info(State(api): State<Arc<Api>>) -> Json<Info> {
    let version = version();
    Json(Info {
        provider: ProviderInfo {
            provider: "pinnace-sandbox".to_owned(),
            orchestration: "sandbox".to_owned(),
            version: version.clone(),
        },
        version,
        arch: rustix::system::uname().machine().to_string_lossy().into_owned(),
        missing: api.deployments.provider.missing(),
    })
}

/// The version of this build.
#[must_use]
pub fn version() -> Version {
    Version {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        sha: crate::REVISION.to_owned(),
        commit_message: env!("PINNACE_COMMIT_MESSAGE").to_owned(),
    }
}
