//! What stands in a file.

use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::names::ServiceName;
use http::{HeaderName, HeaderValue, Method};

/// One file.
pub(crate) struct Case {
    pub(crate) name: String,
    /// All of it: comments mean nothing to who reads the objects.
    pub(crate) text: String,
    pub(crate) services: Vec<ServiceName>,
    pub(crate) findings: Vec<u16>,
    pub(crate) expectations: Vec<Expectation>,
}

/// One line that begins with `#>`.
pub(crate) struct Expectation {
    pub(crate) line: String,
    pub(crate) ask: Ask,
    pub(crate) outcome: String,
}

/// What is asked.
pub(crate) enum Ask {
    /// A request, by a service or, without one, from outside.
    Request(Box<RequestHead>, Option<ServiceName>),
    /// A connection that nobody reads.
    Connection(ServiceName),
}

impl Case {
    pub(crate) fn read(name: &str, text: &str) -> Self {
        let mut case = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            services: Vec::new(),
            findings: Vec::new(),
            expectations: Vec::new(),
        };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("#! services: ") {
                case.services.extend(rest.split_whitespace().map(service));
            } else if let Some(rest) = line.strip_prefix("#! findings: ") {
                case.findings.extend(rest.split_whitespace().map(|code| code.parse::<u16>().expect("a code")));
            } else if let Some(rest) = line.strip_prefix("#> ") {
                let (asked, outcome) = rest.split_once(" => ").expect("ASK => OUTCOME");
                let (ask, outcome) = (ask(asked), outcome.trim().to_owned());
                case.expectations.push(Expectation { line: rest.to_owned(), ask, outcome });
            } else {
                assert!(!line.starts_with("#!") && !line.starts_with("#>"), "{name}: {line}");
            }
        }
        case.findings.sort_unstable();
        case
    }
}

/// `NAME` or `NAME.NAMESPACE`.
pub(crate) fn service(text: &str) -> ServiceName {
    ServiceName::from_host(text, "default").expect("the name of a service")
}

fn ask(text: &str) -> Ask {
    let mut words = text.split_whitespace().peekable();
    let mut caller = Some(service("client"));
    match words.peek().copied() {
        Some("connect") => return Ask::Connection(service(words.nth(1).expect("a service"))),
        Some("outside") => {
            caller = None;
            words.next();
        }
        Some("from") => {
            words.next();
            caller = words.next().map(service);
        }
        _ => {}
    }
    let method = Method::from_bytes(words.next().expect("a method").as_bytes()).expect("a method");
    let target = words.next().expect("a host and a path");
    let (host, rest) = target.split_at(target.find('/').expect("a path"));
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query.into())));
    let mut fields = Fields::new();
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        fields.append(HeaderName::try_from(name).expect("a name"), HeaderValue::from_str(value).expect("a value"));
    }
    let authority = Authority::parse(host).expect("an authority");
    let path = CanonicalPath::parse(path).expect("a path");
    Ask::Request(Box::new(RequestHead { method, authority, path, query, fields }), caller)
}
