//! Requests that lead out of the mesh.
#![expect(clippy::unwrap_used, reason = "a label that is none fails its test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use hms_model::names::Label;
use hms_model::policy::Egress;
use hms_model::policy::egress::{EgressHost, Unlisted};
use hms_model::resource::{Overlay, Resource};
use http::{Method, StatusCode};

use crate::stage::{self, Answer, Stage, Upstream};

/// A policy with one host, at an address of this machine.
fn policy(unlisted: Unlisted, outside: &Upstream, local: bool) -> Resource {
    let host = EgressHost {
        host: outside.address().ip().to_string(),
        ports: vec![outside.address().port()],
        local,
        tls: None,
        overlay: Overlay::default(),
    };
    let hosts = BTreeMap::from([(Label::new("fema").unwrap(), host)]);
    Resource::Egress(Egress { unlisted: Some(unlisted), hosts, ..Egress::default() })
}

#[test]
fn a_listed_host_is_called_like_a_service_and_stands_in_the_series_by_its_name() {
    stage::run(async {
        let outside = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().resource(policy(Unlisted::Refused, &outside, true)).build();
        let authority = outside.address().to_string();
        let answer = stage.call(Method::GET, &authority, "/declarations?x=1", Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(outside.seen(), ["GET /declarations?x=1"]);
        let metrics = stage.metrics();
        assert!(metrics.contains("destination_service=\"127.0.0.1\""), "{metrics}");
        assert!(metrics.contains("destination_workload=\"fema\""), "{metrics}");
    });
}

#[test]
fn what_is_not_listed_is_refused_with_what_to_add_and_nothing_is_sent() {
    stage::run(async {
        let outside = Upstream::start(|_| Answer::Status(200)).await;
        let authority = outside.address().to_string();
        for (told, resource) in [
            ("hosts: {NAME: {host: 127.0.0.1", Resource::Egress(Egress::default())),
            ("`local: true`", policy(Unlisted::Refused, &outside, false)),
            ("default: deny", policy(Unlisted::AllRefused, &outside, true)),
            // An address of this machine is nobody's outside, even where everything is allowed.
            ("special", Resource::Egress(Egress { unlisted: Some(Unlisted::Allowed), ..Egress::default() })),
        ] {
            let stage = Stage::new().resource(resource).build();
            let answer = stage.call(Method::GET, &authority, "/", Bytes::new()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
            assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3202"));
            assert!(answer.text().contains(told), "{told}: {}", answer.text());
        }
        assert_eq!(outside.count(), 0);
    });
}

#[test]
fn names_of_the_mesh_never_lead_outside() {
    stage::run(async {
        let allow = Resource::Egress(Egress { unlisted: Some(Unlisted::Allowed), ..Egress::default() });
        let stage = Stage::new().entry("calc-svc", "240.0.0.1").resource(allow).build();
        for host in ["calc", "calc.mesh", "calc.default", "calc.default.svc.cluster.local", "localhost"] {
            let answer = stage.call(Method::GET, host, "/", Bytes::new()).await;
            assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3403"), "{host}");
        }
    });
}
