//! The variables by which programs find the mesh: those an application gets, and those `hms env` prints for a shell.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::intercept::Mode;
use crate::cli::ShellKind;

/// Names and values, ordered by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// What an application is told.
#[derive(Debug, Clone)]
pub(crate) struct AppView<'a> {
    /// Its service.
    pub(crate) service: &'a str,
    /// Its version, if it has one.
    pub(crate) version: Option<&'a str>,
    /// Where it should listen.
    pub(crate) port: u16,
    /// Its proxy's outbound listener.
    pub(crate) outbound: SocketAddr,
    /// One loopback listener per other service.
    pub(crate) upstreams: &'a BTreeMap<String, SocketAddr>,
}

impl AppView<'_> {
    /// Its variables. One that is captured transparently is told nothing of the mesh. Both spellings of the proxy variables are set, because clients disagree about which they read; there is
    /// no `HTTPS_PROXY`, since calls within the mesh are plain HTTP up to the sidecar.
    pub(crate) fn variables(&self, mode: Mode) -> Variables {
        let proxy = format!("http://{}", self.outbound);
        let direct = "localhost,127.0.0.1,::1";
        let port = self.port.to_string();
        let mut variables: Variables = [
            ("PORT", port.as_str()),
            ("SERVICE_PORT", port.as_str()),
            ("HMS_SERVICE", self.service),
            ("PYTHONUNBUFFERED", "1"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        if mode == Mode::Env {
            let pairs = [("HTTP_PROXY", &*proxy), ("http_proxy", &*proxy), ("NO_PROXY", direct), ("no_proxy", direct)];
            variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        if let Some(version) = self.version {
            variables.insert("HMS_VERSION".to_owned(), version.to_owned());
        }
        let told = self.upstreams.iter().filter(|_| matches!(mode, Mode::Env | Mode::Port));
        for (service, address) in told {
            variables.insert(url_variable(service), format!("http://{address}"));
        }
        variables
    }
}

/// `calc-svc` → `CALC_SVC_URL`; `calc-svc.prod` → `CALC_SVC_PROD_URL`.
pub(crate) fn url_variable(service: &str) -> String {
    let mut name: String =
        service.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    name.push_str("_URL");
    name
}

/// Assignments a shell can evaluate. Every value is quoted, whatever it contains.
pub(crate) fn assignments(variables: &Variables, shell: ShellKind) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        let line = match shell {
            ShellKind::Posix => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            ShellKind::Fish => format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
            ShellKind::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
            ShellKind::Dotenv => format!("{name}={value}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// A `.curlrc` that trusts the gateway's authority and finds the gateway without a hosts file. Public names keep working,
/// because the bundle holds the system's roots too.
pub(crate) fn curlrc(bundle: &str, hosts: &[String], gateway: SocketAddr) -> String {
    let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
    let mut text = format!("# written by hms env; removed by hms down --purge\ncacert = \"{}\"\n", quoted(bundle));
    for host in hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "connect-to = \"{}:443:{gateway}\"", quoted(host));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_finds_its_port_its_proxy_and_its_neighbours() {
        let upstreams = [("calc-svc".to_owned(), "127.0.0.1:4001".parse().unwrap())].into();
        let view = AppView {
            service: "hello-svc",
            version: Some("v2"),
            port: 8000,
            outbound: "127.0.0.1:4000".parse().unwrap(),
            upstreams: &upstreams,
        };
        insta::assert_snapshot!(assignments(&view.variables(Mode::Env), ShellKind::Dotenv), @r"
        CALC_SVC_URL=http://127.0.0.1:4001
        HMS_SERVICE=hello-svc
        HMS_VERSION=v2
        HTTP_PROXY=http://127.0.0.1:4000
        NO_PROXY=localhost,127.0.0.1,::1
        PORT=8000
        PYTHONUNBUFFERED=1
        SERVICE_PORT=8000
        http_proxy=http://127.0.0.1:4000
        no_proxy=localhost,127.0.0.1,::1
        ");
        assert_eq!(url_variable("fee-payment.prod"), "FEE_PAYMENT_PROD_URL");
    }

    #[test]
    fn an_application_that_is_captured_is_told_its_port_alone() {
        let upstreams = [("calc-svc".to_owned(), "127.0.0.1:4001".parse().unwrap())].into();
        let outbound = "127.0.0.1:4000".parse().unwrap();
        let view = AppView { service: "hello-svc", version: None, port: 8000, outbound, upstreams: &upstreams };
        let names = |mode| view.variables(mode).into_keys().collect::<Vec<_>>().join(" ");
        for mode in [Mode::Netns, Mode::Notify, Mode::None] {
            assert_eq!(names(mode), "HMS_SERVICE PORT PYTHONUNBUFFERED SERVICE_PORT");
        }
        assert_eq!(names(Mode::Port), "CALC_SVC_URL HMS_SERVICE PORT PYTHONUNBUFFERED SERVICE_PORT");
    }

    #[test]
    fn no_value_can_leave_its_quotes() {
        let hostile: Variables = [("X".to_owned(), "a'; rm -rf \\ \"$HOME\"".to_owned())].into();
        let texts =
            [ShellKind::Posix, ShellKind::Fish, ShellKind::Powershell].map(|shell| assignments(&hostile, shell));
        insta::assert_snapshot!(texts.concat(), @r#"
        export X='a'\''; rm -rf \ "$HOME"'
        set -gx X 'a\'; rm -rf \\ "$HOME"'
        $env:X = 'a''; rm -rf \ "$HOME"'
        "#);
    }

    #[test]
    fn curl_is_told_whom_to_trust_and_where_to_connect() {
        let text = curlrc("/s/\"x\"/b.pem", &["gateway.local".to_owned()], "127.0.0.1:8443".parse().unwrap());
        insta::assert_snapshot!(text, @r#"
        # written by hms env; removed by hms down --purge
        cacert = "/s/\"x\"/b.pem"
        connect-to = "gateway.local:443:127.0.0.1:8443"
        "#);
    }
}
