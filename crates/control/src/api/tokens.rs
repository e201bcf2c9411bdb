//! Tokens of users, from the built-in issuer.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::certificates::written;
use super::input;
use super::problem::{Kind, Problem};
use super::table::Operation;
use crate::jwt::{LONGEST_LIFE, TokenRequest};

/// Longest text of a claim, in bytes.
const TEXT: usize = 256;
/// Most roles of a token.
const ROLES: usize = 64;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::POST,
            "/v1/jwt",
            "issueToken",
            "A token of the built-in issuer for a user (ES256, issuer `hms-dev`).",
            issue,
        )
        .takes::<JwtRequest>()
        .answers::<IssuedToken>(StatusCode::OK),
        Operation::new(
            Method::GET,
            "/v1/jwks",
            "tokenKeys",
            "The public key of the built-in issuer, as a JSON Web Key Set.",
            keys,
        )
        .answers::<KeySet>(StatusCode::OK),
    ]
}

/// What a token is to say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JwtRequest {
    /// Whom it speaks of.
    #[schemars(length(min = 1, max = 256))]
    sub: String,
    /// What that one may do.
    #[serde(default)]
    #[schemars(length(max = 64))]
    roles: Vec<String>,
    /// For whom it is; `hms` if nothing is stated.
    audience: Option<String>,
    /// How long it holds: one hour if nothing is stated, at most 30 days.
    #[schemars(range(min = 1, max = 2_592_000))]
    ttl_seconds: Option<u64>,
}

/// A signed token.
#[derive(Serialize, JsonSchema)]
pub(super) struct IssuedToken {
    /// The token.
    pub(super) token: String,
    /// Until when it holds (RFC 3339).
    pub(super) expires_at: String,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JsonWebKeySet")]
struct KeySet {
    /// The keys.
    keys: Vec<Value>,
}

async fn issue(
    State(context): State<Context>,
    input::Json(request): input::Json<JwtRequest>,
) -> Result<Json<IssuedToken>, Problem> {
    check_text(&request.sub, "`/sub`")?;
    request.audience.iter().try_for_each(|audience| check_text(audience, "`/audience`"))?;
    if request.roles.len() > ROLES {
        return Err(Problem::new(Kind::Shape, format!("`/roles`: a token has at most {ROLES} roles")));
    }
    for (index, role) in request.roles.iter().enumerate() {
        check_text(role, &format!("`/roles/{index}`"))?;
    }
    let life = life(request.ttl_seconds, LONGEST_LIFE)?;
    let wanted = TokenRequest { subject: request.sub, roles: request.roles, audience: request.audience, life };
    let token = context.parts().jwt.issue(&wanted).map_err(|error| Problem::internal(&error))?;
    Ok(Json(IssuedToken { token: token.text, expires_at: written(token.expires_at) }))
}

async fn keys(State(context): State<Context>) -> Json<Value> {
    Json(context.parts().jwt.key_set())
}

/// A claim is some text, and nothing that could end a line or a field elsewhere.
fn check_text(text: &str, place: &str) -> Result<(), Problem> {
    if text.is_empty() || text.len() > TEXT || text.chars().any(char::is_control) {
        return Err(Problem::new(Kind::Shape, format!("{place}: this is no claim"))
            .because(format!("a claim has 1 to {TEXT} bytes without control characters")));
    }
    Ok(())
}

/// A life asked for, if it is within bounds.
pub(super) fn life(seconds: Option<u64>, longest: Duration) -> Result<Option<Duration>, Problem> {
    let Some(seconds) = seconds else { return Ok(None) };
    if (1..=longest.as_secs()).contains(&seconds) {
        return Ok(Some(Duration::from_secs(seconds)));
    }
    Err(Problem::new(Kind::Shape, format!("`/ttl_seconds`: {seconds} is out of bounds"))
        .because(format!("1 to {} seconds", longest.as_secs())))
}
