//! `/build`: what the gateway is asked to build (contract section 14.5).

use std::io::Read;

use pinnace_core::limits;
use ureq::{
    SendBody,
    http::{Method, header},
};

use super::{Answer, Gateway, Patience, early};

impl Gateway {
    /// Sends what is to be built, and returns the answer, whatever its status. Its lines come while it is built.
    ///
    /// # Errors
    /// No answer came, or the archive could not be read.
    pub fn build(
        &self,
        archive: impl Read + 'static,
        headers: &[(&str, &str)],
        doing: &str,
    ) -> anyhow::Result<Answer> {
        self.stopped.reset();
        let body = SendBody::from_owned_reader(early::Body::new(archive, self.stopped.clone()));
        let mut request = self.system(Method::POST, "/build")?;
        if let Some(all) = request.headers_mut() {
            // Else the whole log comes at the end.
            all.insert(header::ACCEPT, header::HeaderValue::from_static("application/x-ndjson"));
        }
        request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.run(request.body(body)?, Patience::Idle(limits::CLIENT_LOAD_IDLE_MAX), 0, doing)
    }
}
