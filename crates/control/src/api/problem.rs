//! Every answer that is no success: one shape, RFC 9457, and one closed table of what can be wrong.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hms_model::finding::{Code, Finding};
use schemars::JsonSchema;
use serde::Serialize;

/// What can be wrong with a request, or with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is no JSON.
    NotJson,
    /// The body is JSON of another shape.
    Shape,
    /// A part of the path, the query or a header is none of its kind.
    Malformed,
    /// Nothing is served at this path.
    NoSuchPath,
    /// Something is, but not with this method.
    Method,
    /// The body's type is not `application/json`.
    MediaType,
    /// The body is larger than taken.
    TooLarge,
    /// The body did not arrive in time.
    Slow,
    /// What the path names does not exist.
    NoSuchThing,
    /// Somebody else changed it meanwhile.
    Conflict,
    /// `If-Match` names another revision.
    Stale,
    /// The input was understood and refused; the findings say why.
    Refused,
    /// As many streams as there may be.
    TooMany,
    /// It would have to be done elsewhere or later.
    Unavailable,
    /// Our fault.
    Internal,
    /// No token, or not ours.
    Token,
    /// `Host` is not this machine.
    Host,
    /// The request was caused by a page from elsewhere.
    Origin,
    /// A certificate, token or attestation was refused.
    Identity,
}

impl Kind {
    /// Code, status and title.
    fn row(self) -> (u16, StatusCode, &'static str) {
        match self {
            Self::NotJson => (2201, StatusCode::BAD_REQUEST, "the body is no JSON"),
            Self::Shape => (2202, StatusCode::BAD_REQUEST, "the body has another shape"),
            Self::Malformed => (2203, StatusCode::BAD_REQUEST, "a part of the request is malformed"),
            Self::NoSuchPath => (2204, StatusCode::NOT_FOUND, "nothing is served here"),
            Self::Method => (2205, StatusCode::METHOD_NOT_ALLOWED, "this method is not served here"),
            Self::MediaType => (2206, StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not application/json"),
            Self::TooLarge => (2207, StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::Slow => (2208, StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
            Self::NoSuchThing => (2209, StatusCode::NOT_FOUND, "there is no such thing"),
            Self::Conflict => (2210, StatusCode::CONFLICT, "somebody else changed it meanwhile"),
            Self::Stale => (2211, StatusCode::PRECONDITION_FAILED, "the configuration has another revision"),
            Self::Refused => (2212, StatusCode::BAD_REQUEST, "the input is refused"),
            Self::TooMany => (2213, StatusCode::TOO_MANY_REQUESTS, "too many at the same time"),
            Self::Unavailable => (2214, StatusCode::SERVICE_UNAVAILABLE, "not at this moment"),
            Self::Internal => (2215, StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed"),
            Self::Token => (4201, StatusCode::UNAUTHORIZED, "the request carries no valid token"),
            Self::Host => (4202, StatusCode::FORBIDDEN, "the request was meant for another host"),
            Self::Origin => (4203, StatusCode::FORBIDDEN, "the request comes from a foreign page"),
            Self::Identity => (4204, StatusCode::UNPROCESSABLE_ENTITY, "no identity can be given"),
        }
    }
}

/// An answer that is no success. Boxed, because every handler may return one and hardly any does.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    detail: String,
    why: String,
    fix: Vec<String>,
    findings: Vec<Finding>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of every answer that is no success (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Body {
    /// Where this kind of problem is explained.
    #[serde(rename = "type")]
    kind: String,
    /// The kind of problem in a few words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// `HMS-` and four digits: one string to search for.
    code: String,
    /// What was seen against what was wanted; may be empty.
    why: String,
    /// Commands or edits that mend it.
    fix: Vec<String>,
    /// Where this kind of problem is explained.
    docs: String,
    /// Every complaint about the input.
    findings: Vec<FindingView>,
}

/// A complaint about input.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Finding")]
pub(crate) struct FindingView {
    /// `info`, `warning` or `error`.
    severity: &'static str,
    /// `HMS-` and four digits.
    code: String,
    /// Where, if it came from a file.
    place: Option<PlaceView>,
    /// What is wrong.
    message: String,
    /// What was seen against what was wanted; may be empty.
    why: String,
    /// What mends it; may be empty.
    fix: String,
}

/// A place in a file.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Place")]
pub(crate) struct PlaceView {
    /// The file as it was sent.
    file: String,
    /// Line, from 1; 0 for the whole file.
    line: u32,
    /// Column, from 1.
    column: u32,
    /// How many characters.
    length: u32,
    /// The text of that line.
    source: String,
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.as_str(),
            code: finding.code.to_string(),
            place: finding.place.as_ref().map(|place| PlaceView {
                file: place.file.clone(),
                line: place.line,
                column: place.column,
                length: place.length,
                source: place.source.clone(),
            }),
            message: finding.message.clone(),
            why: finding.why.clone(),
            fix: finding.fix.clone(),
        }
    }
}

/// Findings as they are sent.
pub(crate) fn views(findings: &[Finding]) -> Vec<FindingView> {
    findings.iter().map(FindingView::from).collect()
}

impl Problem {
    /// A problem of a kind, with what is wrong this time.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: detail.into(),
            why: String::new(),
            fix: Vec::new(),
            findings: Vec::new(),
            headers: Vec::new(),
        }))
    }

    /// The input as a whole is refused; nothing of it took effect.
    pub(crate) fn refused(findings: Vec<Finding>) -> Self {
        let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.is_error()).collect();
        let detail = match errors.as_slice() {
            [] => "the input is refused".to_owned(),
            [only] => only.message.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.message, rest.len()),
        };
        let mut problem = Self::new(Kind::Refused, detail);
        problem.0.findings = findings;
        problem
    }

    /// Our fault. The reason goes to the log; the caller learns only that it is there.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(Kind::Internal, "the control plane failed; its log says why")
    }

    /// The same with its reason.
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.0.why = why.into();
        self
    }

    /// The same with one more way to mend it.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix.push(fix.into());
        self
    }

    /// The same with a header.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { kind, detail, why, fix, findings, headers: fields } = *self.0;
        let (code, status, title) = kind.row();
        let code = Code(code).to_string();
        let docs = format!("https://hms-mesh.io/errors/{code}");
        let body = Body {
            kind: docs.clone(),
            title,
            status: status.as_u16(),
            detail,
            code,
            why,
            fix,
            docs,
            findings: views(&findings),
        };
        // The body consists of strings and numbers only; it cannot fail to be written.
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.extend(fields);
        response
    }
}

/// RFC 9457 §3.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
