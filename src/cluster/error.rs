//! Errors of API server calls, as messages that name the object and the next step.

use std::error::Error;

use kube::runtime::watcher;

use crate::api::condition::{Reason, ReasonMessage, shortened};

/// Returns the reason and message of a failed `verb` on `object`.
pub(crate) fn error_message(error: &kube::Error, verb: &str, object: &str) -> ReasonMessage {
    match error {
        kube::Error::Api(status) if status.message.contains("because it is being terminated") => {
            ReasonMessage::new(
                Reason::Deleting,
                format!("cannot {verb} {object}: the namespace is being deleted"),
            )
        }
        kube::Error::Api(status) if status.is_forbidden() => ReasonMessage::new(
            Reason::ApplyForbidden,
            format!(
                "Laurel is not allowed to {verb} {object}: {}; a policy or a missing permission forbids it: \
                 compare Laurel's role with the chart's",
                shortened(&status.message, 600)
            ),
        ),
        kube::Error::Api(status)
            if is_of_the_object(&status.message)
                || (400..500).contains(&status.code) && ![404, 409, 429].contains(&status.code) =>
        {
            ReasonMessage::new(
                Reason::ApplyRefused,
                format!(
                    "cannot {verb} {object}: rejected by the API server: {}",
                    shortened(&status.message, 800)
                ),
            )
        }
        error => ReasonMessage::new(
            Reason::ApplyFailed,
            format!("cannot {verb} {object}, retrying: {}", shortened(&cause(error), 800)),
        ),
    }
}

/// Whether the object itself is not valid: the API server reports an unknown field in a server-side apply, or
/// one of the wrong type, with the status of an internal error.
fn is_of_the_object(message: &str) -> bool {
    message.contains("failed to create typed patch object")
}

/// Returns the API server's message, or the innermost cause if there is none.
pub(crate) fn cause(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error
        && !status.message.is_empty()
    {
        return status.message.clone();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Returns why a watch failed, and the HTTP status, or 0.
pub(crate) fn watch_error(error: &watcher::Error) -> (String, u16) {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            let code = if let kube::Error::Api(status) = error { status.code } else { 0 };
            (cause(error), code)
        }
        watcher::Error::WatchError(status) => (status.message.clone(), status.code),
        watcher::Error::NoResourceVersion => (error.to_string(), 0),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn the_message_of_the_api_server_is_quoted() {
        let status = Status::failure("the object has been modified", "Conflict").with_code(409);
        let error = error_message(&kube::Error::Api(status.boxed()), "apply", "the Service \"fraud\"");
        assert_eq!(error.reason, Reason::ApplyFailed);
        assert_eq!(
            error.message,
            "cannot apply the Service \"fraud\", retrying: the object has been modified"
        );
    }

    #[test]
    fn an_unknown_field_in_an_apply_is_a_rejection_although_its_status_is_500() {
        let message = "failed to create typed patch object (risk/fraud-v1; apps/v1, Kind=Deployment): \
                    .spec.template.spec.nodeSelectr: field not declared in schema";
        let status = Status::failure(message, "InternalError").with_code(500);
        let error = error_message(&kube::Error::Api(status.boxed()), "apply", "the Deployment \"fraud-v1\"");
        assert_eq!(error.reason, Reason::ApplyRefused);
        assert!(error.message.contains("nodeSelectr"), "{}", error.message);
    }

    #[test]
    fn without_a_response_the_innermost_cause_is_reported() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = kube::Error::Service(Box::new(refused));
        assert_eq!(cause(&error), "connection refused");
    }
}
