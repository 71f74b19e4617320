//! The part of the API that is about functions (contract section 4).

use pinnace_core::{
    name::DEFAULT_NAMESPACE,
    wire::{DeleteFunctionRequest, FunctionDeployment, FunctionStatus, ScaleServiceRequest},
};
use ureq::http::{Method, StatusCode};

use super::{Gateway, Patience, TAKEN, query};

impl Gateway {
    /// All functions of a namespace.
    pub fn functions(&self, namespace: Option<&str>) -> anyhow::Result<Vec<FunctionStatus>> {
        let doing = "listing functions";
        let target = format!("/system/functions{}", query(&[("namespace", namespace)]));
        let answer = self.ask(Method::GET, &target, Patience::Request, doing)?;
        // Some gateways answer an empty list with null.
        Ok(self.read::<Option<_>>(answer, doing)?.unwrap_or_default())
    }

    /// One function; `None` if there is no such function.
    pub fn function(
        &self,
        name: &str,
        namespace: Option<&str>,
        usage: bool,
    ) -> anyhow::Result<Option<FunctionStatus>> {
        let doing = format!("reading function {name}");
        let pairs = [("namespace", namespace), ("usage", usage.then_some("1"))];
        let target = format!("/system/function/{name}{}", query(&pairs));
        let answer = self.ask(Method::GET, &target, Patience::Request, &doing)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(answer, &doing).map(Some)
    }

    /// Updates a function; `None` if there is none to update.
    pub fn update(&self, wanted: &FunctionDeployment) -> anyhow::Result<Option<StatusCode>> {
        let doing = format!("updating function {}", wanted.service);
        let answer =
            self.tell(Method::PUT, "/system/functions", wanted, Patience::Request, &doing)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(self.expect(answer, &TAKEN, &doing)?.status()))
    }

    /// Creates a function.
    pub fn create(&self, wanted: &FunctionDeployment) -> anyhow::Result<StatusCode> {
        let doing = format!("creating function {}", wanted.service);
        let answer =
            self.tell(Method::POST, "/system/functions", wanted, Patience::Request, &doing)?;
        Ok(self.expect(answer, &TAKEN, &doing)?.status())
    }

    /// Removes a function; `false` if there was none.
    pub fn remove(&self, name: &str, namespace: Option<&str>) -> anyhow::Result<bool> {
        let doing = format!("removing function {name}");
        let request = DeleteFunctionRequest {
            function_name: name.to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
        };
        let answer =
            self.tell(Method::DELETE, "/system/functions", &request, Patience::Request, &doing)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.expect(answer, &TAKEN, &doing)?;
        Ok(true)
    }

    /// Sets the number of replicas; `false` if there is no such function.
    pub fn scale(
        &self,
        name: &str,
        namespace: Option<&str>,
        replicas: u64,
    ) -> anyhow::Result<bool> {
        let doing = format!("scaling function {name}");
        let request = ScaleServiceRequest {
            service_name: name.to_owned(),
            replicas,
            namespace: namespace.unwrap_or_default().to_owned(),
        };
        let target = format!("/system/scale-function/{name}");
        let answer = self.tell(Method::POST, &target, &request, Patience::Request, &doing)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.expect(answer, &TAKEN, &doing)?;
        Ok(true)
    }

    /// Where a function is called.
    pub fn function_url(&self, name: &str, namespace: Option<&str>) -> String {
        self.url(&format!("/function/{}", route(name, namespace)))
    }

    /// Where a function is called asynchronously.
    pub fn async_url(&self, name: &str, namespace: Option<&str>) -> String {
        self.url(&format!("/async-function/{}", route(name, namespace)))
    }
}

fn route(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if !namespace.is_empty() && namespace != DEFAULT_NAMESPACE => {
            format!("{name}.{namespace}")
        }
        _ => name.to_owned(),
    }
}
