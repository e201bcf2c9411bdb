//! Every code of this release: what it means, why it happens, what mends it. `hms explain` and the documentation are made
//! from this one table.

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number.
    pub(crate) code: u16,
    /// What it means, in one sentence without a full stop.
    pub(crate) what: &'static str,
    /// The usual cause.
    pub(crate) why: &'static str,
    /// A command or an edit.
    pub(crate) fix: &'static str,
}

impl Entry {
    const fn new(code: u16, what: &'static str, why: &'static str, fix: &'static str) -> Self {
        Self { code, what, why, fix }
    }

    /// `HMS-1101`.
    pub(crate) fn name(&self) -> String {
        hms_model::finding::Code(self.code).to_string()
    }
}

/// The table, in ascending order. The first digit names the area: 1 laptop and command line, 2 configuration and REST, 3
/// traffic, 4 identity.
#[rustfmt::skip]
pub(crate) const CODES: &[Entry] = &[
    Entry::new(1001, "the control plane cannot be reached", "nothing serves this project, or it stopped",
        "hms up -d"),
    Entry::new(1002, "config.yaml is not usable", "a key or value in $XDG_CONFIG_HOME/hms/config.yaml or /etc/hms/config.yaml is wrong",
        "known keys: output, color, server, namespace, timeout"),
    Entry::new(1003, "the deadline passed", "something did not answer or become healthy in the time allowed",
        "hms check, or a longer --timeout or --wait"),
    Entry::new(1004, "there is no service of this name", "it was never registered, or is spelled differently",
        "hms services"),
    Entry::new(1005, "a file or folder cannot be read", "it is missing, too large, no ordinary file, or belongs to somebody else",
        "check the path and its permissions"),
    Entry::new(1006, "a question has nobody to answer it", "the command needs a confirmation or a value, and stdin is no terminal",
        "add -y, or give the value"),
    Entry::new(1007, "hms-proxy is not installed", "it is neither beside hms nor on PATH",
        "cargo build -p hms-proxy, or install it beside hms"),
    Entry::new(1008, "an answer of the control plane is not understood", "the releases differ, or something else answers at this address",
        "hms version"),
    Entry::new(1009, "a private folder is not usable", "it belongs to another user, is a link, others may enter it, or its path is too long for a socket",
        "remove it, or set XDG_RUNTIME_DIR and XDG_STATE_HOME"),
    Entry::new(1010, "there is nothing to start or check", "no mesh.yaml, no route.yaml one level below, or two files for one service",
        "write a route.yaml beside the program"),
    Entry::new(1012, "this server is not talked to", "only http to this machine is spoken, so that the token never crosses a network in the clear",
        "--server http://127.0.0.1:15014"),
    Entry::new(1013, "the process cannot be set up", "the system refused a runtime or a signal handler",
        "check ulimit -n and -u"),
    Entry::new(1014, "the background half did not start", "see its log in the project's state",
        "hms up, without -d, shows everything"),
    Entry::new(1015, "the start was interrupted", "Ctrl-C, a signal or hms down came before everything was ready; nothing was left running",
        "hms up"),
    Entry::new(1016, "the gateway does not run here", "no living supervisor of this project has one",
        "hms up -d"),
    Entry::new(1017, "this is no service name", "a name consists of a-z, 0-9 and -, at most 63 characters",
        "hms services"),
    Entry::new(1018, "this name of the program has no such command", "hms-api knows register; envoyctl knows certificates rotate and enforce mtls",
        "hms -h"),
    Entry::new(1019, "a filter is not understood", "a status reads 404 or 5xx; a trace id has at least 6 hex digits",
        "hms tap -h"),
    Entry::new(1020, "this is no code", "codes read HMS- and four digits",
        "hms explain"),
    Entry::new(1021, "there is no such command", "a typing mistake",
        "hms -h"),
    Entry::new(1022, "this mode is not available", "between two proxies only strict mutual TLS exists in this release",
        "hms enforce mtls --mode STRICT"),
    Entry::new(1101, "a port is in use", "another process listens on it; the error names it",
        "hms up --https PORT, or stop that process"),
    Entry::new(1102, "a control plane already serves this project", "a project has one",
        "hms down"),
    Entry::new(1103, "a program cannot be started", "it is not on PATH, not executable, or its folder is gone",
        "run the command by hand in its folder"),
    Entry::new(1104, "a program ended, or does not listen where it should", "it failed, or ignores $PORT; the error shows where it listens and its last lines",
        "pass --port $PORT to it, or set port: in mesh.yaml"),
    Entry::new(1105, "a proxy did not start", "see the service's log",
        "tail the log the error names"),
    Entry::new(1106, "the control plane did not start", "its folder, port or store is not usable; the error says which",
        "hms control shows it in the foreground"),
    Entry::new(1107, "no supervisor runs this service", "it was started by hand, by another project, or not at all",
        "hms up SVC, or hms run SVC -- CMD"),
    Entry::new(1301, "a file of the control plane is not usable", "wrong owner or mode, a full disk, or a damaged file",
        "check the path in the message"),
    Entry::new(1302, "the control plane cannot listen", "its address is taken or not ours",
        "hms control --rest 127.0.0.1:0 --grpc 127.0.0.1:0"),
    Entry::new(1303, "the REST API would be reachable from elsewhere", "it listens on loopback only",
        "--rest 127.0.0.1:15014"),
    Entry::new(1201, "programs cannot be captured in namespaces here", "user namespaces or nf_tables are forbidden to this user; the error names the step",
        "the command that hms status -o wide shows, or --intercept notify: captured, but no boundary"),
    Entry::new(1206, "the service's namespaces cannot be entered", "its program does not run, or is another user's",
        "hms status, then hms start SVC"),
    Entry::new(1207, "a program dialled a loopback port that only the laptop serves", "a captured program has a loopback of its own",
        "host_ports: [PORT] for its service in mesh.yaml"),
    Entry::new(2100, "files have mistakes; nothing was changed", "every mistake is listed with its place",
        "hms lint"),
    Entry::new(2101, "this is no readable YAML or JSON", "syntax, encoding, or a feature that is not read (tags, several documents)",
        "correct the place the caret shows"),
    Entry::new(2102, "something is missing", "the file is empty, or a required key is not there",
        "add it"),
    Entry::new(2103, "unknown key or wrong shape", "a typing mistake, or a key of another tool",
        "use the suggested key"),
    Entry::new(2104, "wrong type", "text where a number is wanted, or the other way round; yes and on are no truth values",
        "write the type the message names"),
    Entry::new(2105, "a value is not usable", "out of bounds, or no reference to anything that exists",
        "the message names what is accepted"),
    Entry::new(2106, "this is no route", "a route reads METHOD /path",
        "GET /sum/{a}/{b}"),
    Entry::new(2107, "this has no effect", "the setting is understood, but nothing uses it",
        "remove it, or complete what it needs"),
    Entry::new(2108, "this is no rate", "a rate reads N req/(s, min or h)",
        "20 req/min"),
    Entry::new(2109, "this is no duration or size", "a unit is missing or unknown",
        "15s, 500ms, 5m"),
    Entry::new(2110, "given twice", "two files or two lines say the same thing",
        "keep one of them"),
    Entry::new(2111, "this is no name", "names consist of a-z, 0-9 and -",
        "use a name of that shape"),
    Entry::new(2112, "too large or too many", "a limit protects the mesh from runaway files",
        "split the file, or remove entries"),
    Entry::new(2113, "a variable is not set", "${NAME} stands in a file, and NAME is not in the environment",
        "set it, or write ${NAME:-instead}"),
    Entry::new(2120, "not available in this release", "the file asks for something a later release has",
        "remove it"),
    Entry::new(2201, "the body is no JSON", "a client sent something else",
        "send JSON"),
    Entry::new(2202, "the body has another shape", "a field is unknown, missing or of the wrong type",
        "see GET /v1/openapi.json"),
    Entry::new(2203, "a part of the request is malformed", "a path segment, parameter or header",
        "see GET /v1/openapi.json"),
    Entry::new(2204, "nothing is served here", "the path does not exist",
        "see GET /v1/openapi.json"),
    Entry::new(2205, "this method is not served here", "the Allow header names those that are",
        "use one of them"),
    Entry::new(2206, "the body is not application/json", "the content type is missing or another one",
        "content-type: application/json"),
    Entry::new(2207, "the body is too large", "the API takes at most what the error names",
        "send less at once"),
    Entry::new(2208, "the body did not arrive in time", "a slow or stalled client",
        "send it again"),
    Entry::new(2209, "there is no such thing", "it was removed, or is spelled differently",
        "hms services"),
    Entry::new(2210, "somebody else changed it meanwhile", "two writers at the same time",
        "read it again and repeat"),
    Entry::new(2211, "the configuration has another revision", "If-Match names an old one",
        "read it again and repeat"),
    Entry::new(2212, "the input is refused", "every mistake is listed",
        "correct them; nothing was changed"),
    Entry::new(2213, "too many at the same time", "streams and long requests are bounded",
        "close some, or wait"),
    Entry::new(2214, "not at this moment", "the control plane starts, stops or cannot write its store",
        "try again"),
    Entry::new(2215, "the control plane failed", "an error inside it; its log says more",
        "hms check, and report it"),
    Entry::new(2301, "the store is damaged", "the file was changed or the disk failed",
        "restore it, or remove it and start anew"),
    Entry::new(2302, "the store is in use", "another control plane has the file open",
        "hms down"),
    Entry::new(2303, "the store has another format", "it was written by another release",
        "use that release"),
    Entry::new(2304, "the store cannot be written", "a full disk or missing rights",
        "check the disk"),
    Entry::new(2305, "the store belongs elsewhere", "it was made for another trust domain than the certificate authority's",
        "hms down --purge starts anew"),
    Entry::new(2310, "many endpoints vanished at once", "more than a fifth of them, so they are kept for a minute to see",
        "check the network of the proxies"),
    Entry::new(2311, "an endpoint is refused", "its address, port or id is not acceptable",
        "the message names the reason"),
    Entry::new(2312, "there are too many endpoints", "a service and a mesh are bounded",
        "remove some"),
    Entry::new(2313, "this endpoint belongs to another source", "only the one who registered it changes it",
        "remove it there"),
    Entry::new(2320, "too much changes at once", "one change is bounded, so that it stays one transaction",
        "split the change"),
    Entry::new(2321, "the mesh is full", "more services than a mesh may have",
        "remove services"),
    Entry::new(2322, "this cannot be configured", "a kind of object that the control plane makes itself",
        "configure what it is made from"),
    Entry::new(2323, "an entry is too large or out of bounds", "the message names the field",
        "make it smaller"),
    Entry::new(2324, "a stored entry is left out", "it is not readable in this release",
        "register it again"),
    Entry::new(2325, "there is no virtual address left", "more names had one than the range holds; a name keeps its address for ever",
        "begin with a new store"),
    Entry::new(3001, "503: the breaker is open", "the service failed several times in a row; calls are refused until a probe succeeds",
        "hms breaker show SVC"),
    Entry::new(3002, "503: there is no usable endpoint", "none is registered, healthy and not ejected",
        "hms check --only services"),
    Entry::new(3003, "503: no connection to any endpoint", "the proxy of the service does not answer",
        "hms status"),
    Entry::new(3004, "429: the rate limit is reached", "the bucket of this route is empty; Retry-After says when the next token comes",
        "raise rate_limit, or call less often"),
    Entry::new(3005, "502: the connection broke off", "the other side closed it in the middle of an answer",
        "see the program's log"),
    Entry::new(3006, "504: no answer in time", "the request timeout passed",
        "see the program's log, or raise timeout"),
    Entry::new(3007, "503: too many requests at once", "a limit protects the service",
        "call less at once, or raise limits"),
    Entry::new(3008, "503: the program is down", "its proxy runs, the program does not accept connections",
        "hms restart SVC"),
    Entry::new(3009, "503: no configuration yet", "the proxy started without control plane and has no last-good file",
        "hms up -d"),
    Entry::new(3010, "503: the proxy has no memory left", "95 % of its memory limit is used; nothing was sent to the service",
        "raise the limit of its control group or --memory-limit, or call less at once"),
    Entry::new(3101, "401: no token", "the gateway wants Authorization: Bearer",
        "eval \"$(hms env)\""),
    Entry::new(3102, "401: the token is malformed", "it is no JSON Web Token",
        "hms jwt inspect"),
    Entry::new(3103, "401: the token has expired", "its exp lies in the past",
        "eval \"$(hms env)\""),
    Entry::new(3104, "401: the token is not valid yet", "its nbf lies in the future, or a clock is wrong",
        "hms jwt inspect"),
    Entry::new(3105, "401: the token's key is unknown", "its kid is not among the issuer's keys",
        "hms jwt inspect"),
    Entry::new(3106, "401: the signature is wrong", "the token was changed, or signed by another key",
        "hms jwt inspect"),
    Entry::new(3107, "401: the issuer is unknown", "its iss is not one the gateway trusts",
        "hms jwt inspect"),
    Entry::new(3108, "401: the audience is wrong", "its aud names somebody else",
        "hms jwt issue --aud hms"),
    Entry::new(3109, "401: the algorithm is refused", "only RS256, ES256 and EdDSA are taken",
        "use one of them"),
    Entry::new(3201, "403: denied", "no allow rule of the service matches this caller",
        "see allow: in mesh.yaml"),
    Entry::new(3301, "400: the request is malformed", "it breaks HTTP's rules; the connection closes",
        "correct the client"),
    Entry::new(3302, "405: CONNECT is refused", "the mesh forwards requests, it is no tunnel",
        "call the service by its name"),
    Entry::new(3303, "431: the head is too large", "headers beyond the limit",
        "send fewer or smaller headers"),
    Entry::new(3304, "408: the request's body broke off", "the caller stopped sending before the end, or sent nothing for half a minute",
        "send the body whole, and without long pauses"),
    Entry::new(3305, "408: the request's head came too late", "the caller took more than 10 s from the head's first byte to its last",
        "send the head at once"),
    Entry::new(3306, "414: the request target is too long", "more than 8 KiB at a gateway, 16 KiB within the mesh",
        "move what is long into the body"),
    Entry::new(3307, "417: the expectation is unknown", "Expect says something else than 100-continue",
        "leave Expect out"),
    Entry::new(3308, "505: the version of HTTP is not spoken here", "the request line names neither HTTP/1.0 nor HTTP/1.1",
        "speak HTTP/1.1 or HTTP/2"),
    Entry::new(3401, "404: no route", "no service has a route for this path",
        "hms services -o json"),
    Entry::new(3402, "405: the method is not allowed", "the path has routes for other methods; Allow names them",
        "use one of them"),
    Entry::new(3403, "404: no such service", "the name is not registered",
        "hms services"),
    Entry::new(3404, "421: unknown host", "the gateway does not answer for this name",
        "add it under gateway: hosts:"),
    Entry::new(4103, "this identity may not serve the service", "a service owns the identities that may serve it",
        "register it under its own name"),
    Entry::new(4104, "this identity is of another mesh", "its trust domain is not ours",
        "use the mesh's own certificates"),
    Entry::new(4105, "this bundle is of another mesh", "its trust domain is not ours",
        "use the mesh's own bundle"),
    Entry::new(4106, "this endpoint has an identity already", "a registration without a proxy may not replace one with a proxy",
        "remove the sidecar first"),
    Entry::new(4201, "401: no valid token", "the REST API wants the token of STATE/control/admin.token",
        "run hms in the project, as the user who started it"),
    Entry::new(4202, "403: meant for another host", "the Host header names something that is not loopback",
        "call 127.0.0.1"),
    Entry::new(4203, "403: from a foreign page", "the Origin header names a web page elsewhere",
        "use the command line"),
    Entry::new(4204, "no identity can be given", "the process is gone, belongs to another user, or the service is unknown",
        "start it with hms run"),
    Entry::new(4210, "the caller is not known", "it is not attested, has no certificate and no join token",
        "hms run NAME -- CMD"),
    Entry::new(4211, "the join token is refused", "used, expired or unknown",
        "create a new one"),
    Entry::new(4212, "the join token cannot be checked", "the store is not available",
        "try again"),
    Entry::new(4213, "the certificate request is refused", "its form, size or key is not acceptable",
        "use an up-to-date proxy"),
    Entry::new(4214, "this certificate is not given to this caller", "only a gateway shows one to the outside",
        "start it as a gateway"),
    Entry::new(4215, "a certificate cannot be signed", "an error inside the authority",
        "see the control plane's log"),
    Entry::new(4216, "the role is not this caller's", "its identity is that of another role",
        "start it with its own role"),
    Entry::new(4217, "the control plane has no certificate", "its authority is not usable",
        "check STATE/control/ca"),
    Entry::new(4301, "certificates were not rotated", "a proxy did not answer or could not renew; the old ones stay in use",
        "hms check --only certificates"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_none_is_empty() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(CODES.iter().all(|entry| !entry.what.is_empty() && !entry.why.is_empty() && !entry.fix.is_empty()));
    }

    #[test]
    fn every_code_this_crate_uses_is_explained() {
        let mut missing = Vec::new();
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for (start, _) in text.match_indices("Failure::new(Exit::") {
                    let call: String = text[start..].chars().take(80).collect();
                    let numbers = call.split([',', '(', ')']).filter_map(|word| word.trim().parse::<u16>().ok());
                    let code = numbers.into_iter().find(|number| *number >= 1000);
                    if let Some(code) = code.filter(|code| !CODES.iter().any(|entry| entry.code == *code)) {
                        missing.push((code, path.clone()));
                    }
                }
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}
