use std::net::Ipv4Addr;
use std::path::Path;

use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_wire::proto::hms::v1;
use hms_wire::proto::hms::v1::control_client::ControlClient;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Uri;

use super::*;

fn settings(directory: &Path) -> Settings {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    Settings {
        rest: any,
        grpc: any,
        ..Settings::new(directory.join("control"), directory.join("data"), directory.join("run"))
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_control_plane_says_where_it_is_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(directory.path())).await.unwrap();
    let text = std::fs::read_to_string(directory.path().join("run/control.json")).unwrap();
    let announced: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(announced["rest"], control.rest.to_string());
    assert_eq!(announced["grpc"], control.grpc.to_string());
    assert_eq!(announced["trust_domain"], control.trust_domain.as_str());
    assert_eq!(announced["pid"], std::process::id());
    assert!(announced["start_time"].as_u64().unwrap() > 0);
    UnixStream::connect(control.socket()).await.unwrap();
    let ready = get(control.rest, "/healthz/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.ends_with("SERVING"), "{ready}");
    control.shutdown().await;
    assert_eq!(std::fs::read_dir(directory.path().join("run")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_second_start_is_the_same_mesh() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(settings(directory.path())).await.unwrap();
    let (domain, bundle) = (first.trust_domain.clone(), first.registry.view().mesh.trust.clone());
    assert!(bundle.is_some());
    let revision = first.registry.view().config;
    assert!(start(settings(directory.path())).await.is_err(), "one at a time");
    first.shutdown().await;
    let second = start(settings(directory.path())).await.unwrap();
    assert_eq!((&second.trust_domain, &second.registry.view().mesh.trust), (&domain, &bundle));
    assert_eq!(second.registry.view().config, revision, "a start alone changes nothing");
    assert_eq!(second.registry.view().mesh.gateway.issuers.len(), 1);
    second.shutdown().await;
}

/// The control stream of a proxy in this process, over the local socket.
async fn attached(control: &ControlPlane) -> (mpsc::Sender<v1::ProxyMessage>, tonic::Streaming<v1::ControlMessage>) {
    let identity = SpiffeId::new(&control.trust_domain, "default", "calc-svc").unwrap();
    control.attestations.attest(std::process::id(), identity, Role::Sidecar).unwrap();
    let socket = control.socket();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://control.mesh");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let (messages, outgoing) = mpsc::channel(8);
    let hello = v1::Hello { proxy_id: "p".to_owned(), role: "sidecar".to_owned(), ..v1::Hello::default() };
    let workload = v1::WorkloadState {
        service: Some(v1::ServiceName { namespace: "default".to_owned(), name: "calc-svc".to_owned() }),
        id: "1".to_owned(),
        ip: "127.0.0.1".to_owned(),
        port: 4000,
        ..v1::WorkloadState::default()
    };
    for kind in [v1::proxy_message::Kind::Hello(hello), v1::proxy_message::Kind::Workload(workload)] {
        messages.send(v1::ProxyMessage { kind: Some(kind) }).await.unwrap();
    }
    let mut answers = ControlClient::new(channel).attach(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let registered = answers.message().await.unwrap().unwrap().kind;
    assert!(matches!(registered, Some(v1::control_message::Kind::Registered(_))), "{registered:?}");
    (messages, answers)
}

#[tokio::test]
async fn a_shutdown_ends_streams_at_once_and_keeps_what_is_registered() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(directory.path())).await.unwrap();
    let (_messages, mut answers) = attached(&control).await;
    let began = tokio::time::Instant::now();
    control.shutdown().await;
    assert!(began.elapsed() < DRAIN, "{:?}", began.elapsed());
    assert!(answers.message().await.is_err());
    let control = start(settings(directory.path())).await.unwrap();
    let calc = ServiceName::new("calc-svc").unwrap();
    assert_eq!(control.registry.view().mesh.services[&calc].endpoints.len(), 1);
    control.shutdown().await;
}

#[tokio::test]
async fn a_store_without_its_authority_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    start(settings(directory.path())).await.unwrap().shutdown().await;
    std::fs::remove_dir_all(directory.path().join("control/ca")).unwrap();
    let error = start(settings(directory.path())).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("HMS-2305"), "{error}");
}

#[tokio::test]
async fn the_rest_api_is_not_offered_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let open = Settings { rest: (Ipv4Addr::UNSPECIFIED, 0).into(), ..settings(directory.path()) };
    assert!(matches!(start(open).await.map(drop), Err(StartError::NotLoopback(_))));
}
