//! A file that changes while requests come, and one with mistakes.

use std::net::SocketAddr;
use std::sync::Arc;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::{binaries, processes, scenario};
use nix::sys::signal::Signal;

use crate::{Run, SECOND, answered_by};

/// A file with `@type` and without a fixed port.
fn file(endpoints: &[SocketAddr]) -> String {
    let endpoint = |address: &SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("        - endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }}\n")
    };
    let endpoints: Vec<String> = endpoints.iter().map(endpoint).collect();
    let endpoints = endpoints.concat();
    format!(
        "static_resources:
  listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          http_filters: [{{ name: envoy.filters.http.router }}]
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes: [{{ match: {{ prefix: / }}, route: {{ cluster: app }} }}]
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
{endpoints}"
    )
}

#[test]
fn a_changed_file_takes_effect_without_a_lost_request_and_a_bad_one_never() {
    scenario(SECOND * 120, Box::pin(changed()));
}

async fn changed() {
    let mesh = Mesh::new();
    let (one, other) = (App::start("one").await, App::start("other").await);
    mesh.write("envoy.yaml", file(&[one.address()]));
    let mut run = Run::start(&mesh, "envoy.yaml", &[]).await;
    let front = run.address("front");
    let caller = Http::plain(front);
    assert_eq!(answered_by(&caller, "/").await, "one");
    let load = {
        let caller = Arc::new(Http::plain(front));
        Load::start(100, move |_id| {
            let caller = Arc::clone(&caller);
            async move {
                let answer = answered_by(&caller, "/").await;
                if matches!(answer.as_str(), "one" | "other") { Ok(()) } else { Err(answer) }
            }
        })
    };
    mesh.write("envoy.yaml", file(&[other.address()]));
    run.until_it_says("envoy.yaml: in use").await;
    assert_eq!(run.address("front"), front, "the new proxy has the same listener");
    assert_eq!(answered_by(&Http::plain(front), "/").await, "other");
    load.go_on_for(100).await;

    mesh.write("envoy.yaml", file(&[one.address()]).replace("prefix", "prefx"));
    processes::signal(run.process.pid(), Signal::SIGHUP);
    run.until_it_says("has mistakes; the proxy goes on as it was").await;
    assert!(run.process.output().contains("did you mean `prefix`?"), "{}", run.process.output());
    assert_eq!(answered_by(&Http::plain(front), "/").await, "other");
    load.finish().await.assert_no_failures("a static file was changed");
    assert_eq!(run.process.terminate().await, Some(0), "{}", run.process.output());
}

#[test]
fn a_file_with_mistakes_starts_nothing_and_the_end_of_hms_is_the_end_of_its_proxy() {
    scenario(SECOND * 60, Box::pin(refused_and_killed()));
}

async fn refused_and_killed() {
    let mesh = Mesh::new();
    let app = App::start("one").await;
    mesh.write("bad.yaml", file(&[app.address()]).replace("prefix", "safe_regex"));
    let hms = async |words: &[&str]| {
        let mut command = mesh.command(binaries::hms());
        command.args(words);
        mesh.run(command).await
    };
    let said = hms(&["proxy", "run", "--config", "bad.yaml"]).await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.err.contains("HMS-2130") && said.err.contains("bad.yaml:1") && said.err.contains("safe_regex"),
        "{said:?}"
    );
    let checked = hms(&["proxy", "run", "--config", "bad.yaml", "--check"]).await;
    let linted = hms(&["lint", "bad.yaml"]).await;
    assert_eq!((checked.code, linted.code), (3, 3));
    assert_eq!(checked.out, linted.out);

    mesh.write("envoy.yaml", file(&[app.address()]));
    let linted = hms(&["lint", "envoy.yaml"]).await;
    assert_eq!(linted.code, 0, "{linted:?}");
    let mut run = Run::start(&mesh, "envoy.yaml", &[]).await;
    assert_eq!(answered_by(&Http::plain(run.address("front")), "/").await, "one");
    run.process.kill().await;
    processes::none_marked(mesh.root(), SECOND * 15).await;
}
