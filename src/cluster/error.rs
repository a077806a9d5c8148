//! Why the API server did not do what it was asked, in words that name the object and the next step.

use std::error::Error;

use crate::api::condition::{Reason, ReasonMessage, shortened};

/// A refusal of `verb` on `object`.
pub(crate) fn error_message(error: &kube::Error, verb: &str, object: &str) -> ReasonMessage {
    match error {
        kube::Error::Api(status) if status.message.contains("because it is being terminated") => {
            ReasonMessage::new(
                Reason::Deleting,
                format!("{object} is not written: the namespace is being deleted"),
            )
        }
        kube::Error::Api(status) if status.is_forbidden() => ReasonMessage::new(
            Reason::ApplyForbidden,
            format!(
                "Laurel may not {verb} {object}: {}; a policy or a missing permission forbids it: compare Laurel's role \
                 with the chart's",
                shortened(&status.message, 600)
            ),
        ),
        kube::Error::Api(status)
            if is_of_the_object(&status.message)
                || (400..500).contains(&status.code) && ![404, 409, 429].contains(&status.code) =>
        {
            ReasonMessage::new(
                Reason::ApplyRefused,
                format!("the API server refuses to {verb} {object}: {}", shortened(&status.message, 800)),
            )
        }
        error => ReasonMessage::new(
            Reason::ApplyFailed,
            format!("could not {verb} {object}, and will try again: {}", shortened(&cause(error), 800)),
        ),
    }
}

/// Whether the object itself is at fault, by the API server's words: a server-side apply meets an unknown field, or one of the
/// wrong type, with the status of an error of its own.
fn is_of_the_object(message: &str) -> bool {
    message.contains("failed to create typed patch object")
}

/// What the API server said; where it said nothing, the innermost cause.
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

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_the_api_server_says_is_told_without_ornament() {
        let status = Status::failure("the object has been modified", "Conflict").with_code(409);
        let cause = error_message(&kube::Error::Api(status.boxed()), "apply", "the Service \"fraud\"");
        assert_eq!(cause.reason, Reason::ApplyFailed);
        assert_eq!(
            cause.message,
            "could not apply the Service \"fraud\", and will try again: the object has been modified"
        );
    }

    #[test]
    fn an_unknown_field_in_an_apply_is_a_refusal_though_its_status_is_500() {
        let said = "failed to create typed patch object (risk/fraud-v1; apps/v1, Kind=Deployment): \
                    .spec.template.spec.nodeSelectr: field not declared in schema";
        let status = Status::failure(said, "InternalError").with_code(500);
        let cause = error_message(&kube::Error::Api(status.boxed()), "apply", "the Deployment \"fraud-v1\"");
        assert_eq!(cause.reason, Reason::ApplyRefused);
        assert!(cause.message.contains("nodeSelectr"), "{}", cause.message);
    }

    #[test]
    fn where_nobody_answers_the_innermost_cause_is_told() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = kube::Error::Service(Box::new(refused));
        assert_eq!(cause(&error), "connection refused");
    }
}
