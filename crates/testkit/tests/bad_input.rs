//! Broken input of every kind gets a clear answer with a code and a place, and changes nothing.

use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::rest::Rest;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{control_socket, scenario, wait};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const GOOD: &str = "service: good-svc\nroutes: [GET /good]\n";

/// Route files: what they are, and a word of the complaint.
const ROUTE_FILES: &[(&str, &str)] = &[
    ("", "empty"),
    ("hello\n", "HMS-2"),
    ("service: calc-svc\nroutes:\n  - GET /sum\nrate_limits: 20 req/min\n", "did you mean `rate_limit`"),
    ("service: calc-svc\nservice: other\nroutes: [GET /sum]\n", "twice"),
    ("service: calc-svc\nroutes: [FETCH /sum]\n", "FETCH"),
    ("service: calc-svc\nroutes: [GTE /sum]\n", "GET"),
    ("service: calc-svc\nroutes: [GET sum]\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /a//b]\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /../secret]\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /sum/{a}/{a}]\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /x?y=1]\n", "HMS-2"),
    ("service: calc-svc\n", "routes"),
    ("routes: [GET /sum]\n", "service"),
    ("service: Calc_Svc\nroutes: [GET /sum]\n", "HMS-2"),
    ("service: gateway\nroutes: [GET /sum]\n", "gateway"),
    ("service: c\u{430}lc-svc\nroutes: [GET /sum]\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /sum]\nrate_limit: 20 req/fortnight\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /sum]\nrate_limit: 0 req/min\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /sum]\nrate_limit: -1/s\n", "HMS-2"),
    ("service: calc-svc\nroutes: [GET /sum]\nkeep_alive: no\n", "true or false"),
    ("service: calc-svc\nroutes: [GET /sum\n", "HMS-2"),
    ("service: calc-svc\nroutes:\n\t- GET /sum\n", "tab"),
    ("service: calc-svc\nroutes: [GET /sum]\n---\nservice: b\nroutes: [GET /b]\n", "HMS-2"),
    ("a: &a [*a]\n", "HMS-2"),
    ("a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]\n", "HMS-2"),
    ("service: !!python/object:os.system calc-svc\nroutes: [GET /sum]\n", "HMS-2"),
    ("service: thief-svc\nroutes: [GET /good]\n", "already"),
];

/// `mesh.yaml`: the text, and a word of the complaint.
const MESH_FILES: &[(&str, &str)] = &[
    ("services: [a, b]\n", "HMS-2"),
    ("service: {}\n", "did you mean `services`"),
    ("services: {a: {routes: [GET /x], prot: 1}}\n", "did you mean `port`"),
    ("services: {a: {routes: [GET /x], port: 65536}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x], port: \"80\"}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x], timeout: 5}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x], timeout: 999999999h}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x], breaker: {errors: 0}}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x], retry: {retries: 1000}}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x]}}\nallow: [{from: b, to: []}]\n", "HMS-2"),
    ("services: {a: {routes: [GET /x]}}\nallow: [{from: gatway, to: a}]\nx: 1\n", "HMS-2"),
    ("services: {a: {routes: [GET /x]}, b: {routes: [GET /x]}}\n", "already belongs"),
    ("services: {a: {routes: [GET /x], zone: \"${UNCLOSED\"}}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x]}}\ndefaults: {mtls: off}\n", "HMS-2"),
    ("services: {a: {routes: [GET /x]}}\ngateway: {jwt: {isuer: dev}}\n", "did you mean `issuer`"),
];

/// Method, path, body, status.
type BadRequest = (&'static str, &'static str, &'static str, u16);

/// What the REST API refuses.
const REQUESTS: &[BadRequest] = &[
    ("GET", "/v1/nothing", "", 404),
    ("DELETE", "/v1/services", "", 405),
    ("GET", "/v1/services/nobody", "", 404),
    ("GET", "/v1/services/..%2f..%2fetc", "", 400),
    ("GET", "/v1/breakers/nobody", "", 404),
    ("POST", "/v1/services/calc-svc/endpoints", "{", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "[]", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\"}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"example.org\",\"port\":80}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":0}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":65536}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":\"80\"}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":80,\"prot\":1}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":80,\"id\":\"../x\"}", 400),
    ("POST", "/v1/services/calc-svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":80,\"health\":\"fine\"}", 400),
    ("POST", "/v1/services/Calc_Svc/endpoints", "{\"host\":\"127.0.0.1\",\"port\":80}", 400),
    ("POST", "/v1/route-files", "{\"files\":[{\"name\":\"a\"}]}", 400),
    ("POST", "/v1/route-files", "{\"files\":[{\"name\":\"a\",\"text\":\"service: [\"}]}", 400),
    ("PUT", "/v1/routes", "{\"calc-svc\":{\"service\":\"other\",\"routes\":[\"GET /x\"]}}", 400),
    ("PUT", "/v1/routes", "[]", 400),
    ("PUT", "/v1/mesh", "{\"file\":\"mesh.yaml\",\"text\":\"services: 5\",\"files\":[]}", 400),
    ("POST", "/v1/jwt", "{\"sub\":\"\"}", 400),
    ("POST", "/v1/jwt", "{\"sub\":\"x\",\"ttl_seconds\":-1}", 400),
    ("POST", "/v1/jwt", "{\"sub\":\"x\",\"ttl_seconds\":99999999999}", 400),
    ("POST", "/v1/certificates/rotate", "{\"service\":\"nobody\"}", 404),
    ("POST", "/v1/certificates/rotate", "{\"validity_seconds\":\"long\"}", 400),
    ("POST", "/v1/attestations", "{\"process_id\":0,\"service\":\"calc-svc\",\"role\":\"sidecar\"}", 422),
    ("POST", "/v1/attestations", "{\"process_id\":1,\"service\":\"calc-svc\",\"role\":\"king\"}", 400),
    ("POST", "/v1/services/nobody/state", "{\"desired\":\"stopped\"}", 404),
    ("POST", "/v1/services/good-svc/state", "{\"desired\":\"gone\"}", 400),
];

/// What must not change.
async fn state(rest: &Rest) -> (Value, Value, Value) {
    (rest.get("/v1/services").await, rest.get("/v1/routes").await, rest.get("/v1/summary").await["revision"].clone())
}

async fn registered() -> (Mesh, Process) {
    let mesh = Mesh::new();
    let control = mesh.control(&[]).await;
    mesh.write("good.yaml", GOOD);
    mesh.hms(&["register", "good.yaml"]).await;
    (mesh, control)
}

#[test]
fn there_are_more_than_fifty_kinds_of_broken_input_here() {
    let kinds = ROUTE_FILES.len() + MESH_FILES.len() + REQUESTS.len();
    assert!(kinds > 50, "{kinds}");
}

#[test]
fn broken_route_files_are_shown_with_their_place_and_nothing_is_registered() {
    scenario(Duration::from_mins(2), async {
        let (mesh, _control) = registered().await;
        let before = state(&mesh.rest()).await;
        for (number, (text, word)) in ROUTE_FILES.iter().enumerate() {
            let name = format!("bad{number}.yaml");
            mesh.write(&name, text);
            // Together with one that is well, which must not be registered either.
            mesh.write("other.yaml", "service: other-svc\nroutes: [GET /other]\n");
            let said = mesh.try_hms(&["register", "other.yaml", &name]).await;
            // Of two services that want one route, the place shown is that of the one who has it.
            let file = if *word == "already" { "good.yaml" } else { &name };
            let place = said.err.contains(&format!("{file}:"));
            assert!(said.code == 1 && place && said.err.contains(word), "{text:?}, {word}: {said:?}");
            assert_eq!(said.out, "", "{text:?}");
            assert_eq!(state(&mesh.rest()).await, before, "{text:?} changed something");
            if *word != "already" {
                let linted = mesh.try_hms(&["lint", &name]).await;
                assert!(linted.code == 3 && linted.out.contains("HMS-"), "lint of {text:?}: {linted:?}");
            }
        }
    });
}

#[test]
fn files_that_are_no_text_files_are_named() {
    scenario(Duration::from_mins(1), async {
        let (mesh, _control) = registered().await;
        let before = state(&mesh.rest()).await;
        mesh.write("bytes.yaml", b"service: \xff\xfe\n");
        mesh.write("nul.yaml", b"service: a\0b\nroutes: [GET /x]\n");
        mesh.write("large.yaml", vec![b'#'; 3 << 20]);
        mesh.write("deep.yaml", "[".repeat(10_000));
        std::fs::create_dir(mesh.project().join("folder.yaml")).expect("a folder");
        std::os::unix::fs::symlink("loop.yaml", mesh.project().join("loop.yaml")).expect("a link");
        let text = ["bytes.yaml", "nul.yaml", "large.yaml", "deep.yaml"];
        for name in text.into_iter().chain(["folder.yaml", "loop.yaml", "absent.yaml"]) {
            let said = mesh.try_hms(&["register", name]).await;
            let clear = said.err.contains(name) && said.err.contains("HMS-") && !said.err.contains("panicked");
            assert!(said.code == 1 && clear, "{name}: {said:?}");
        }
        assert_eq!(state(&mesh.rest()).await, before);
    });
}

#[test]
fn a_broken_mesh_file_is_refused_as_a_whole_by_lint_by_up_and_by_the_api() {
    scenario(Duration::from_mins(2), async {
        let (mesh, _control) = registered().await;
        let rest = mesh.rest();
        let before = state(&rest).await;
        for (text, word) in MESH_FILES {
            mesh.write("mesh.yaml", text);
            let linted = mesh.try_hms(&["lint", "mesh.yaml"]).await;
            let shown = linted.out.contains("mesh.yaml:") && linted.out.contains(word);
            assert!(linted.code == 3 && shown, "lint of {text:?}, {word}: {linted:?}");
            let body = json!({"file": "mesh.yaml", "text": text, "files": []});
            let answer = rest.send(Method::PUT, "/v1/mesh", body.to_string()).await;
            let problem = answer.json();
            assert_eq!((answer.status, answer.header("content-type")), (400, "application/problem+json"), "{text:?}");
            let places = problem["findings"].as_array().is_some_and(|all| {
                all.iter().any(|one| one["severity"] == "error" && one["place"]["line"].as_u64().is_some())
            });
            assert!(places && problem["code"].as_str().is_some_and(|code| code.starts_with("HMS-")), "{problem}");
            assert_eq!(state(&rest).await, before, "{text:?} changed something");
        }
        let up = mesh.try_hms(&["up", "-d", "--wait", "--ports", "auto"]).await;
        assert!(up.code == 1 && up.err.contains("mesh.yaml:"), "{up:?}");
        assert!(mesh.processes_with("hms-proxy").is_empty(), "nothing was started");
        assert_eq!(state(&rest).await, before);
    });
}

#[test]
fn broken_requests_get_a_problem_document_and_change_nothing() {
    scenario(Duration::from_mins(2), async {
        let (mesh, _control) = registered().await;
        let rest = mesh.rest();
        let before = state(&rest).await;
        for (method, path, body, status) in REQUESTS {
            let method: Method = method.parse().expect("a method");
            let answer = rest.send(method.clone(), path, *body).await;
            assert_problem(&format!("{method} {path} {body}"), &answer, *status);
            assert_eq!(state(&rest).await, before, "{method} {path} {body} changed something");
        }
    });
}

fn assert_problem(what: &str, answer: &hms_testkit::client::Answer, status: u16) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    let problem = answer.json();
    assert!(problem["code"].as_str().is_some_and(|code| code.starts_with("HMS-")), "{what}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {problem}");
}

#[test]
fn strangers_get_nothing_from_the_api() {
    scenario(Duration::from_mins(1), async {
        let (mesh, _control) = registered().await;
        let before = state(&mesh.rest()).await;
        let address = mesh.rest_address();
        let token = mesh.token();
        let right = format!("Bearer {token}");
        let body = json!({"host": "127.0.0.1", "port": 80}).to_string();
        let large = vec![b' '; (1 << 20) + 1];
        let json = ("content-type", "application/json");
        let known = ("authorization", right.as_str());
        let cases = [
            ("no token", vec![json], 401),
            ("a wrong token", vec![json, ("authorization", "Bearer 0000")], 401),
            ("two tokens", vec![json, known, ("authorization", "Bearer 0")], 401),
            ("another scheme", vec![json, ("authorization", "Basic YTpi")], 401),
            ("a foreign page", vec![json, known, ("origin", "http://evil.com")], 403),
            ("a foreign page, as browsers tell", vec![json, known, ("sec-fetch-site", "cross-site")], 403),
            ("no JSON", vec![("content-type", "text/plain"), known], 415),
        ];
        let path = "/v1/services/good-svc/endpoints";
        for (what, fields, status) in cases {
            let answer = Http::plain(address).send(Method::POST, path, &fields, body.clone()).await;
            assert_problem(what, &answer.expect("an answer"), status);
        }
        // curl asks first whether so much is wanted, so the answer does not race with the body.
        mesh.write("large.json", &large);
        let mut curl = mesh.command("curl");
        curl.args(["-sS", "-i", "--data-binary", "@large.json", "-H", "Content-Type: application/json"]);
        curl.args(["-H", &format!("Authorization: {right}"), &format!("http://{address}{path}")]);
        let refused = mesh.run(curl).await;
        assert!(refused.out.contains("HTTP/1.1 413") && refused.out.contains("HMS-2207"), "{refused:?}");
        let mut curl = mesh.command("curl");
        curl.args(["-sS", "-i", "-H", "Host: evil.com", "-H", &format!("Authorization: {right}")]);
        curl.arg(format!("http://{address}/v1/services"));
        let rebound = mesh.run(curl).await;
        assert!(rebound.out.starts_with("HTTP/1.1 403") && !rebound.out.contains("good-svc"), "{rebound:?}");
        assert_eq!(state(&mesh.rest()).await, before);
    });
}

#[test]
fn broken_tokens_are_refused_with_the_reason_as_code() {
    scenario(Duration::from_mins(1), async {
        let (mesh, _control) = registered().await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        gateway.until_ready().await;
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let http = Http::tls(gateway.address("https"), "gateway.local", &root);
        let good = mesh.jwt().await;
        let accepted = http.clone().bearer(&good);
        wait::until("a good token passes", Duration::from_secs(20), || async {
            let answer = accepted.get("/good").await?;
            // There is no endpoint, so the breaker answers: authentication is behind us.
            if answer.status == 503 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
        })
        .await;
        for (what, token, codes) in tokens(&mesh, &good) {
            let fields = [("authorization", token.as_str())];
            let answer = http.send(Method::GET, "/good", &fields, "").await.expect("an answer");
            let code = answer.header("x-hms-error").to_owned();
            assert!(
                answer.status == 401 && codes.contains(&code.as_str()),
                "{what}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
        }
        let nothing = http.get("/good").await.expect("an answer");
        assert_eq!((nothing.status, nothing.header("x-hms-error")), (401, "HMS-3101"));
    });
}

/// What is wrong, the field's value, the codes that may say so.
type BadToken = (&'static str, String, &'static [&'static str]);

/// Field values, each wrong in one way, with the codes that say so. The issuer's own key is borrowed to sign those whose
/// signature is right.
fn tokens(mesh: &Mesh, good: &str) -> Vec<BadToken> {
    let (head, rest) = good.split_once('.').expect("a token");
    let (claims, signature) = rest.split_once('.').expect("a token");
    let key = std::fs::read(mesh.state_dir().join("control/jwt.key")).expect("the issuer's key");
    let key = EncodingKey::from_ec_pem(&key).expect("a key");
    let stranger = rcgen::KeyPair::generate().expect("a key");
    let stranger = EncodingKey::from_ec_pem(stranger.serialize_pem().as_bytes()).expect("a key");
    let kid = jsonwebtoken::decode_header(good).expect("a header").kid;
    let header = Header { kid: kid.clone(), ..Header::new(Algorithm::ES256) };
    let now = hms_testkit::unix_now();
    let claims_of = |change: &[(&str, Value)]| {
        let mut claims = json!({"iss": "hms-dev", "sub": "x", "aud": "hms", "iat": now, "nbf": now, "exp": now + 600});
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        claims
    };
    let signed =
        |change: &[(&str, Value)]| bearer(&jsonwebtoken::encode(&header, &claims_of(change), &key).expect("signed"));
    let with = |header: &Header, key: &EncodingKey| {
        bearer(&jsonwebtoken::encode(header, &claims_of(&[]), key).expect("signed"))
    };
    let symmetric = Header { kid, ..Header::new(Algorithm::HS256) };
    let unknown = Header { kid: Some("nobody".to_owned()), ..Header::new(Algorithm::ES256) };
    // {"alg":"none"} and {"alg":"none","typ":"JWT"} in base64url.
    let none = "eyJhbGciOiJub25lIn0";
    vec![
        ("no bearer", format!("Basic {good}"), &["HMS-3101", "HMS-3102"]),
        ("an empty token", "Bearer ".to_owned(), &["HMS-3101", "HMS-3102"]),
        ("no token at all", bearer("hello"), &["HMS-3102"]),
        ("two parts", bearer(&format!("{head}.{claims}")), &["HMS-3102"]),
        ("five parts", bearer(&format!("{good}.x.y")), &["HMS-3102"]),
        ("no signature", bearer(&format!("{head}.{claims}.")), &["HMS-3102", "HMS-3106"]),
        ("alg none", bearer(&format!("{none}.{claims}.")), &["HMS-3102", "HMS-3109"]),
        ("alg none, signed", bearer(&format!("{none}.{claims}.{signature}")), &["HMS-3102", "HMS-3109"]),
        ("other claims", bearer(&format!("{head}.eyJzdWIiOiJyb290In0.{signature}")), &["HMS-3106"]),
        ("a stranger's key", with(&header, &stranger), &["HMS-3106"]),
        ("an unknown key", with(&unknown, &stranger), &["HMS-3105"]),
        ("a symmetric key", with(&symmetric, &EncodingKey::from_secret(b"secret")), &["HMS-3109", "HMS-3105"]),
        ("expired", signed(&[("exp", json!(now - 3600))]), &["HMS-3103"]),
        ("expired, as a text", signed(&[("exp", json!((now + 600).to_string()))]), &["HMS-3102", "HMS-3103"]),
        ("no expiry", signed(&[("exp", Value::Null)]), &["HMS-3102", "HMS-3103"]),
        ("not yet", signed(&[("nbf", json!(now + 3600))]), &["HMS-3104"]),
        ("another issuer", signed(&[("iss", json!("https://evil.com"))]), &["HMS-3107"]),
        ("another audience", signed(&[("aud", json!("bank"))]), &["HMS-3108"]),
        ("no audience", signed(&[("aud", json!([]))]), &["HMS-3108"]),
    ]
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn broken_certificate_requests_get_no_certificate() {
    scenario(Duration::from_mins(1), async {
        let (mesh, _control) = registered().await;
        let csr = |names: Vec<String>| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = rcgen::CertificateParams::new(names).expect("names");
            params.serialize_request(&key).expect("a request").der().to_vec()
        };
        let good = csr(Vec::new());
        let before = state(&mesh.rest()).await;
        let stranger = control_socket::connect(&mesh).await;
        let refused = control_socket::issue(&stranger, &good).await.expect_err("this process is not attested");
        assert!(refused.0 == tonic::Code::Unauthenticated && refused.1.contains("HMS-42"), "{refused:?}");

        let body = json!({"process_id": std::process::id(), "service": "portal.default", "role": "sidecar"});
        let _attested = mesh.rest().post("/v1/attestations", &body).await;
        let channel = control_socket::connect(&mesh).await;
        assert!(control_socket::issue(&channel, &good).await.is_ok_and(|chain| chain >= 1), "a good one is signed");
        let mut forged = good.clone();
        if let Some(last) = forged.last_mut() {
            *last ^= 1;
        }
        let pem =
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", "AAAA".repeat(20));
        let cases: [(&str, Vec<u8>); 8] = [
            ("nothing", Vec::new()),
            ("no DER", b"hello".to_vec()),
            ("PEM", pem.into_bytes()),
            ("cut off", good[..good.len() / 2].to_vec()),
            ("more behind it", [good.as_slice(), b"x"].concat()),
            ("another signature", forged),
            ("too large", vec![0x30; 17 * 1024]),
            ("a length of two gigabytes", vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]),
        ];
        for (what, csr) in cases {
            let refused = control_socket::issue(&channel, &csr).await.expect_err(what);
            assert!(refused.0 == tonic::Code::InvalidArgument && refused.1.starts_with("HMS-"), "{what}: {refused:?}");
        }
        // Only the key is taken from a request: names that it asks for are not given.
        assert!(control_socket::issue(&channel, &csr(vec!["gateway.local".to_owned()])).await.is_ok());
        assert_eq!(state(&mesh.rest()).await, before);
    });
}

#[test]
fn bytes_that_are_no_protocol_end_their_connection_only() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    scenario(Duration::from_mins(1), async {
        let (mesh, _control) = registered().await;
        let before = state(&mesh.rest()).await;
        let socket = mesh.run_dir().join("control.sock");
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            &[0; 64],
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("it listens");
            let _sent = stream.write_all(bytes).await.is_ok();
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "the connection stays open after {bytes:?}");
        }
        assert_eq!(state(&mesh.rest()).await, before);
    });
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2() {
    scenario(Duration::from_mins(1), async {
        let (mesh, _control) = registered().await;
        let before = state(&mesh.rest()).await;
        for (arguments, word) in [
            (vec!["rigster", "good.yaml"], "register"),
            (vec!["register"], "FILE"),
            (vec!["up", "--ports", "some"], "auto"),
            (vec!["certificates", "rotate", "--validity", "24"], "24h"),
            (vec!["enforce", "mtls", "--mode", "SOMETIMES"], "STRICT"),
            (vec!["services", "-o", "xml"], "json"),
            (vec!["tap", "--trace", "7"], "6 hex"),
            (vec!["down", "--purge"], "-y"),
        ] {
            let said = mesh.try_hms(&arguments).await;
            assert!(said.code == 2 && said.err.contains(word), "{arguments:?}: {said:?}");
        }
        assert_eq!(state(&mesh.rest()).await, before);
    });
}
