//! The control plane: everything under `/system`, and the platform's own health.
//!
//! It runs on a runtime of its own; the workers hand over what is no call of a function.

mod access;
mod alert;
mod build;
mod description;
mod distribution;
mod error;
mod functions;
mod images;
mod info;
mod issuer;
mod json;
mod logs;
mod namespaces;
mod query;
mod queue;
mod registry;
mod scale;
mod schedules;
mod secrets;
mod telemetry;
mod unread;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
    middleware,
    response::{IntoResponse, Redirect},
    routing::{any, get, post},
};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use pinnace_sandbox::images::ImageStore;

pub use self::access::{Access, Password, USER};
use self::{error::ApiError, issuer::Asker};
use crate::{
    builder::Builder,
    deployments::Deployments,
    distribution::Distribution,
    metrics::{self, Requests},
    proxy::worker::Control,
    queue::AsyncQueue,
    registry::Puller,
    schedules::Schedules,
    tokens::Issuer,
};

/// What the handlers share.
pub struct Api {
    /// What is deployed.
    pub deployments: Arc<Deployments>,
    /// Who may use `/system`.
    pub access: Access,
    /// Gives tokens.
    pub issuer: Arc<Issuer>,
    /// By which URL clients reach this server, if the operator says so.
    pub external_url: Option<String>,
    /// Whether clients are served over TLS.
    pub has_tls: bool,
    /// Counts requests.
    pub requests: Arc<Requests>,
    /// Asynchronous calls.
    pub queue: Arc<AsyncQueue>,
    /// Schedules, unless others see to them.
    pub schedules: Option<Arc<Schedules>>,
    /// Images.
    pub images: Arc<ImageStore>,
    /// Brings images from registries.
    pub puller: Puller,
    /// The built-in registry.
    pub distribution: Arc<Distribution>,
    /// Builds images.
    pub builder: Builder,
    /// Bytes of an uploaded image archive.
    pub image_bytes_max: u64,
    /// Turns true when the server is asked to end: answers without an end of their own end then.
    pub ending: tokio::sync::watch::Receiver<bool>,
}

/// The control plane as the workers see it.
pub struct ControlPlane {
    router: Router,
    /// What functions get: the issuer, and none of the rest whatever they ask for.
    for_functions: Router,
    runtime: tokio::runtime::Handle,
}

impl ControlPlane {
    /// A control plane that answers on this runtime.
    #[must_use]
    pub fn new(api: Arc<Api>, runtime: tokio::runtime::Handle) -> Self {
        Self { router: router(api.clone()), for_functions: router_for_functions(api), runtime }
    }
}

impl Control for ControlPlane {
    fn answer(
        &self,
        request: Request<Incoming>,
        by_function: bool,
    ) -> BoxFuture<'static, Response<Body>> {
        let router = if by_function { &self.for_functions } else { &self.router }.clone();
        // A client that leaves does not undo what it asked for: the task goes on without it.
        // One that would be undone by that is told by this.
        let (here, departure) = build::departure();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(departure);
        let task = self.runtime.spawn(unread::answer(router, request));
        Box::pin(async move {
            let answered = task.await;
            drop(here);
            answered.unwrap_or_else(|error| {
                tracing::error!(%error, "a request to the API could not be answered");
                let text = "the request could not be answered; the server's log says why\n";
                (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
            })
        })
    }
}

fn router(api: Arc<Api>) -> Router {
    // Clients write the singular, documents the plural.
    let one_namespace = || {
        get(namespaces::show)
            .post(namespaces::create)
            .put(namespaces::update)
            .delete(namespaces::remove)
    };
    let system = Router::new()
        .route(
            "/functions",
            get(functions::list)
                .post(functions::create)
                .put(functions::update)
                .delete(functions::remove),
        )
        .route("/function/{name}", get(functions::describe))
        .route("/scale-function/{name}", post(scale::scale))
        .route("/namespaces", get(namespaces::list))
        .route("/namespace/", one_namespace())
        .route("/namespace/{name}", one_namespace())
        .route("/namespaces/{name}", one_namespace())
        .route(
            "/secrets",
            get(secrets::list).post(secrets::create).put(secrets::update).delete(secrets::remove),
        )
        .route("/info", get(info::info))
        .route("/telemetry", get(telemetry::telemetry))
        .route("/alert", post(alert::alert))
        .route("/logs", get(logs::logs))
        .route("/images", get(images::list).post(images::load).delete(images::remove))
        .route("/images/pull", post(images::pull))
        .route("/images/prune", post(images::prune))
        .route("/registry", get(registry::list).delete(registry::remove))
        .route("/registry/gc", post(registry::collect))
        .route("/queue", get(queue::list).delete(queue::discard_all))
        .route("/schedules", get(schedules::list))
        .route("/queue/{id}", get(queue::show).delete(queue::discard))
        .route("/queue/{id}/retry", post(queue::retry))
        .method_not_allowed_fallback(error::no_such_method)
        .layer(middleware::from_fn_with_state(api.clone(), access::check))
        .layer(middleware::from_fn_with_state(api.requests.clone(), metrics::count));
    let registry = Router::new()
        .route("/v2", any(distribution::serve))
        .route("/v2/", any(distribution::serve))
        .route("/v2/{*path}", any(distribution::serve))
        .layer(middleware::from_fn_with_state(api.requests.clone(), metrics::count));
    Router::new()
        .nest("/system", system)
        .merge(registry)
        .merge(issuer::routes(Asker::Client))
        .merge(build::routes(&api))
        .route("/", get(async || Redirect::temporary("/ui/")))
        .route("/healthz", get(async || "OK"))
        .route("/openapi.json", get(description::openapi))
        .method_not_allowed_fallback(error::no_such_method)
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "404 page not found"))
        .with_state(api)
}

fn router_for_functions(api: Arc<Api>) -> Router {
    issuer::routes(Asker::Function)
        .method_not_allowed_fallback(error::no_such_method)
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "404 page not found"))
        .with_state(api)
}
