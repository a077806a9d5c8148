//! The meaning of a response to the input example.
//!
//! Only a response of its own server fails a version. Anything in front of the server, such as a mesh, a
//! gateway or an authenticating proxy, proves nothing about the version.

use reqwest::{Response, StatusCode, header::HeaderMap};

use crate::api::condition::{ANSWERED, shortened};

/// Maximum number of bytes read from a response.
const READ_MAX: usize = 4 << 10;
/// Maximum number of bytes quoted from it.
const QUOTED_MAX: usize = 300;
/// The body of MLflow's 504 response when its own time limit is reached.
const MLFLOW_TIMEOUT: &str = "Request processing time exceeded limit";

/// The meaning of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The server answered the example.
    Passed,
    /// The server returned an error.
    Failed(String),
    /// The server is busy; it fails if it stays so.
    Busy(String),
    /// Something in front of the server answered.
    Foreign(String),
}

/// Reads as much of the response as needed.
pub(super) async fn read(mut response: Response) -> Reply {
    let status = response.status();
    if status.is_success() {
        return Reply::Passed;
    }
    let is_proxy = is_from_proxy(response.headers());
    let body = beginning(&mut response).await;
    classify(status, is_proxy, body.trim())
}

fn classify(status: StatusCode, is_proxy: bool, body: &str) -> Reply {
    let reported = format!("{ANSWERED} {status}: {}", shortened(body, QUOTED_MAX));
    match status.as_u16() {
        504 if body.contains(MLFLOW_TIMEOUT) => Reply::Failed(format!(
            "{reported}; if predictions need longer, set MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT in \
             spec.serving.env"
        )),
        300..=399 | 401 | 403 | 407 | 429 | 502 | 504 => Reply::Foreign(format!(
            "{reported}; something in front of the model server answered: make sure that a mesh, a proxy or a \
             policy lets Laurel's pod in"
        )),
        413 => Reply::Foreign(format!(
            "{reported}; let the pods take a request of the size of the input example"
        )),
        503 if is_proxy => {
            Reply::Foreign(format!("{reported}; a proxy in front of the model server answered"))
        }
        503 => Reply::Busy(reported),
        _ => Reply::Failed(reported),
    }
}

/// Whether a mesh's proxy generated the response: one that an Envoy only forwards has the upstream time in a
/// header.
fn is_from_proxy(headers: &HeaderMap) -> bool {
    let is_envoy = headers.get("server").is_some_and(|server| server.as_bytes().ends_with(b"envoy"));
    headers.contains_key("l5d-proxy-error")
        || is_envoy && !headers.contains_key("x-envoy-upstream-service-time")
}

/// Returns the beginning of a body. A truncated body counts as a short one: its status has been read.
async fn beginning(response: &mut Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = READ_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, is_proxy: bool, body: &str) -> Reply {
        classify(StatusCode::from_u16(status).unwrap(), is_proxy, body)
    }

    #[test]
    fn only_the_model_server_itself_fails_a_version() {
        for status in [400, 404, 405, 415, 422, 500, 501] {
            assert!(matches!(reply(status, false, "why"), Reply::Failed(_)), "{status}");
        }
        for status in [302, 401, 403, 407, 413, 429, 502, 504] {
            assert!(matches!(reply(status, false, "why"), Reply::Foreign(_)), "{status}");
        }
        assert!(matches!(reply(503, false, ""), Reply::Busy(_)));
        assert!(matches!(reply(503, true, "upstream connect error"), Reply::Foreign(_)));
    }

    #[test]
    fn mlflow_s_own_time_limit_is_a_response_of_the_model_server() {
        let Reply::Failed(reported) = reply(504, false, MLFLOW_TIMEOUT) else { panic!("not failed") };
        assert!(reported.contains("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT in spec.serving.env"), "{reported}");
    }

    #[test]
    fn responses_of_a_mesh_are_recognized_by_their_headers() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            pairs.collect::<HeaderMap>()
        };
        assert!(is_from_proxy(&headers(&[("server", "istio-envoy")])));
        assert!(is_from_proxy(&headers(&[("l5d-proxy-error", "logical service unavailable")])));
        assert!(!is_from_proxy(&headers(&[("server", "envoy"), ("x-envoy-upstream-service-time", "12")])));
        assert!(!is_from_proxy(&headers(&[("server", "uvicorn")])));
    }
}
