//! The host's resolver and the one of a captured application.

use hms_dns::host::HostResolver;

#[test]
fn the_hosts_file_is_read_as_the_c_library_reads_it() {
    let text = "# comment\n; another\nnameserver 127.0.0.53\nnameserver 2001:db8::1\nnameserver nonsense\nsearch old.example\n\
                nameserver fe80::1%2\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\nunknown thing\n\
                search Corp.Example lab.example. . b\u{e4}d\noptions ndots:5 made-up\n";
    let host = HostResolver::read(text.as_bytes());
    let servers: Vec<String> = host.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["127.0.0.53:53", "[2001:db8::1]:53", "[fe80::1%2]:53"]);
    assert_eq!(host.search, ["corp.example", "lab.example"]);
    assert_eq!(HostResolver::read(b"domain corp.example\n").search, ["corp.example"]);
    assert_eq!(HostResolver::read(b""), HostResolver::default());
    assert_eq!(HostResolver::read(b"nameserver\xff\xfe\n\0"), HostResolver::default());
}

#[test]
fn a_captured_application_asks_the_mesh_first_and_then_as_its_host_does() {
    let host = HostResolver::read(b"nameserver 192.0.2.1\nsearch corp.example lab.example\noptions ndots:5\n");
    let text = host.captured([127, 0, 0, 1].into());
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected =
        ["nameserver 127.0.0.1", "search mesh corp.example lab.example", "options ndots:1 timeout:5 attempts:2"];
    assert_eq!(lines, expected);
    assert_eq!(HostResolver::read(text.as_bytes()).search, ["mesh", "corp.example", "lab.example"]);
    assert!(HostResolver::default().captured([127, 0, 0, 1].into()).contains("\nsearch mesh\n"));
}
