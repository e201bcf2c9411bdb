//! `hms jwt issue|inspect`: tokens of the built-in issuer, and what is right or wrong with a token.

use std::io::Read as _;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use super::Context;
use crate::cli::{JwtIssue, JwtVerb};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Mark;
use crate::views::{Summary, Token};

/// The audience the gateway expects unless told otherwise.
const AUDIENCE: &str = "hms";
/// A longer text is no token; the gateway's limit on one field is of this order.
const LONGEST: u64 = 32 << 10;

pub(super) async fn run(context: Context<'_>, verb: &JwtVerb) -> Result<Exit, Failure> {
    match verb {
        JwtVerb::Issue(options) => {
            let client = context.client()?;
            let document = issue(context, &client, options).await?;
            if !context.output.document("Token", &document) {
                context.output.line(document.get("token").and_then(Value::as_str).unwrap_or_default());
            }
            Ok(Exit::Ok)
        }
        JwtVerb::Inspect { token } => inspect(context, token.as_deref()).await,
    }
}

async fn issue(context: Context<'_>, client: &Client, options: &JwtIssue) -> Result<Value, Failure> {
    let subject = options.sub.clone().or_else(|| context.settings.environment.text("USER").map(str::to_owned));
    let mut body = json!({"sub": subject.unwrap_or_else(|| "dev".to_owned())});
    if let Some(object) = body.as_object_mut() {
        if !options.roles.is_empty() {
            object.insert("roles".to_owned(), json!(options.roles));
        }
        if let Some(audience) = &options.audience {
            object.insert("audience".to_owned(), json!(audience));
        }
        if let Some(ttl) = options.ttl {
            object.insert("ttl_seconds".to_owned(), json!(ttl.as_secs()));
        }
    }
    client.post("/v1/jwt", &body).await
}

/// A token for `hms env`.
pub(super) async fn for_shell(
    context: Context<'_>,
    client: &Client,
    ttl: std::time::Duration,
) -> Result<String, Failure> {
    let options = JwtIssue { sub: None, roles: Vec::new(), audience: None, ttl: Some(ttl) };
    let document = issue(context, client, &options).await?;
    super::services::read::<Token>(document).map(|token| token.token)
}

/// One thing that is right or wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    mark: Mark,
    text: String,
}

async fn inspect(context: Context<'_>, token: Option<&str>) -> Result<Exit, Failure> {
    let token = match token {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .take(LONGEST)
                .read_to_string(&mut text)
                .map_err(|error| crate::project::unreadable(std::path::Path::new("-"), &error))?;
            text
        }
        Some(token) => token.to_owned(),
        None => context.settings.environment.text("JWT").map(str::to_owned).ok_or_else(|| {
            Failure::new(Exit::Usage, 1006, "no token was given")
                .because("$JWT is not set either")
                .fix("eval \"$(hms env)\"")
        })?,
    };
    let token = token.trim();
    let (header, claims) = decode(token)?;
    let (keys, issuer) = match context.client() {
        Ok(client) => {
            let keys: Option<JwkSet> = client.get("/v1/jwks").await.ok();
            let issuer = client.get::<Summary>("/v1/summary").await.ok().map(|summary| summary.jwt.issuer);
            (keys, issuer.filter(|issuer| !issuer.is_empty()))
        }
        Err(_) => (None, None),
    };
    let now = jiff::Timestamp::now().as_second();
    let mut verdicts = vec![signature(token, &header, keys.as_ref())];
    verdicts.extend(judge(&claims, issuer.as_deref(), now));
    let bad = verdicts.iter().any(|verdict| verdict.mark == Mark::Failed);
    let listed: Vec<Value> =
        verdicts.iter().map(|verdict| json!({"ok": verdict.mark != Mark::Failed, "check": verdict.text})).collect();
    if !context.output.document("TokenInspection", &json!({"header": header, "claims": claims, "checks": listed})) {
        context
            .output
            .write(&crate::output::clean_lines(&crate::output::to_yaml(&json!({"header": header, "claims": claims}))));
        for verdict in verdicts {
            context.output.line(&format!(
                "{} {}",
                context.output.mark(verdict.mark),
                crate::output::clean(&verdict.text)
            ));
        }
    }
    Ok(if bad { Exit::Findings } else { Exit::Ok })
}

/// Header and claims without any check.
fn decode(token: &str) -> Result<(Value, Value), Failure> {
    let broken = |why: String| Failure::new(Exit::Findings, 3105, "this is no JSON Web Token").because(why);
    let header = jsonwebtoken::decode_header(token).map_err(|error| broken(error.to_string()))?;
    let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token).map_err(|error| broken(error.to_string()))?;
    Ok((serde_json::to_value(header).unwrap_or_default(), data.claims))
}

fn signature(token: &str, header: &Value, keys: Option<&JwkSet>) -> Verdict {
    let failed = |text: String| Verdict { mark: Mark::Failed, text };
    let Some(keys) = keys else {
        return Verdict {
            mark: Mark::Skipped,
            text: "signature not checked: no control plane to ask for keys".to_owned(),
        };
    };
    let kid = header.get("kid").and_then(Value::as_str).unwrap_or_default();
    let Some(key) = keys.find(kid) else {
        return failed(format!("signature: kid `{kid}` is not among the {} keys of this mesh", keys.keys.len()));
    };
    let checked = DecodingKey::from_jwk(key).and_then(|key| {
        let mut validation = Validation::new(jsonwebtoken::decode_header(token)?.alg);
        // Only the signature is asked for here; every claim has a verdict of its own.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Value>(token, &key, &validation)
    });
    match checked {
        Ok(_) => Verdict { mark: Mark::Ok, text: format!("signature by key `{kid}`") },
        Err(error) => failed(format!("signature: {error}")),
    }
}

fn judge(claims: &Value, issuer: Option<&str>, now: i64) -> Vec<Verdict> {
    let number = |key: &str| claims.get(key).and_then(Value::as_i64);
    let ok = |text: String| Verdict { mark: Mark::Ok, text };
    let failed = |text: String| Verdict { mark: Mark::Failed, text };
    let mut verdicts = Vec::new();
    verdicts.push(match number("exp") {
        None => failed("exp is missing; the gateway demands it".to_owned()),
        Some(exp) if exp <= now => failed(format!("expired {} ago", super::status::span(now.saturating_sub(exp)))),
        Some(exp) => ok(format!("expires in {}", super::status::span(exp.saturating_sub(now)))),
    });
    if let Some(nbf) = number("nbf") {
        verdicts.push(if nbf > now {
            failed(format!("not valid before {} from now", super::status::span(nbf.saturating_sub(now))))
        } else {
            ok("valid already".to_owned())
        });
    }
    let iss = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    verdicts.push(match issuer {
        None => Verdict { mark: Mark::Skipped, text: format!("issuer `{iss}` not compared: no control plane") },
        Some(issuer) if issuer == iss => ok(format!("issuer `{iss}`")),
        Some(issuer) => failed(format!("issuer `{iss}`; the gateway expects `{issuer}`")),
    });
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(audience)) => vec![audience.as_str()],
        Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let listed = audiences.join(", ");
    verdicts.push(if audiences.contains(&AUDIENCE) {
        ok(format!("audience `{listed}`"))
    } else {
        Verdict { mark: Mark::Warning, text: format!("audience `{listed}`; the built-in default is `{AUDIENCE}`") }
    });
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_has_its_own_verdict() {
        let claims = json!({"iss": "hms-dev", "aud": ["hms"], "exp": 1000, "nbf": 2000, "sub": "lena"});
        let texts = |issuer, now| -> Vec<String> {
            judge(&claims, issuer, now)
                .into_iter()
                .map(|verdict| format!("{:?} {}", verdict.mark, verdict.text))
                .collect()
        };
        insta::assert_snapshot!(texts(Some("https://idp"), 1120).join("\n"), @r"
        Failed expired 2m00s ago
        Failed not valid before 14m40s from now
        Failed issuer `hms-dev`; the gateway expects `https://idp`
        Ok audience `hms`
        ");
        insta::assert_snapshot!(texts(Some("hms-dev"), 900).join("\n"), @r"
        Ok expires in 1m40s
        Failed not valid before 18m20s from now
        Ok issuer `hms-dev`
        Ok audience `hms`
        ");
        insta::assert_snapshot!(
            judge(&json!({}), None, 0).into_iter().map(|v| format!("{:?} {}", v.mark, v.text)).collect::<Vec<_>>().join("\n"),
            @r"
        Failed exp is missing; the gateway demands it
        Skipped issuer `` not compared: no control plane
        Warning audience ``; the built-in default is `hms`
        "
        );
    }

    #[test]
    fn nonsense_is_no_token() {
        for text in ["", "a.b", "a.b.c", "…"] {
            assert_eq!(decode(text).unwrap_err().exit(), Exit::Findings, "{text}");
        }
    }
}
