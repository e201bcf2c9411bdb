//! A service that divides its calls to two others, and a caller: what changes of the configuration are tried on.

use std::time::Duration;

use crate::apps::App;
use crate::mesh::Mesh;
use crate::processes::Process;
use crate::sidecar::{Plan, Proxy};
use crate::wait;

const SOON: Duration = Duration::from_secs(20);

/// SMI's object that gives `pay-v2` so many of a hundred calls to `pay-svc`, and `pay-v1` the others.
pub fn split(v2: u32) -> String {
    let v1 = 100 - v2;
    format!(
        "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata:\n  name: pay-split\nspec:\n  service: pay-svc\n  \
         backends:\n  - service: pay-v1\n    weight: {v1}\n  - service: pay-v2\n    weight: {v2}\n"
    )
}

/// `pay-v1` and `pay-v2` behind proxies of their own, the name `pay-svc`, and the proxy of `portal`, which calls it.
#[derive(Debug)]
pub struct Divided {
    /// The mesh.
    pub mesh: Mesh,
    /// The applications of `pay-v1` and `pay-v2`.
    pub apps: [App; 2],
    /// The proxy of `portal`.
    pub caller: Proxy,
    /// Those of the two services.
    pub proxies: [Proxy; 2],
    /// The control plane.
    pub control: Process,
}

impl Divided {
    /// Starts everything and waits until all three proxies are connected.
    pub async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {pay-v1: {}, pay-v2: {}, pay-svc: {}, portal: {}}").await;
        let apps = [App::start("one").await, App::start("two").await];
        let first = Proxy::start(&mesh, Plan::of("pay-v1", apps[0].address())).await;
        let second = Proxy::start(&mesh, Plan::of("pay-v2", apps[1].address())).await;
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["pay-svc".to_owned()];
        let caller = Proxy::start(&mesh, plan).await;
        for service in ["pay-v1", "pay-v2"] {
            mesh.rest().until_service(service, "healthy", 1).await;
        }
        wait::until("the caller is connected too", SOON, || async {
            let proxies = mesh.rest().get("/v1/proxies").await;
            if proxies["items"].as_array().map(Vec::len) == Some(3) { Ok(()) } else { Err(proxies.to_string()) }
        })
        .await;
        Self { mesh, apps, caller, proxies: [first, second], control }
    }
}
