//! A conversation with a server that says anything: each call of the client, and what may be concluded from
//! the answers.
//!
//! The whole client runs, from the call to the fact or the error; only the network is a script
//! ([`Scripted`]), because a connection for each of a fuzzer's hundred thousand runs a second is not to be
//! had. The oracle reads the same answers by itself, as JSON and by the book: absence is a 404 with MLflow's
//! own code, nothing else.
//!
//! An input is a text that a person can write, in HTTP's own form:
//!
//! ```text
//! version workspace
//! ---
//! 404
//! Content-Type: application/json
//!
//! {"error_code": "RESOURCE_DOES_NOT_EXIST"}
//! ---
//! 200
//!
//! {}
//! ```

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    api::names::{AliasName, ModelName, Version},
    registry::{
        InputExample, Registry, RegistryError,
        mlflow::script::{PASSWORD, Scripted},
    },
};

/// How large an input example may be.
const LIMIT: usize = 1 << 20;

/// One call, with whatever the server says.
pub fn mlflow_bodies(input: &[u8]) {
    let mut parts = split(input, b"\n---\n").into_iter();
    let call = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let (call, workspace) = match call.trim().split_once(' ') {
        Some((call, _)) => (call.to_owned(), Some("team-a")),
        None => (call.trim().to_owned(), None),
    };
    let said: Vec<Said> = parts.take(30).filter_map(Said::read).collect();
    let server = Scripted::new(workspace);
    server.answer(said.iter().map(Said::response));
    let talk = Talk { server: &server, said: &said, workspace: workspace.is_some() };
    talk.about(&call);
}

fn split<'a>(mut input: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = input.windows(separator.len()).position(|window| window == separator) {
        parts.push(&input[..at]);
        input = &input[at + separator.len()..];
    }
    parts.push(input);
    parts
}

/// What the server says to one request.
struct Said {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl Said {
    fn read(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|&byte| byte == b'\n');
        let status = StatusCode::from_bytes(lines.next()?).ok()?;
        let mut headers = Vec::new();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let colon = line.iter().position(|&byte| byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.push((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?));
        }
        let mut body = lines.collect::<Vec<_>>().join(&b'\n');
        if headers.iter().any(|(name, _)| name == "x-long") {
            // More than the client reads of a file.
            body.resize((1 << 20) + 1, b' ');
        }
        Some(Self { status, headers, body })
    }

    fn response(&self) -> Response<Vec<u8>> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers.iter().cloned());
        response
    }

    fn is_object(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"{")
            && serde_json::from_slice::<IgnoredAny>(&self.body).is_ok()
    }

    fn code(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Refusal {
            error_code: String,
        }
        let error_message = serde_json::from_slice::<Refusal>(&self.body).ok();
        error_message.filter(|_| self.is_object()).map(|error_message| error_message.error_code)
    }

    /// MLflow itself says that what was asked for does not exist.
    fn is_absence(&self) -> bool {
        self.status == 404 && self.code().as_deref() == Some("RESOURCE_DOES_NOT_EXIST")
    }

    fn is_existence(&self) -> bool {
        [400, 409].contains(&self.status.as_u16())
            && self.code().is_some_and(|code| ["RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"].contains(&&*code))
    }

    fn is_success(&self) -> bool {
        self.status.is_success() && self.is_object()
    }
}

/// A call and all that is known about it.
struct Talk<'a> {
    server: &'a Scripted,
    said: &'a [Said],
    workspace: bool,
}

impl Talk<'_> {
    fn about(&self, call: &str) {
        let model: ModelName = "fraud".parse().unwrap();
        let alias: AliasName = "champion".parse().unwrap();
        let version = Version::new(3).unwrap();
        let tags = BTreeMap::from([("team".to_owned(), "risk".to_owned())]);
        match call {
            "model" => {
                let answer = self.server.run(|registry| registry.model(&model));
                self.one(answer, |facts| facts.name == model);
            }
            "version" => {
                let answer = self.server.run(|registry| registry.version(&model, version));
                self.one(answer, |facts| facts.version == version);
            }
            "models" => self.models(),
            "newest" => {
                let versions = Self::checked(self.server.run(|registry| registry.newest_versions(&model, 3)));
                if let Some(versions) = versions {
                    assert!(versions.len() <= 3);
                    assert!(
                        versions.windows(2).all(|pair| pair[0].version > pair[1].version),
                        "{versions:?}"
                    );
                    assert!(self.heard().all(Said::is_success), "a listing from something else");
                }
            }
            "example" => self.example(&model, version),
            "probe" => {
                if Self::checked(self.server.run(Registry::probe)).is_some() {
                    assert!(self.said[0].is_success(), "well, after an answer that is none");
                }
            }
            "create" => {
                let done =
                    Self::checked(self.server.run(|registry| registry.create_model(&model, "", &tags)));
                if done.is_some() {
                    assert!(self.said[0].is_success() || self.said[0].is_existence());
                }
            }
            "describe" => self.changed(self.server.run(|registry| registry.set_description(&model, "text"))),
            "tag" => self.changed(self.server.run(|registry| registry.set_model_tag(&model, "key", "value"))),
            "alias" => self.changed(self.server.run(|registry| registry.set_alias(&model, &alias, version))),
            "untag" => self.removed(self.server.run(|registry| registry.delete_model_tag(&model, "key"))),
            "unalias" => self.removed(self.server.run(|registry| registry.delete_alias(&model, &alias))),
            _ => self.removed(self.server.run(|registry| registry.delete_model(&model))),
        }
    }

    /// What was said so far.
    fn heard(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().take(self.server.asked().len())
    }

    /// The value, if there is one. An error is a sentence that a person can read and everybody may.
    fn checked<T>(answer: Result<T, RegistryError>) -> Option<T> {
        let error = match answer {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(!text.is_empty() && text.chars().count() < 1000, "{} characters", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(!text.contains(PASSWORD), "it tells the password: {text:?}");
        None
    }

    /// Whether MLflow said, about what the call names, that it does not exist: not about the workspace.
    fn said_absent(&self) -> bool {
        let workspace_is_there = || self.said.get(1).is_some_and(Said::is_success);
        self.said.first().is_some_and(Said::is_absence) && (!self.workspace || workspace_is_there())
    }

    /// An object, or `None` where it is absent.
    fn one<T>(&self, answer: Result<Option<T>, RegistryError>, is_asked_for: impl FnOnce(&T) -> bool) {
        match Self::checked(answer) {
            Some(Some(facts)) => {
                assert!(is_asked_for(&facts) && self.said[0].is_success(), "another one, or from an error");
            }
            Some(None) => assert!(self.said_absent(), "absent, though nobody said so"),
            None => {}
        }
    }

    fn changed(&self, answer: Result<(), RegistryError>) {
        if Self::checked(answer).is_some() {
            assert!(self.said[0].is_success(), "changed, though nobody said so");
        }
    }

    fn removed(&self, answer: Result<(), RegistryError>) {
        if Self::checked(answer).is_some() {
            assert!(self.said[0].is_success() || self.said_absent(), "removed, though nobody said so");
        }
    }

    fn models(&self) {
        let asked: BTreeSet<ModelName> =
            ["fraud", "churn", "it's"].iter().map(|name| name.parse().unwrap()).collect();
        let Some(found) = Self::checked(self.server.run(|registry| registry.models(&asked))) else { return };
        for (name, facts) in &found {
            assert!(asked.contains(name) && facts.name == *name, "nobody asked for {name}");
        }
        // Its listing, or what it says of each model when it refuses the listing.
        let listed = self.heard().all(Said::is_success);
        let refused = self.said[0].status.is_client_error() && self.said[0].code().is_some();
        assert!(listed || refused, "a listing from something else");
    }

    fn example(&self, model: &ModelName, version: Version) {
        let Some(example) =
            Self::checked(self.server.run(|registry| registry.input_example(model, version, LIMIT)))
        else {
            return;
        };
        let [file, rest @ ..] = self.said else { panic!("an example from nowhere") };
        match example {
            Some(InputExample::Body(body)) => {
                // Not parsed: MLflow writes NaN into it, which is not JSON.
                let text = body.trim_ascii();
                let is_like_an_object = text.starts_with(b"{") && text.ends_with(b"}");
                assert!(file.status.is_success() && is_like_an_object, "an example from {}", file.status);
                assert!(body.len() <= LIMIT, "{} bytes of at most {LIMIT}", body.len());
                return assert_eq!(
                    String::from_utf8_lossy(&body),
                    String::from_utf8_lossy(&file.body),
                    "another body"
                );
            }
            Some(InputExample::TooLarge) => {
                return assert!(file.status.is_success() && file.body.len() > LIMIT);
            }
            None => {}
        }
        // The file does not exist, but the version does; or the server failed, and the model's own file names
        // none.
        let version_exists = file.is_absence() && rest.first().is_some_and(Said::is_success);
        let model_has_none = file.status.is_server_error()
            && rest.first().is_some_and(|said| said.status.is_success() && said.body.len() <= 1 << 20);
        assert!(version_exists || model_has_none, "no example, though nobody said so");
    }
}
