//! Web glue of every function: who is calling, strict bodies, problems, request ids, the log line.

use crate::issuers::{self, Refused};
use crate::{Host, Trace, trace};
use astra_kernel::json::Objects;
use astra_kernel::token::TokenError;
use astra_kernel::{Access, Claims, Code, ConfigError, Permission, Problem, Role, Timestamp, WorkspaceId, permission};
use astra_quota::QuotaView;
use astra_quota::words::{Answer, Ask};
use astra_store::audit::Because;
use astra_store::roles::Standing;
use astra_store::{Operator, StoreError, Tenant};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tower_service::Service as _;

/// The largest body, except where a route says otherwise: 1 MiB.
pub const BODY_LIMIT: usize = 1 << 20;

/// Names a request in responses and logs.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A handler's refusal. Becomes `application/problem+json` on the way out, where request id and path are known.
#[derive(Debug)]
pub struct Failure {
    problem: Problem,
    cause: Option<String>,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, cause: None }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { cause: Some(error.to_string()), problem: error.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let problem = Problem::new(Code::Unavailable, format!("This deployment is not configured: {error}."));
        Self { problem, cause: Some(error.to_string()) }
    }
}

impl From<crate::CounterUnreachable> for Failure {
    fn from(error: crate::CounterUnreachable) -> Self {
        let detail = "The quota counter cannot be reached, so nothing is started. Try again.";
        Self { problem: Problem::new(Code::Unavailable, detail).with_retry_after(1), cause: Some(error.to_string()) }
    }
}

impl Failure {
    /// A fault of ours, with the cause for the log.
    pub fn internal(cause: impl Into<String>) -> Self {
        let problem = Problem::new(Code::Internal, "An internal error. The request id names it in the log.");
        Self { problem, cause: Some(cause.into()) }
    }

    /// What the caller will see.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// What the log will see besides, if anything.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::from_u16(self.problem.code.status()).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// What a handler knows of its request: the host, the request's id, and the bearer token's claims once asked for.
#[derive(Clone)]
pub struct Call<H> {
    /// The host.
    pub host: H,
    /// The request's id.
    pub request_id: Arc<str>,
    /// The log line in the making.
    pub trace: Trace,
    /// When the request arrived.
    pub arrived: Timestamp,
    authorization: Option<HeaderValue>,
    /// Method and pattern of the route.
    route: Option<(http::Method, MatchedPath)>,
}

impl<H> std::fmt::Debug for Call<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl<S: Sync, H: Host> FromRequestParts<S> for Call<H> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let call = parts.extensions.get::<Self>().cloned().ok_or_else(|| Failure::internal("no call in the request"))?;
        let route = parts.extensions.get::<MatchedPath>().map(|pattern| (parts.method.clone(), pattern.clone()));
        Ok(Self { route, ..call })
    }
}

/// A caller who may do what they asked, and the data they may do it to.
#[derive(Debug)]
pub struct Allowed<'a, H> {
    /// Who.
    pub claims: Claims,
    /// What they are in the workspace now.
    pub access: Access,
    /// The workspace's data.
    pub data: Tenant<'a, H>,
}

impl<H> Allowed<'_, H> {
    /// Whether they may do this, too.
    pub fn may(&self, permission: Permission) -> bool {
        self.access.allows(self.claims.scope.as_deref(), permission)
    }

    /// Whether they may let others do this: what they may do themselves. The operator gives any role, within the token's scope.
    pub fn may_give(&self, permission: Permission) -> bool {
        if self.claims.is_operator() { permission::covers(self.claims.scope.as_deref(), permission) } else { self.may(permission) }
    }

    /// Nobody gives more than they have: of what this role allows, within a scope, they may do all.
    ///
    /// # Errors
    /// `403`, with a permission that they do not have.
    pub fn gives_no_more(&self, given: &Access, scope: Option<&[String]>) -> Result<(), Problem> {
        let Some(more) = given.permissions(scope).find(|permission| !self.may_give(*permission)) else { return Ok(()) };
        let detail = format!("The role {} has the permission {}, which you do not have, so you cannot give it.", given.role, more.as_str());
        Err(Problem::new(Code::Forbidden, detail))
    }

    /// Whether who is an owner is theirs to say.
    pub fn is_over_owners(&self) -> bool {
        self.access.role == Role::Owner.as_str() || self.claims.is_operator()
    }
}

/// Who does something, as the database writes it down.
#[derive(serde::Serialize)]
struct Actor<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    operator: bool,
    jti: &'a str,
    request: &'a str,
}

impl<H: Host> Call<H> {
    /// Who is calling.
    ///
    /// # Errors
    /// `401` without a token that verifies; `503` when that cannot be found out, because its issuer is away.
    pub async fn claims(&self) -> Result<Claims, Failure> {
        const HOW: &str = "Send a token as \"Authorization: Bearer …\"; POST /workspaces/{id}/tokens issues them.";
        let header = self.authorization.as_ref().ok_or_else(|| unauthorized(format!("No bearer token. {HOW}")))?;
        let token = header
            .to_str()
            .ok()
            .and_then(|h| h.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .ok_or_else(|| unauthorized(format!("The Authorization header holds no bearer token. {HOW}")))?
            .1;
        issuers::verify(&self.host, token.trim()).await.map_err(|refused| match refused {
            Refused::Token(TokenError::Expired) => unauthorized("The token has expired. Get a new one.".into()),
            Refused::Token(TokenError::Invalid(check)) => {
                self.trace.cause(format!("token: {check}"));
                unauthorized("The token does not verify.".into())
            }
            Refused::IssuerAway => {
                self.trace.cause("token: the issuer's keys cannot be had".to_owned());
                let detail = "The keys of the token's issuer cannot be had at the moment, so it cannot be checked. Try again.";
                Problem::new(Code::Unavailable, detail).with_retry_after(issuers::RETRY_AFTER_SECONDS).into()
            }
            Refused::Config(error) => error.into(),
        })
    }

    /// The workspace of a path for a caller whose token is for it and not narrowed to less than this: nobody has asked the database what they are there. An
    /// operator's token may name any.
    ///
    /// # Errors
    /// `401`, or `403`: the same whether the workspace exists or not.
    pub async fn named(&self, path_workspace: &str, needs: Permission) -> Result<(Claims, WorkspaceId), Failure> {
        let (claims, workspace) = self.addressed(path_workspace).await?;
        if !permission::covers(claims.scope.as_deref(), needs) {
            self.note_denial(&claims, &workspace, needs, Because::Scope)?;
            return Err(Problem::forbidden(needs.as_str()).into());
        }
        Ok((claims, workspace))
    }

    /// The workspace of a path for a caller whose token is for it, whatever they may do there.
    async fn addressed(&self, path_workspace: &str) -> Result<(Claims, WorkspaceId), Failure> {
        let claims = self.claims().await?;
        let workspace = match &claims.ws {
            Some(ws) if ws.as_str() == path_workspace => ws.clone(),
            Some(_) => return Err(Problem::new(Code::Forbidden, "The token is not for this workspace.").into()),
            None => WorkspaceId::try_from(path_workspace.to_owned()).map_err(|_| Problem::not_found("workspace"))?,
        };
        self.trace.workspace(&workspace);
        Ok((claims, workspace))
    }

    /// Who does something, as the database writes it down: for [`Tenant::by`].
    ///
    /// # Errors
    /// None that can come.
    pub fn actor(&self, claims: &Claims) -> Result<String, Failure> {
        let actor = Actor { sub: &claims.sub, operator: claims.is_operator(), jti: &claims.jti, request: &self.request_id };
        serde_json::to_string(&actor).map_err(|error| Failure::internal(error.to_string()))
    }

    /// Opens a workspace's data for a caller who has the permission there now: the token says who they are, the database what they may do.
    ///
    /// # Errors
    /// `401`, or `403`: the same whether the workspace exists or not.
    pub async fn tenant(&self, path_workspace: &str, needs: Permission) -> Result<Allowed<'_, H>, Failure> {
        let (claims, workspace) = self.addressed(path_workspace).await?;
        let allowed = self.open(claims, workspace, Some(needs)).await?;
        self.require(&allowed, needs)?;
        Ok(allowed)
    }

    /// What a caller must be allowed besides, because of what they sent: the audit log has it when they are not.
    ///
    /// # Errors
    /// `403`.
    pub fn require(&self, allowed: &Allowed<'_, H>, needs: Permission) -> Result<(), Failure> {
        if allowed.may(needs) {
            return Ok(());
        }
        Err(self.refused(allowed, needs, Problem::forbidden(needs.as_str())))
    }

    /// What a handler refuses to a caller by rules of its own: the audit log has it, as a denial of that permission.
    pub fn refused(&self, allowed: &Allowed<'_, H>, needs: Permission, problem: Problem) -> Failure {
        let because = if permission::covers(allowed.claims.scope.as_deref(), needs) { Because::Role } else { Because::Scope };
        match self.note_denial(&allowed.claims, allowed.data.workspace(), needs, because) {
            Ok(()) => problem.into(),
            Err(failure) => failure,
        }
    }

    /// Opens a workspace's data for a member, whatever they may do there: for what each may ask of themselves. What more a handler does, it asks for by
    /// [`Allowed::may`].
    ///
    /// # Errors
    /// `401`, or `403`: the same whether the workspace exists or not.
    pub async fn member(&self, path_workspace: &str) -> Result<Allowed<'_, H>, Failure> {
        let (claims, workspace) = self.addressed(path_workspace).await?;
        self.open(claims, workspace, None).await
    }

    /// Opens a workspace's data with what its caller is there now. `needs` is what the audit log says that they asked for, when they are nobody there.
    async fn open(&self, claims: Claims, workspace: WorkspaceId, needs: Option<Permission>) -> Result<Allowed<'_, H>, Failure> {
        let data = Tenant::open(&self.host, workspace).by(self.actor(&claims)?);
        let note = |because| needs.map_or(Ok(()), |needs| self.note_denial(&claims, data.workspace(), needs, because));
        let access = if claims.is_operator() {
            Access::default_of(Role::Operator.as_str())
        } else {
            match data.standing(&claims.sub, &claims.jti).await? {
                Standing::Member(access) => access,
                Standing::NoMember => {
                    note(Because::NoMember)?;
                    return Err(Problem::no_member().into());
                }
                Standing::TokenRevoked => {
                    note(Because::Revoked)?;
                    return Err(Problem::token_revoked().into());
                }
            }
        };
        Ok(Allowed { claims, access, data })
    }

    /// Has the audit log say, after the response, that somebody was refused: once a minute for the same person and permission ([`crate::denials`]).
    ///
    /// # Errors
    /// None that can come.
    pub fn note_denial(&self, claims: &Claims, workspace: &WorkspaceId, needs: Permission, because: Because) -> Result<(), Failure> {
        if !self.host.shared().denials().is_new(workspace, &claims.sub, needs, self.host.now()) {
            return Ok(());
        }
        let asked = match &self.route {
            Some((method, pattern)) => format!("{method} {}", pattern.as_str()),
            None => needs.as_str().to_owned(),
        };
        let (host, workspace, actor) = (self.host.clone(), workspace.clone(), self.actor(claims)?);
        self.host.background(async move {
            if Tenant::open(&host, workspace).by(actor).audit_denial(&asked, needs, because).await.is_err() {
                host.log(r#"{"event":"audit","error":"a denial was not written down"}"#);
            }
        });
        Ok(())
    }

    /// Opens what spans workspaces, for operators.
    ///
    /// # Errors
    /// `401`, or `403` for everyone else.
    pub async fn operator(&self, needs: Permission) -> Result<Operator<'_, H>, Failure> {
        self.operator_claims(needs).await.map(|_| Operator::open(&self.host))
    }

    /// The same for who is written down.
    ///
    /// # Errors
    /// As [`Call::operator`].
    pub async fn operator_claims(&self, needs: Permission) -> Result<Claims, Failure> {
        let claims = self.claims().await?;
        let allows = |role: Role| Access::default_of(role.as_str()).allows(claims.scope.as_deref(), needs);
        if claims.is_operator() && allows(Role::Operator) {
            Ok(claims)
        } else {
            Err(Problem::new(Code::Forbidden, "This is the operator's: it needs an operator token.").into())
        }
    }
}

fn unauthorized(detail: String) -> Failure {
    Problem::new(Code::Unauthorized, detail).into()
}

/// A JSON body that fits its type exactly: unknown fields are named and refused by types that say `deny_unknown_fields`.
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for StrictJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(Code::UnsupportedMediaType, "This route reads application/json.").into());
        }
        let bytes = read_body(request, BODY_LIMIT).await?;
        parse_json(&bytes).map(Self).map_err(Failure::from)
    }
}

/// Reads a body up to a limit in bytes.
///
/// # Errors
/// As [`BodyParts::next`].
pub async fn read_body(request: Request, limit: usize) -> Result<bytes::Bytes, Failure> {
    // Put together as it comes, in a place of the size that is said.
    let said = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut bytes = Vec::with_capacity(said.unwrap_or(0).min(limit));
    let mut body = BodyParts::new(request, limit);
    while let Some(part) = body.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

/// A body as it comes, up to a limit in bytes.
#[derive(Debug)]
pub struct BodyParts {
    body: Limited<axum::body::Body>,
    limit: usize,
}

impl BodyParts {
    /// Of a request.
    pub fn new(request: Request, limit: usize) -> Self {
        Self { body: Limited::new(request.into_body(), limit), limit }
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// `413` above the limit, `400` when it breaks off.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        match self.body.frame().await {
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Problem::new(Code::PayloadTooLarge, format!("The body is larger than {} bytes.", self.limit)).into())
            }
            Some(Err(_)) => Err(Problem::new(Code::BadRequest, "The body broke off.").into()),
            None => Ok(None),
        }
    }
}

/// Parses JSON strictly. A syntax error is a `400`; a field that does not fit is a `422` with its JSON pointer.
///
/// # Errors
/// The problem.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::new(Code::BadRequest, "The body is not JSON: it is not UTF-8."))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(Objects(&mut deserializer)).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        if inner.is_data() {
            // serde's words name fields and types; of values at most the one that did not fit, which is the caller's own.
            Problem::field(if pointer.is_empty() { "/" } else { &pointer }, without_position(&inner.to_string()))
        } else {
            Problem::new(Code::BadRequest, format!("The body is not JSON: line {}, column {}.", inner.line(), inner.column()))
        }
    })?;
    deserializer.end().map_err(|_| Problem::new(Code::BadRequest, "The body has something after its JSON document."))?;
    Ok(value)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    use std::fmt::Write as _;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Seq { index } => {
                let _ = write!(pointer, "/{index}");
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn without_position(message: &str) -> String {
    message.rfind(" at line ").map_or(message, |at| &message[..at]).to_owned()
}

/// Serves one request: gives it an id, calls the router, turns refusals into problems, logs one line.
pub async fn serve<H: Host>(function: &'static str, router: &Router, host: H, mut request: Request) -> Response {
    let arrived = host.now();
    let request_id: Arc<str> = request_id(request.headers()).unwrap_or_else(|| host.new_id().to_string()).into();
    let trace = Trace::default();
    let method = request.method().clone();
    let instance = request.uri().path().to_owned();
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    request.extensions_mut().insert(Call {
        host: host.clone(),
        request_id: request_id.clone(),
        trace: trace.clone(),
        arrived,
        authorization,
        route: None,
    });
    let mut response = match router.clone().call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let route = response.extensions_mut().remove::<Route>().map_or_else(String::new, |r| r.0);
    if let Some(failure) = response.extensions_mut().remove::<Arc<Failure>>() {
        trace.code(failure.problem.code.as_str());
        if let Some(cause) = &failure.cause {
            trace.cause(cause.clone());
        }
        write_problem(&mut response, &failure.problem, &instance, &request_id);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(X_REQUEST_ID.clone(), value);
    }
    host.log(&trace.line(&trace::Line {
        event: "request",
        function,
        request_id: &request_id,
        method: method.as_str(),
        route: &route,
        status: response.status().as_u16(),
        ms: host.now().0 - arrived.0,
    }));
    response
}

/// The route's pattern, put into the response by [`remember_route`].
#[derive(Clone)]
struct Route(String);

/// Middleware: leaves the matched pattern in the response, for the log. The path as sent may hold anything.
pub async fn remember_route(request: Request, next: axum::middleware::Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|m| Route(m.as_str().to_owned()));
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// Finishes a function's router: `/healthz` for the gateway, 404 and 405 as problems, the pattern for the log. Call it as `finish::<H>(router)`.
pub fn finish<H: Host>(router: Router) -> Router {
    router
        .route("/healthz", axum::routing::get(health::<H>))
        .layer(axum::middleware::from_fn(remember_route))
        .fallback(async || Failure::from(Problem::new(Code::NotFound, "No such route. GET /openapi.json lists them.")))
        .method_not_allowed_fallback(async || Failure::from(Problem::new(Code::MethodNotAllowed, "This route has other methods.")))
}

/// Whether the function can reach its database and the counter. Says only yes or no: it asks for no token.
async fn health<H: Host>(call: Call<H>) -> Response {
    #[derive(serde::Serialize)]
    struct Health {
        configuration: &'static str,
        counter: &'static str,
        database: &'static str,
    }
    let word = |reached: bool| if reached { "ok" } else { "unreachable" };
    let database = call.host.query("SELECT 'ok'::text", &[]).await.is_ok();
    // Any workspace's counter would do; a place of its own wakes nobody's.
    let counter = match WorkspaceId::try_from("healthz".to_owned()) {
        Ok(nobody) => matches!(call.host.ask(&nobody, &Ask::Ping).await, Ok(Answer::Pong)),
        Err(_) => false,
    };
    let configuration = call.host.shared().token_keys().is_ok() && call.host.shared().issuers().is_ok();
    let body = Health { configuration: if configuration { "ok" } else { "incomplete" }, counter: word(counter), database: word(database) };
    let status = if database && counter && configuration { http::StatusCode::OK } else { http::StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(body)).into_response()
}

/// Says in an answer's headers what the limits are and what is left of them.
pub fn with_limits(mut response: Response, quota: &QuotaView, now: Timestamp) -> Response {
    let values = astra_quota::headers::values(quota, now);
    for (name, value) in values.into_iter().flat_map(|(policy, limit)| [("ratelimit-policy", policy), ("ratelimit", limit)]) {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Writes a problem into a response.
pub fn write_problem(response: &mut Response, problem: &Problem, instance: &str, request_id: &str) {
    let body = serde_json::to_vec(&problem.document(instance, request_id)).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // The router has written down that the refusal had no body yet.
    headers.remove(CONTENT_LENGTH);
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
        // A limit that is reached, as the answers that it let through said it.
        if let Some(limit) = problem.limit.as_ref().and_then(|limit| HeaderValue::try_from(format!("\"{limit}\";r=0;t={seconds}")).ok()) {
            headers.insert("ratelimit", limit);
        }
    }
    if problem.code == Code::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    *response.body_mut() = body.into();
}

/// The caller's request id, when it is 1 to 128 visible ASCII characters.
pub fn request_id(headers: &http::HeaderMap) -> Option<String> {
    let id = headers.get(&X_REQUEST_ID)?.to_str().ok()?;
    ((1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only parsed")]
        inner_part: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        a: u8,
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let problem = parse_json::<Outer>(br#"{"innerPart":[{"a":1},{"a":1,"b":2}]}"#).unwrap_err();
        assert_eq!(problem.code, Code::Unprocessable);
        assert_eq!(problem.errors[0].pointer, "/innerPart/1/b");
        let problem = parse_json::<Outer>(br#"{"innerPart":[{"a":"x"}]}"#).unwrap_err();
        assert_eq!(problem.errors[0].pointer, "/innerPart/0/a");
        assert!(!problem.detail.contains("line"), "{}", problem.detail);
        for other in [r#"[[{"a":1}]]"#, r#"{"innerPart":[[1]]}"#, "[]", "null", "1"] {
            assert_eq!(parse_json::<Outer>(other.as_bytes()).unwrap_err().code, Code::Unprocessable, "{other}");
        }
        assert_eq!(parse_json::<Outer>(b"{").unwrap_err().code, Code::BadRequest);
        assert_eq!(parse_json::<Outer>(b"{\"innerPart\":[]} x").unwrap_err().code, Code::BadRequest);
    }
}
