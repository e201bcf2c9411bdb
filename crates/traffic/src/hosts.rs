//! Which route of which virtual host takes a request that no control plane speaks of.

use std::collections::HashMap;
use std::net::SocketAddr;

use hms_model::message::{Authority, CanonicalPath};
use hms_model::standalone::{Domain, HostPort, HostRoute, StaticListener, VirtualHost};

/// The virtual hosts of one listener.
///
/// Of the domains that fit a host the most particular decides: the name itself, then the longest `*.example.com`, then the
/// longest `example.*`, then `*`. Of that host's routes the first that fits is taken; another host is never tried.
#[derive(Debug, Clone)]
pub struct HostTable {
    hosts: Vec<VirtualHost>,
    exact: HashMap<String, usize>,
    /// The longest first.
    suffixes: Vec<(String, usize)>,
    /// The longest first.
    prefixes: Vec<(String, usize)>,
    any: Option<usize>,
    host_port: HostPort,
    own_port: u16,
}

/// What was found for a request.
#[derive(Debug, Clone, PartialEq)]
pub enum HostSelection<'a> {
    /// A route.
    Found {
        /// The virtual host.
        host: &'a VirtualHost,
        /// Its place among all routes of the listener.
        index: usize,
        /// The route.
        route: &'a HostRoute,
    },
    /// No virtual host answers for this name.
    NoHost,
    /// The virtual host has no route for this path.
    NoRoute(&'a VirtualHost),
}

impl HostTable {
    /// The table of a listener; `bound` is where it really listens.
    pub fn build(listener: &StaticListener, bound: SocketAddr) -> Self {
        let mut table = Self {
            hosts: listener.hosts.clone(),
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            any: None,
            host_port: listener.host_port,
            own_port: bound.port(),
        };
        for (index, host) in listener.hosts.iter().enumerate() {
            for domain in &host.domains {
                match domain {
                    Domain::Exact(name) => drop(table.exact.insert(name.clone(), index)),
                    Domain::Suffix(name) => table.suffixes.push((name.clone(), index)),
                    Domain::Prefix(name) => table.prefixes.push((name.clone(), index)),
                    Domain::Any => table.any = Some(index),
                }
            }
        }
        // The names are different, so the order of equal lengths decides nothing.
        table.suffixes.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        table.prefixes.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        table
    }

    /// Every virtual host.
    pub fn hosts(&self) -> &[VirtualHost] {
        &self.hosts
    }

    /// Finds the route of a request.
    pub fn select(&self, authority: &Authority, path: &CanonicalPath) -> HostSelection<'_> {
        let Some((at, host)) = self.host(authority).and_then(|at| Some((at, self.hosts.get(at)?))) else {
            return HostSelection::NoHost;
        };
        let before: usize = self.hosts.iter().take(at).map(|host| host.routes.len()).sum();
        match host.routes.iter().enumerate().find(|(_, route)| route.path.takes(path.as_str())) {
            Some((place, route)) => HostSelection::Found { host, index: before + place, route },
            None => HostSelection::NoRoute(host),
        }
    }

    fn host(&self, authority: &Authority) -> Option<usize> {
        let ignored = match (self.host_port, authority.port()) {
            (_, None) | (HostPort::Ignored, _) => true,
            (HostPort::IgnoredIfOwn, Some(port)) => port == self.own_port,
            (HostPort::Kept, Some(_)) => false,
        };
        if ignored { self.named(authority.host()) } else { self.named(&authority.to_string()) }
    }

    fn named(&self, name: &str) -> Option<usize> {
        let fits = |rest: Option<&str>| rest.is_some_and(|rest| !rest.is_empty());
        let suffix = || self.suffixes.iter().find(|(own, _)| fits(name.strip_suffix(own.as_str())));
        let prefix = || self.prefixes.iter().find(|(own, _)| fits(name.strip_prefix(own.as_str())));
        let exact = self.exact.get(name).copied();
        exact.or_else(|| suffix().or_else(prefix).map(|(_, index)| *index)).or(self.any)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use hms_model::names::ServiceName;
    use hms_model::policy::TrafficPolicy;
    use hms_model::standalone::PathMatch;
    use proptest::prelude::*;

    use super::*;

    /// Domains, and what is served under them.
    type Host<'a> = (&'a [&'a str], &'a [PathMatch]);

    fn listener(hosts: &[Host<'_>], host_port: HostPort) -> StaticListener {
        let route = |path: &PathMatch| HostRoute {
            path: path.clone(),
            service: ServiceName::new("a").unwrap(),
            policy: TrafficPolicy::default(),
            origin: String::new(),
        };
        let host = |(place, (domains, routes)): (usize, &Host<'_>)| VirtualHost {
            name: place.to_string(),
            domains: domains.iter().map(|text| Domain::parse(text).unwrap()).collect(),
            routes: routes.iter().map(route).collect(),
        };
        let hosts = hosts.iter().enumerate().map(host).collect();
        StaticListener { name: "l".into(), address: ([127, 0, 0, 1], 15001).into(), host_port, hosts }
    }

    fn found(table: &HostTable, authority: &str, path: &str) -> String {
        let (authority, path) = (Authority::parse(authority).unwrap(), CanonicalPath::parse(path).unwrap());
        match table.select(&authority, &path) {
            HostSelection::Found { host, index, route } => format!("{} {index} {}", host.name, route.path),
            HostSelection::NoHost => "no host".into(),
            HostSelection::NoRoute(host) => format!("{} no route", host.name),
        }
    }

    fn table(hosts: &[Host<'_>], host_port: HostPort) -> HostTable {
        let listener = listener(hosts, host_port);
        HostTable::build(&listener, listener.address)
    }

    #[test]
    fn the_most_particular_domain_decides_and_its_first_route_that_fits() {
        let (a, all) = (PathMatch::Prefix("/a".into()), PathMatch::Prefix("/".into()));
        let exact = PathMatch::Exact("/abc".into());
        let table = table(
            &[
                (&["*"], std::slice::from_ref(&all)),
                (&["x.example.com"], &[a.clone(), exact, all.clone()]),
                (&["*.example.com"], std::slice::from_ref(&a)),
                (&["*.b.example.com", "x.*"], std::slice::from_ref(&all)),
            ],
            HostPort::Kept,
        );
        assert_eq!(found(&table, "x.example.com", "/abc"), "1 1 /a*", "the first, not the most particular");
        assert_eq!(found(&table, "x.example.com", "/b"), "1 3 /*");
        assert_eq!(found(&table, "y.example.com", "/b"), "2 no route", "another host is never tried");
        assert_eq!(found(&table, "y.b.example.com", "/b"), "3 5 /*");
        assert_eq!(found(&table, "x.org", "/b"), "3 5 /*");
        assert_eq!(found(&table, "example.com", "/b"), "0 0 /*");
    }

    #[test]
    fn the_port_counts_unless_it_is_said_not_to() {
        let all = [PathMatch::Prefix("/".into())];
        let hosts: &[Host<'_>] = &[(&["a"], &all), (&["b:80"], &all)];
        let at = |host_port: HostPort, authority: &str| found(&table(hosts, host_port), authority, "/") != "no host";
        assert!(at(HostPort::Kept, "a") && !at(HostPort::Kept, "a:15001") && at(HostPort::Kept, "b:80"));
        assert!(at(HostPort::Ignored, "a:1") && !at(HostPort::Ignored, "b:80"));
        assert!(at(HostPort::IgnoredIfOwn, "a:15001") && !at(HostPort::IgnoredIfOwn, "a:1"));
    }

    fn domain() -> impl Strategy<Value = String> {
        let label = prop_oneof![Just("a"), Just("b"), Just("ab")];
        let name = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
        (name, 0..4_u8).prop_map(|(name, kind)| match kind {
            0 => format!("*{name}"),
            1 => format!("{name}*"),
            2 => "*".into(),
            _ => name,
        })
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_search_through_all_domains_finds(
            domains in prop::collection::btree_set(domain(), 1..8), host in domain(),
        ) {
            let host = host.replace('*', "c");
            let all = [PathMatch::Prefix("/".into())];
            let domains: Vec<String> = domains.into_iter().collect();
            let each: Vec<[&str; 1]> = domains.iter().map(|domain| [domain.as_str()]).collect();
            let hosts: Vec<Host<'_>> = each.iter().map(|one| (one.as_slice(), all.as_slice())).collect();
            let rank = |domain: &Domain| match domain {
                Domain::Exact(name) => (3, name.len()),
                Domain::Suffix(name) => (2, name.len()),
                Domain::Prefix(name) => (1, name.len()),
                Domain::Any => (0, 0),
            };
            let parsed = domains.iter().map(|text| Domain::parse(text).unwrap()).enumerate();
            let best = parsed.filter(|(_, domain)| domain.matches(&host)).max_by_key(|(_, domain)| rank(domain));
            let expected = best.map_or_else(|| "no host".into(), |(place, _)| format!("{place} {place} /*"));
            prop_assert_eq!(found(&table(&hosts, HostPort::Kept), &host, "/"), expected);
        }
    }
}
