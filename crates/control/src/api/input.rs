//! Reading what a request says: body, path, query and `If-Match`. What is not understood exactly is refused, with the place.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use hms_model::finding::did_you_mean;
use hms_model::names::ServiceName;
use hms_model::resource::valid_id;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::guard::{BODY_LIMIT, BODY_TIME, too_large};
use super::problem::{Kind, Problem};
use crate::store::Revision;

/// A JSON body of exactly the shape of `T`.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(req: Request, _state: &S) -> Result<Self, Problem> {
        check_media_type(req.headers())?;
        let bytes = read(req.into_body()).await?;
        parse(&bytes).map(Self)
    }
}

/// A JSON body as it was written, for readers of their own.
pub(super) async fn text(request: Request) -> Result<bytes::Bytes, Problem> {
    check_media_type(request.headers())?;
    read(request.into_body()).await
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let given: String = given.escape_default().take(100).collect();
    Err(Problem::new(Kind::MediaType, "the body has to be application/json")
        .because(format!("Content-Type was `{given}`"))
        .fix("add the header Content-Type: application/json"))
}

async fn read(body: Body) -> Result<bytes::Bytes, Problem> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_LIMIT).collect()).await {
        Err(_elapsed) => Err(Problem::new(Kind::Slow, format!("a body arrives within {} s", BODY_TIME.as_secs()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_broken)) => Err(Problem::new(Kind::NotJson, "the body ended before its end")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would take a list for an object's members in their order; nobody should.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::new(Kind::Shape, "``: a list where an object is expected"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        describe(pointer, &error.into_inner())
    })?;
    reader.end().map_err(|error| describe(String::new(), &error))?;
    Ok(value)
}

/// A path within JSON as a pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

/// A complaint of serde's about what is at `pointer`.
fn describe(mut pointer: String, error: &serde_json::Error) -> Problem {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let message = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    if !error.is_data() {
        return Problem::new(Kind::NotJson, format!("{message} ({place})"));
    }
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = words.split_first().filter(|_| message.starts_with("unknown field"));
    let mut problem = match unknown {
        Some((field, known)) => {
            if !pointer.ends_with(&format!("/{field}")) {
                pointer = format!("{pointer}/{field}");
            }
            let hint = did_you_mean(field, known.iter().copied());
            let problem = Problem::new(Kind::Shape, format!("`{pointer}`: unknown field `{field}`"));
            let problem = problem.because(format!("known here: {}", known.join(", ")));
            match hint {
                Some(word) => problem.fix(format!("did you mean `{word}`?")),
                None => problem,
            }
        }
        None => Problem::new(Kind::Shape, format!("`{pointer}`: {message}")),
    };
    if pointer.is_empty() {
        problem = problem.because(place);
    }
    problem
}

/// The service named in the path.
pub(super) struct PathService(pub(super) ServiceName);

impl<S: Send + Sync> FromRequestParts<S> for PathService {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_part(parts, state, "service").await?;
        service(&text, "the path").map(Self)
    }
}

/// The endpoint named in the path.
pub(super) struct PathEndpoint {
    /// Its service.
    pub(super) service: ServiceName,
    /// Its id.
    pub(super) id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for PathEndpoint {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let PathService(service) = PathService::from_request_parts(parts, state).await?;
        let id = path_part(parts, state, "id").await?;
        if !valid_id(&id) {
            return Err(Problem::new(Kind::Malformed, format!("the path: `{}` is no id", shown(&id)))
                .because("an id is 1 to 128 of letters, digits, '.', '_', ':' and '-'"));
        }
        Ok(Self { service, id })
    }
}

/// What a trace's id begins with: 6 to 32 hex digits, in lower case.
pub(super) struct PathTrace(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathTrace {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_part(parts, state, "trace").await?.to_ascii_lowercase();
        if !(6..=32).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Problem::new(Kind::Malformed, format!("the path: `{}` is no trace id", shown(&text)))
                .because("one has 32 hex digits; the first 6 are enough"));
        }
        Ok(Self(text))
    }
}

/// The service named in the path, or `-` for all.
pub(super) struct PathServiceOrAll(pub(super) Option<ServiceName>);

impl<S: Send + Sync> FromRequestParts<S> for PathServiceOrAll {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_part(parts, state, "service").await?;
        if text == "-" {
            return Ok(Self(None));
        }
        service(&text, "the path").map(Some).map(Self)
    }
}

/// The query, of exactly the shape of `T`.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| Problem::new(Kind::Malformed, format!("the query: {}", error.body_text())))
    }
}

/// A part of the path, decoded.
pub(super) async fn path_part<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let path = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_invalid| Problem::new(Kind::Malformed, "the path: it is no UTF-8 when decoded"))?;
    let value = path.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    value.ok_or_else(|| Problem::internal(&format!("no `{name}` in the path")))
}

/// A service's name as written by somebody; `place` says where.
pub(super) fn service(text: &str, place: &str) -> Result<ServiceName, Problem> {
    ServiceName::from_host(text, hms_model::names::DEFAULT_NAMESPACE).map_err(|error| {
        Problem::new(Kind::Malformed, format!("{place}: `{}` is no service's name", shown(text)))
            .because(error.to_string())
    })
}

/// Text of a request as it may stand in an answer or a log: short, and nothing that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

/// The revision that `If-Match` asks for.
pub(super) struct IfMatch(pub(super) Option<Revision>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut fields = parts.headers.get_all(header::IF_MATCH).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Ok(Self(None));
        };
        let text = field.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| {
            Problem::new(Kind::Malformed, format!("If-Match: `{}` is no revision", shown(text)))
                .because("it reads as the ETag of an answer: \"42\"")
        })?;
        Ok(Self(Some(Revision(number))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read from JSON")]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read from JSON")]
    struct Inner {
        port: u16,
    }

    async fn complaint(body: &str) -> String {
        let problem = parse::<Outer>(body.as_bytes()).unwrap_err();
        let body = problem.into_response().into_body().collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        value["detail"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_complaint_points_at_what_it_speaks_of() {
        for (body, expected) in [
            (r#"{"inner":[{"port":1},{"prot":2}]}"#, "`/inner/1/prot`: unknown field `prot`"),
            (r#"{"inner":[],"extra":1}"#, "`/extra`: unknown field `extra`"),
            (r#"{"inner":[{"port":70000}]}"#, "`/inner/0/port`: invalid value: integer `70000`, expected u16"),
            (r#"{"inner":[{"port":1,"port":2}]}"#, "`/inner/0`: duplicate field `port`"),
            ("[[]]", "``: a list where an object is expected"),
            ("{", "EOF while parsing an object"),
            ("", "EOF while parsing a value"),
            (r#"{"inner":[]} x"#, "trailing characters"),
        ] {
            let found = complaint(body).await;
            assert!(found.starts_with(expected), "{body}: {found}");
        }
    }
}
