//! Sends one request and gives back one whole answer.

use std::{fmt::Display, sync::Arc, time::Duration};

use reqwest::{
    Certificate, Client, Method, Request, RequestBuilder, Response,
    header::{AUTHORIZATION, HeaderMap},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{
    answer::{self, ErrorAnswer, RawAnswer},
    connection::{Connection, ConnectionError, Credentials},
    json::InvalidPayload,
    redact::Redactions,
    text,
    workspace::Confirmed,
};
use crate::{
    fence::{Fence, Fenced, Permit},
    registry::{
        RegistryError,
        limiter::{Limiter, Priority},
    },
};

/// A larger answer is not read to its end. A thousand models with five versions each are about 1.3 MiB.
const MAX_BODY: usize = 16 << 20;
/// A host that does not take connections is noticed before the whole request's time is up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WORKSPACE_HEADER: &str = "X-MLFLOW-WORKSPACE";

/// One request, relative to the base URL.
#[derive(Clone)]
pub(super) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    limit: usize,
    /// How long it may take, where that is longer than for other calls.
    patience: Duration,
    /// What the body carries that is not to be quoted.
    secret: Option<SecretString>,
}

impl Call {
    fn api(method: Method, endpoint: &str, body: Option<Value>) -> Self {
        let path = format!("api/2.0/mlflow/{endpoint}");
        Self {
            method,
            path,
            query: Vec::new(),
            body,
            limit: MAX_BODY,
            patience: Duration::ZERO,
            secret: None,
        }
    }

    /// Reads an endpoint of the REST API.
    pub(super) fn get(endpoint: &str) -> Self {
        Self::api(Method::GET, endpoint, None)
    }

    /// Reads what the server reports about itself.
    pub(super) fn info(endpoint: &str) -> Self {
        Self { path: format!("api/3.0/mlflow/{endpoint}"), ..Self::get("") }
    }

    /// Reads something at the server's root, at most `limit` bytes of it.
    pub(super) fn root(path: &str, limit: usize) -> Self {
        Self { path: path.to_owned(), limit, ..Self::get("") }
    }

    pub(super) fn post(endpoint: &str, body: Value) -> Self {
        Self::api(Method::POST, endpoint, Some(body))
    }

    pub(super) fn patch(endpoint: &str, body: Value) -> Self {
        Self::api(Method::PATCH, endpoint, Some(body))
    }

    pub(super) fn delete(endpoint: &str, body: Value) -> Self {
        Self::api(Method::DELETE, endpoint, Some(body))
    }

    /// The same, with a body that carries a secret.
    pub(super) fn hiding(self, secret: &SecretString) -> Self {
        Self { secret: Some(secret.clone()), ..self }
    }

    /// The same, with at least so much time.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same with one more query parameter.
    pub(super) fn query(mut self, key: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.query.push((key, value.to_string()));
        self
    }
}

/// The connection to one server, for requests of one priority.
#[derive(Clone, Debug)]
pub(super) struct Http {
    server: Arc<Server>,
    priority: Priority,
}

#[derive(Debug)]
struct Server {
    client: Client,
    base: Url,
    workspace: Option<String>,
    credentials: Option<Credentials>,
    timeout: Duration,
    fence: Fence,
    limiter: Limiter,
    workspaces: Confirmed,
    /// What answers in place of the server.
    #[cfg(any(test, fuzzing))]
    script: Option<Arc<super::script::Script>>,
}

impl Http {
    pub(super) fn new(connection: Connection) -> Result<Self, ConnectionError> {
        connection.check()?;
        let client = client(&connection)?;
        let base = connection.base();
        let Connection { workspace, credentials, timeout, fence, limiter, .. } = connection;
        let server = Server {
            client,
            base,
            workspace,
            credentials,
            timeout,
            fence,
            limiter,
            workspaces: Confirmed::default(),
            #[cfg(any(test, fuzzing))]
            script: None,
        };
        Ok(Self { server: Arc::new(server), priority: Priority::Decision })
    }

    /// The same connection, for requests of this priority.
    pub(super) fn with_priority(&self, priority: Priority) -> Self {
        Self { server: self.server.clone(), priority }
    }

    /// The same connection, but a script answers.
    #[cfg(any(test, fuzzing))]
    pub(super) fn scripted(like: &Self, workspace: Option<&str>, script: Arc<super::script::Script>) -> Self {
        let Server { client, base, credentials, timeout, fence, limiter, .. } = &*like.server;
        let server = Server {
            client: client.clone(),
            base: base.clone(),
            workspace: workspace.map(str::to_owned),
            credentials: credentials.clone(),
            timeout: *timeout,
            fence: fence.clone(),
            limiter: limiter.clone(),
            workspaces: Confirmed::yes(),
            script: Some(script),
        };
        Self { server: Arc::new(server), priority: like.priority }
    }

    /// The configured workspace.
    pub(super) fn workspace(&self) -> Option<&str> {
        self.server.workspace.as_deref()
    }

    /// Sends a call and reads its JSON.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ErrorAnswer> {
        self.require_workspaces(&self.server.workspaces).await?;
        self.ask_unchecked(call).await
    }

    /// The same, also where the server would ignore the workspace.
    pub(super) async fn ask_unchecked<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ErrorAnswer> {
        let answer = self.accepted_unchecked(call).await?;
        answer::json(&answer).map_err(|detail| self.not_a_registry(call, detail).into())
    }

    /// Sends a call and gives its answer back if it is a 2xx.
    pub(super) async fn accepted(&self, call: &Call) -> Result<RawAnswer, ErrorAnswer> {
        self.require_workspaces(&self.server.workspaces).await?;
        self.accepted_unchecked(call).await
    }

    async fn accepted_unchecked(&self, call: &Call) -> Result<RawAnswer, ErrorAnswer> {
        let answer = self.send(call).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(answer::error_message(&answer, &self.host(), self.workspace()))
    }

    /// Returns the server's version, if it reports one. Never an error: only people read it.
    pub(super) async fn server_version(&self) -> Option<String> {
        let answer = self.accepted_unchecked(&Call::root("version", 64)).await.ok()?;
        let version = String::from_utf8(answer.body).ok()?.trim().to_owned();
        let plausible = version.starts_with(|c: char| c.is_ascii_digit())
            && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte));
        (plausible && !answer.cut).then_some(version)
    }

    /// Returns an error about the server's response to this call.
    pub(super) fn not_a_registry(&self, call: &Call, detail: impl Display) -> RegistryError {
        RegistryError::NotARegistry {
            url: self.redacted_url(call),
            detail: text::shorten(&detail.to_string()),
        }
    }

    /// An error about JSON that was read but does not make sense.
    pub(super) fn explain(&self, call: &Call, invalid: InvalidPayload) -> RegistryError {
        match invalid {
            InvalidPayload::Response(detail) => self.not_a_registry(call, detail),
            InvalidPayload::Object(detail) => RegistryError::Rejected { detail: text::shorten(&detail) },
        }
    }

    async fn send(&self, call: &Call) -> Result<RawAnswer, RegistryError> {
        let broken = |error: reqwest::Error| self.broken(&error, call);
        let request = self.request(call).build().map_err(broken)?;
        let redactions = self.redactions(request.headers(), call.secret.clone());
        let answered = async {
            let mut response = self.exchange(request).await?.map_err(broken)?;
            let (body, cut) = read(&mut response, call.limit).await.map_err(broken)?;
            Ok((response.status(), response.headers().clone(), body, cut))
        };
        // The Lease may be lost while a write waits for its turn.
        let _slot = self.server.limiter.turn(self.priority).await;
        let (status, headers, body, cut) = match self.permit(call)? {
            Some(permit) => permit.within(answered).await.map_err(|fenced| self.fenced(fenced))??,
            None => answered.await?,
        };
        Ok(RawAnswer { url: self.redacted_url(call), status, headers, body, cut, redactions })
    }

    /// Returns the permission for what may be a write.
    fn permit(&self, call: &Call) -> Result<Option<Permit>, RegistryError> {
        if call.method == Method::GET {
            return Ok(None);
        }
        self.server.fence.permit().map(Some).map_err(|fenced| self.fenced(fenced))
    }

    fn fenced(&self, fenced: Fenced) -> RegistryError {
        RegistryError::Unreachable { url: self.server.base.to_string(), cause: fenced.to_string() }
    }

    /// Sends a request: the only step that leaves the process.
    async fn exchange(&self, request: Request) -> Result<reqwest::Result<Response>, RegistryError> {
        #[cfg(any(test, fuzzing))]
        if let Some(script) = &self.server.script {
            let ended = || RegistryError::Unreachable {
                url: self.server.base.to_string(),
                cause: "the script ends".into(),
            };
            return script.next(&request).map(Ok).ok_or_else(ended);
        }
        Ok(self.server.client.execute(request).await)
    }

    /// What a request with these headers, and with this in its body, gives away.
    fn redactions(&self, headers: &HeaderMap, carried: Option<SecretString>) -> Redactions {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| value.split(' ').next_back()).map(SecretString::from);
        let given = self.server.credentials.as_ref().map(|credentials| match credentials {
            Credentials::Basic { password, .. } => password.clone(),
            Credentials::Bearer(token) => token.clone(),
        });
        Redactions::new(sent.into_iter().chain(given).chain(carried))
    }

    fn request(&self, call: &Call) -> RequestBuilder {
        let mut url = self.server.base.clone();
        url.set_path(&format!("{}{}", self.server.base.path(), call.path));
        let mut request =
            self.server.client.request(call.method.clone(), url).query(&call.query).timeout(self.limit(call));
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        if let Some(workspace) = &self.server.workspace {
            request = request.header(WORKSPACE_HEADER, workspace);
        }
        match &self.server.credentials {
            Some(Credentials::Basic { username, password }) => {
                request.basic_auth(username, Some(password.expose_secret()))
            }
            Some(Credentials::Bearer(token)) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// How long a call may take.
    fn limit(&self, call: &Call) -> Duration {
        self.server.timeout.max(call.patience)
    }

    fn broken(&self, error: &reqwest::Error, call: &Call) -> RegistryError {
        let url = self.server.base.to_string();
        match error.is_timeout() {
            true if error.is_connect() => {
                RegistryError::TimedOut { url, limit: self.server.timeout.min(CONNECT_TIMEOUT) }
            }
            true => RegistryError::TimedOut { url, limit: self.limit(call) },
            false => RegistryError::Unreachable { url, cause: cause(error) },
        }
    }

    /// The Host header as the client sends it: with the port, unless it is the scheme's own.
    fn host(&self) -> String {
        let host = self.server.base.host_str().unwrap_or_default();
        self.server.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The URL of a call, without its query.
    fn redacted_url(&self, call: &Call) -> String {
        format!("{}{}", self.server.base, call.path)
    }
}

fn client(connection: &Connection) -> Result<Client, ConnectionError> {
    let tls = |error: reqwest::Error| ConnectionError::Tls { detail: cause(&error) };
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let detail = "this process has installed no crypto provider".to_owned();
        return Err(ConnectionError::Tls { detail });
    }
    let builder = Client::builder()
        .user_agent(concat!("laurel/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .timeout(connection.timeout)
        .connect_timeout(connection.timeout.min(CONNECT_TIMEOUT))
        // MLflow's server, uvicorn with its default of several workers, answers on a reused connection 40 ms
        // late (Nagle meets delayed ACK), and closes idle ones after 5 s, also just as we write.
        .pool_max_idle_per_host(0);
    let builder = match &connection.ca_pem {
        Some(pem) => builder.tls_certs_merge(certificates(pem)?),
        // Without TLS no trusted certificates are needed, and an image without any has to do.
        None if connection.url.scheme() == "http" => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(tls)
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, ConnectionError> {
    let ca = |detail: String| ConnectionError::Ca { detail };
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| ca(cause(&error)))?;
    if certificates.is_empty() {
        return Err(ca("there is no certificate in it".to_owned()));
    }
    // Whether they are certificates inside shows only when a client has to trust them and nothing else.
    Client::builder()
        .tls_certs_only(certificates.clone())
        .build()
        .map_err(|error| ca(format!("one of them cannot be read: {}", cause(&error))))?;
    Ok(certificates)
}

/// The body up to `limit` bytes, and whether there was more.
async fn read(response: &mut Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok((body, true));
        }
    }
    Ok((body, false))
}

/// The innermost cause, in plain words.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let cause = innermost.to_string();
    // "Connection refused (os error 111)": the number helps nobody.
    let cause = cause.split(" (os error").next().unwrap_or_default();
    let hint = if cause.contains("UnknownIssuer") {
        "; its certificate was issued by a CA that is not trusted here: name that CA"
    } else if cause.contains("InvalidContentType") {
        "; that port does not use TLS: use http:// or its TLS port"
    } else if error.is_dns() {
        "; the host name cannot be resolved: check it"
    } else {
        ""
    };
    text::shorten(&format!("{cause}{hint}"))
}
