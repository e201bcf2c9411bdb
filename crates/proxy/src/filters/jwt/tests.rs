use http::HeaderValue;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

struct Issuer {
    signing: EncodingKey,
    verifier: Verifier,
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An ES256 issuer `dev` with key `k1` for audience `hms`.
fn issuer() -> Issuer {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let point = pair.public_key_raw();
    let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1",
        "x": encode(&point[1..33]), "y": encode(&point[33..65])});
    let key = JwtKey { id: "k1".into(), algorithm: JwtAlgorithm::Es256, jwk: jwk.to_string() };
    let issuer = JwtIssuer { issuer: "dev".into(), audiences: vec!["hms".into()], keys: vec![key] };
    Issuer { signing: EncodingKey::from_ec_der(&pair.serialize_der()), verifier: Verifier::new(&[issuer]) }
}

impl Issuer {
    fn sign_parts(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_parts(r#"{"alg":"ES256","kid":"k1"}"#, &claims.to_string())
    }

    fn reason(&self, token: &str) -> Option<Reason> {
        self.verifier.verify_token(token, NOW).err().map(|refusal| refusal.reason)
    }
}

fn good() -> Value {
    json!({"iss": "dev", "aud": "hms", "sub": "lena", "exp": NOW + 600, "roles": ["clerk"]})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

#[test]
fn a_good_token_tells_who_bears_it() {
    let issuer = issuer();
    let claims = issuer.verifier.verify_token(&issuer.sign(&good()), NOW).unwrap();
    assert_eq!(claims, Claims { subject: "lena".into(), roles: vec!["clerk".into()], issuer: "dev".into() });
    let in_list = with("aud", json!(["other", "hms"]));
    assert!(issuer.verifier.verify_token(&issuer.sign(&in_list), NOW).is_ok());
}

#[test]
fn every_wrong_claim_has_its_own_reason() {
    let issuer = issuer();
    let without = |name: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    for (claims, reason) in [
        (with("exp", json!(NOW - 61)), Reason::JwtExpired),
        (without("exp"), Reason::JwtMalformed),
        (with("exp", json!("1900000000")), Reason::JwtMalformed),
        (with("exp", json!(-1)), Reason::JwtMalformed),
        (with("exp", json!([NOW])), Reason::JwtMalformed),
        (with("exp", json!(1e300)), Reason::JwtMalformed),
        (with("exp", Value::Null), Reason::JwtMalformed),
        (with("nbf", json!(NOW + 61)), Reason::JwtNotYetValid),
        (with("nbf", json!("soon")), Reason::JwtMalformed),
        (with("iat", json!(NOW + 3600)), Reason::JwtNotYetValid),
        (with("iss", json!("Dev")), Reason::JwtIssuer),
        (without("iss"), Reason::JwtIssuer),
        (with("aud", json!("other")), Reason::JwtAudience),
        (with("aud", json!({"hms": 1})), Reason::JwtAudience),
        (without("aud"), Reason::JwtAudience),
    ] {
        assert_eq!(issuer.reason(&issuer.sign(&claims)), Some(reason), "{claims}");
    }
    assert_eq!(issuer.reason(&issuer.sign(&with("exp", json!(NOW - 59)))), None, "within the leeway");
}

#[test]
fn headers_that_demand_or_smuggle_are_refused() {
    let issuer = issuer();
    let claims = good().to_string();
    for (header, reason) in [
        (r#"{"alg":"none"}"#, Reason::JwtAlgorithm),
        (r#"{"alg":"nOnE","kid":"k1"}"#, Reason::JwtAlgorithm),
        (r#"{"alg":"HS256","kid":"k1"}"#, Reason::JwtAlgorithm),
        (r#"{"alg":"ES384","kid":"k1"}"#, Reason::JwtAlgorithm),
        (r#"{"kid":"k1"}"#, Reason::JwtAlgorithm),
        (r#"{"alg":"RS256","kid":"k1"}"#, Reason::JwtUnknownKey),
        (r#"{"alg":"ES256","kid":"../../etc/passwd"}"#, Reason::JwtUnknownKey),
        (r#"{"alg":"ES256"}"#, Reason::JwtUnknownKey),
        (r#"{"alg":"ES256","kid":["k1"]}"#, Reason::JwtMalformed),
        (r#"{"alg":"ES256","kid":"k1","crit":["exp"]}"#, Reason::JwtMalformed),
        (r#"{"alg":"ES256","kid":"k1","b64":false}"#, Reason::JwtMalformed),
        (r#"{"alg":"ES256","kid":"k1","zip":"DEF"}"#, Reason::JwtMalformed),
        (r#"{"alg":"ES256","alg":"ES256","kid":"k1"}"#, Reason::JwtMalformed),
        ("[]", Reason::JwtMalformed),
        ("{", Reason::JwtMalformed),
    ] {
        assert_eq!(issuer.reason(&issuer.sign_parts(header, &claims)), Some(reason), "{header}");
    }
    let jku = r#"{"alg":"ES256","kid":"k1","jku":"https://evil/","jwk":{}}"#;
    assert_eq!(issuer.reason(&issuer.sign_parts(jku, &claims)), None, "remote keys are ignored, not fetched");
}

#[test]
fn what_is_no_token_is_malformed() {
    let issuer = issuer();
    let token = issuer.sign(&good());
    let deep = format!("{}1{}", "[".repeat(20), "]".repeat(20));
    let deep = issuer.sign_parts(r#"{"alg":"ES256","kid":"k1"}"#, &format!(r#"{{"exp":1,"x":{deep}}}"#));
    let twice = issuer.sign_parts(r#"{"alg":"ES256","kid":"k1"}"#, r#"{"exp":1,"exp":9999999999}"#);
    for bad in ["", ".", "..", "a.b", "a.b.c.d", "a.b.c.d.e", "a b.c.d", &"a".repeat(9000), &deep, &twice] {
        assert_eq!(issuer.reason(bad), Some(Reason::JwtMalformed), "{bad}");
    }
    let padded = token.replacen('.', "=.", 1);
    assert_eq!(issuer.reason(&padded), Some(Reason::JwtMalformed));
}

#[test]
fn another_key_or_a_changed_claim_breaks_the_signature() {
    let (own, other) = (issuer(), issuer());
    assert_eq!(own.reason(&other.sign(&good())), Some(Reason::JwtSignature));
    let token = own.sign(&good());
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let forged = format!("{header}.{}.{signature}", encode(with("sub", json!("root")).to_string().as_bytes()));
    assert_eq!(own.reason(&forged), Some(Reason::JwtSignature));
    assert_eq!(own.reason(&format!("{head}.")), Some(Reason::JwtSignature));
}

#[test]
fn ed25519_tokens_are_taken_too() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": encode(pair.public_key_raw())});
    let key = JwtKey { id: "e".into(), algorithm: JwtAlgorithm::EdDsa, jwk: jwk.to_string() };
    let verifier = Verifier::new(&[JwtIssuer { issuer: "dev".into(), audiences: vec!["hms".into()], keys: vec![key] }]);
    let header = Header { kid: Some("e".into()), ..Header::new(Algorithm::EdDSA) };
    let signing = EncodingKey::from_ed_der(&pair.serialize_der());
    let token = jsonwebtoken::encode(&header, &good(), &signing).unwrap();
    assert!(verifier.verify_token(&token, NOW).is_ok());
}

#[test]
fn a_request_has_one_bearer_token() {
    let issuer = issuer();
    let token = issuer.sign(&good());
    let reason = |values: &[String]| {
        let mut fields = Fields::new();
        for value in values {
            fields.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        issuer.verifier.verify(&fields, NOW).err().map(|refusal| refusal.reason)
    };
    assert_eq!(reason(&[]), Some(Reason::JwtMissing));
    assert_eq!(reason(&["Basic abc".into()]), Some(Reason::JwtMissing));
    assert_eq!(reason(&[format!("bearer {token}")]), None);
    assert_eq!(reason(&[format!("Bearer  {token}")]), Some(Reason::JwtMalformed));
    assert_eq!(reason(&[format!("Bearer {token}"), format!("Bearer {token}")]), Some(Reason::JwtMalformed));
    assert_eq!(reason(&["Bearer".into()]), Some(Reason::JwtMalformed));
}
