//! Which names the mesh answers, and what it says.

use domain::base::header::Header;
use hms_dns::{Answer, Code, Terms, Transport, answer, no_name};
use hms_model::port::{AppProtocol, Port};

use crate::message::{
    A, AAAA, HTTPS, PTR, SOA, SRV, Services, TXT, UDP, answers, asked, counts, directory, forwarded, nothing_for,
    query, query_edns, replied,
};

#[test]
fn every_spelling_of_a_service_has_its_virtual_addresses() {
    for host in [
        "payment-svc",
        "payment-svc.default",
        "payment-svc.mesh",
        "payment-svc.default.mesh",
        "payment-svc.default.svc",
        "payment-svc.default.svc.cluster.local",
    ] {
        let reply = replied(&query(host, A));
        assert_eq!((reply.code, answers(&reply.bytes)), (Code::NoError, vec![format!("{host} A 240.0.0.1")]));
        assert_eq!(answers(&replied(&query(host, AAAA)).bytes), [format!("{host} AAAA fd48:4d53:6d65:7368::1")]);
        assert_eq!(reply.service.unwrap().to_string(), "payment-svc", "its details are wanted before the connect");
        let header = *Header::for_message_slice(&reply.bytes);
        assert!(header.qr() && header.aa() && header.rd() && header.ra() && !header.tc());
    }
    assert_eq!(answers(&replied(&query("calc.prod", A)).bytes), ["calc.prod A 240.0.0.3"]);
    assert_eq!(answers(&replied(&query("gateway.local", A)).bytes), ["gateway.local A 240.0.0.4"]);
}

#[test]
fn a_bare_name_is_looked_up_in_the_callers_namespace() {
    let entries = directory();
    let terms = Terms { namespace: "prod", ..UDP };
    let ask = |host: &str| answer(&query(host, A), &entries, &terms);
    assert!(matches!(ask("calc"), Answer::Reply(reply) if reply.code == Code::NoError));
    assert!(matches!(ask("calc.mesh"), Answer::Reply(reply) if reply.code == Code::NoError));
    assert!(matches!(ask("payment-svc"), Answer::Forward(_)));
    assert!(matches!(ask("payment-svc.mesh"), Answer::Reply(reply) if reply.code == Code::NxDomain));
}

#[test]
fn the_answer_repeats_the_letters_of_the_question() {
    for host in ["pAyMeNt-SvC.dEfAuLt.SvC.cLuStEr.LoCaL", "PAYMENT-SVC.MESH"] {
        let reply = replied(&query(host, A));
        assert_eq!(answers(&reply.bytes), [format!("{host} A 240.0.0.1")]);
        let asked = query(host, A);
        assert_eq!(reply.bytes[12..asked.len()], asked[12..], "the question in every octet");
    }
}

#[test]
fn a_name_of_the_mesh_that_is_none_does_not_exist() {
    for (host, zone) in [
        ("nothing.mesh", "mesh"),
        ("x.default.svc.cluster.local", "cluster.local"),
        ("nothing.default", "default"),
        ("nothing.default.svc", "svc"),
        ("payment-svc.prod.svc.cluster.local", "cluster.local"),
        ("a.b.c.d.mesh", "mesh"),
        ("example.com.mesh", "mesh"),
        ("_x._tcp.alerts-svc.mesh", "mesh"),
        ("_grpc._udp.alerts-svc.mesh", "mesh"),
        ("with space.mesh", "mesh"),
        ("1.0.0.241.in-addr.arpa", "in-addr.arpa"),
    ] {
        for kind in [A, AAAA, SRV, PTR, TXT, HTTPS] {
            let reply = replied(&query(host, kind));
            assert_eq!(reply.code, Code::NxDomain, "{host}");
            assert_eq!(nothing_for(&reply.bytes), Some((zone.to_owned(), 1)), "{host}");
            assert_eq!(reply.service, None);
        }
    }
}

#[test]
fn a_name_without_records_of_a_kind_exists_nevertheless() {
    for host in [
        "payment-svc",
        "mesh",
        "svc.cluster.local",
        "cluster.local",
        "default.svc.cluster.local",
        "prod.mesh",
        "_tcp.alerts-svc.mesh",
        "_grpc._tcp.alerts-svc.mesh",
        "localhost",
    ] {
        for kind in [TXT, HTTPS, 64, 15, 2] {
            let reply = replied(&query(host, kind));
            assert_eq!((reply.code, counts(&reply.bytes)), (Code::NoError, [0, 1, 0]), "{host} {kind}");
        }
    }
    let reply = replied(&query("mesh", SOA));
    assert_eq!(counts(&reply.bytes), [1, 0, 0]);
}

#[test]
fn ports_are_found_by_their_name() {
    for host in
        ["_grpc._tcp.alerts-svc.mesh", "_grpc._tcp.alerts-svc", "_GRPC._TCP.alerts-svc.default.svc.cluster.local"]
    {
        let reply = replied(&query(host, SRV));
        let expected = [50051, 50052].map(|port| format!("{host} SRV 0 0 {port} alerts-svc.mesh"));
        assert_eq!(answers(&reply.bytes), expected);
        assert_eq!(counts(&reply.bytes), [2, 0, 2], "with both addresses beside them");
        assert_eq!(reply.service.unwrap().to_string(), "alerts-svc");
    }
    let unnamed = replied(&query("_grpc._tcp.payment-svc.mesh", SRV));
    let expected = "_grpc._tcp.payment-svc.mesh SRV 0 0 9000 payment-svc.mesh";
    assert_eq!(answers(&unnamed.bytes), [expected], "a port without a name is called by its protocol");
    assert!(matches!(asked(&query("_xmpp._tcp.example.com", SRV)), Answer::Forward(_)));
}

#[test]
fn virtual_addresses_have_a_name() {
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.6.3.7.5.6.d.6.3.5.d.4.8.4.d.f.ip6.arpa";
    for host in ["1.0.0.240.in-addr.arpa", v6] {
        let reply = replied(&query(host, PTR));
        assert_eq!(answers(&reply.bytes), [format!("{host} PTR payment-svc.mesh.")]);
        assert_eq!(reply.service, None, "nobody connects because of it");
    }
    assert_eq!(
        answers(&replied(&query("3.0.0.240.in-addr.arpa", PTR)).bytes),
        ["3.0.0.240.in-addr.arpa PTR calc.prod.mesh."]
    );
    assert!(answers(&replied(&query("1.0.0.127.in-addr.arpa", PTR)).bytes)[0].ends_with(" localhost."));
    for foreign in ["1.0.0.10.in-addr.arpa", "0.240.in-addr.arpa", "1.0.0.256.in-addr.arpa", "b.ip6.arpa", "arpa"] {
        assert!(matches!(asked(&query(foreign, PTR)), Answer::Forward(_)), "{foreign}");
    }
}

#[test]
fn localhost_is_this_host() {
    for host in ["localhost", "gateway.localhost", "LOCALHOST"] {
        assert_eq!(answers(&replied(&query(host, A)).bytes), [format!("{host} A 127.0.0.1")]);
        assert_eq!(answers(&replied(&query(host, AAAA)).bytes), [format!("{host} AAAA ::1")]);
    }
}

#[test]
fn other_names_are_somebody_elses() {
    for host in ["", "printer", "example.com", "payment-svc.corp.example", "payment-svc.com", "nothing.prod", "a.local"]
    {
        assert_eq!(forwarded(&query(host, A)).is_bare(), host == "printer", "{host}");
    }
}

#[test]
fn a_search_list_that_is_not_ours_hides_no_service() {
    let entries = directory();
    let search = ["corp.example".to_owned(), "Lab.Example.".to_owned()];
    let terms = Terms { search: &search, ..UDP };
    let ask = |host: &str| answer(&query(host, A), &entries, &terms);
    for host in ["payment-svc.corp.example", "PAYMENT-SVC.lab.example"] {
        assert!(matches!(ask(host), Answer::Reply(reply) if reply.code == Code::NxDomain), "{host}");
    }
    for host in ["printer.corp.example", "payment-svc.other.example", "www.payment-svc.corp.example"] {
        assert!(matches!(ask(host), Answer::Forward(_)), "{host}");
    }
}

#[test]
fn before_anything_is_known_of_the_mesh_its_names_are_not_denied() {
    let nothing = Services::default();
    let ask = |host: &str, kind: u16| answer(&query(host, kind), &nothing, &UDP);
    for host in ["payment-svc", "payment-svc.mesh", "a.default", "a.b.svc.cluster.local", "gateway.local"] {
        assert!(matches!(ask(host, A), Answer::NotYet(_)), "{host}");
    }
    assert!(matches!(ask("1.0.0.240.in-addr.arpa", PTR), Answer::NotYet(_)));
    assert!(matches!(ask("example.com", A), Answer::Forward(_)));
    assert!(matches!(ask("localhost", A), Answer::Reply(_)));
}

#[test]
fn a_bare_name_that_nobody_knows_does_not_exist() {
    let reply = no_name(&forwarded(&query("printer", A)));
    assert_eq!((reply.code, nothing_for(&reply.bytes)), (Code::NxDomain, Some(("printer".to_owned(), 1))));
}

#[test]
fn an_answer_that_is_too_long_for_a_datagram_sends_the_client_to_tcp() {
    let mut entries = directory();
    for entry in entries.0.values_mut() {
        entry.ports = (1..=200)
            .map(|number| Port { number, name: "many".to_owned(), protocol: AppProtocol::Detect, target: None })
            .collect();
    }
    for (message, most) in [
        (query("_many._tcp.alerts-svc.mesh", SRV), 512),
        (query_edns("_many._tcp.alerts-svc.mesh", SRV, 0, 0, 0), 512),
        (query_edns("_many._tcp.alerts-svc.mesh", SRV, 65535, 0, 0), 1232),
    ] {
        let Answer::Reply(short) = answer(&message, &entries, &UDP) else { panic!("no reply") };
        assert!(Header::for_message_slice(&short.bytes).tc() && short.bytes.len() <= most);
        assert_eq!(counts(&short.bytes)[0], 0);
        let Answer::Reply(whole) = answer(&message, &entries, &Terms { transport: Transport::Tcp, ..UDP }) else {
            panic!("no reply")
        };
        assert!(!Header::for_message_slice(&whole.bytes).tc());
        assert_eq!(counts(&whole.bytes)[0], 200);
    }
}

#[test]
fn edns_is_answered_with_edns_and_never_without_being_asked() {
    let reply = replied(&query_edns("payment-svc.mesh", A, 4096, 0, 0x8000));
    assert_eq!(counts(&reply.bytes), [1, 0, 1]);
    let tail = &reply.bytes[reply.bytes.len() - 11..];
    assert_eq!(tail, [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0], "1232 octets, version 0, DO as asked");
    assert_eq!(counts(&replied(&query("payment-svc.mesh", A)).bytes), [1, 0, 0]);
}
