//! The function.

pub mod http;

use http::{Request, Response};

/// Answers one call. Text, bytes and a status are answers, and so are pieces that are sent as they come:
///
/// ```
/// # use function::http::Response;
/// Response::pieces((0..10).map(|number| format!("{number}\n").into_bytes()));
/// ```
///
/// To be called without anybody waiting: `pinnace invoke --async NAME`, or POST /async-function/NAME; the answer then
/// goes to the URL in the header X-Callback-Url.
pub fn handle(request: Request) -> Response {
    let name = String::from_utf8_lossy(&request.body);
    let name = match name.trim() {
        "" => "world",
        name => name,
    };
    Response::text(format!("Hello, {name}!\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_whoever_is_named() {
        let request = Request { body: b"Ada\n".to_vec(), ..Request::default() };
        assert_eq!(handle(request).bytes(), b"Hello, Ada!\n");
    }
}
