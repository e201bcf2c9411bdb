//! What a proxy is told that a file leads.

use std::path::PathBuf;
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::spiffe::TrustDomain;

use super::{ControlAddress, Raw, Settings, SettingsError, service_name};

/// What it is called in metrics unless it is told otherwise.
const NAME: &str = "standalone";
/// Arguments that mean something to such a proxy.
const KNOWN: [&str; 11] = [
    "service",
    "runtime-dir",
    "admin",
    "workload-id",
    "workload-version",
    "lifeline",
    "drain",
    "workers",
    "max-connections",
    "memory-limit",
    "access-log",
];

impl Raw {
    /// The settings of a proxy that the file `snapshot` leads.
    pub(super) fn standalone(mut self, snapshot: PathBuf) -> Result<Settings, SettingsError> {
        let stranger = self.values.keys().find(|name| !KNOWN.contains(&name.as_str()));
        let stranger = stranger.map(String::as_str).or_else(|| (!self.upstreams.is_empty()).then_some("upstream"));
        if let Some(name) = stranger {
            return Err(SettingsError::Bad(format!("--{name} means nothing with --snapshot: the file says it")));
        }
        let service = service_name(&self.values.remove("service").unwrap_or_else(|| NAME.to_owned()))?;
        let role = Role::Standalone;
        let (version, _no_zone) = self.labels()?;
        Ok(Settings {
            role,
            control: ControlAddress::None,
            snapshot: Some(snapshot),
            // Nobody is believed and nothing is proven: there are no identities without a control plane.
            trust_domain: TrustDomain::new(NAME).map_err(|why| SettingsError::Bad(why.to_string()))?,
            runtime_dir: self.required("runtime-dir")?.into(),
            inbound: self.address("inbound", 0)?,
            outbound: self.address("outbound", 0)?,
            admin: self.address("admin", 0)?,
            https: self.address("https", 0)?,
            dns: None,
            resolver: self.resolver()?,
            app: None,
            health_path: None,
            health_every: Duration::from_secs(1),
            upstreams: std::collections::BTreeMap::new(),
            workload_id: self.workload_id()?,
            version,
            zone: String::new(),
            lifeline: self.values.remove("lifeline").map(PathBuf::from),
            drain: Duration::from_secs(self.number("drain", 5, 3600)?),
            workers: self.workers(role)?,
            max_connections: self.max_connections()?,
            memory_limit: self.memory_limit()?,
            capture: None,
            joined: None,
            publish: None,
            access_log: self.values.remove("access-log").map(PathBuf::from),
            service,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Settings::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn a_file_and_a_folder_are_enough() {
        let settings = parse(&["--snapshot", "/s", "--runtime-dir", "/r"]).unwrap();
        assert_eq!((settings.role, settings.app), (Role::Standalone, None));
        assert_eq!(settings.snapshot, Some(PathBuf::from("/s")));
        assert!(parse(&["--snapshot", "/s"]).unwrap_err().to_string().contains("--runtime-dir"));
    }

    #[test]
    fn what_would_mean_nothing_is_refused() {
        for more in
            [["--control", "unix:/c"], ["--role", "gateway"], ["--app", "none"], ["--upstream", "a=127.0.0.1:1"]]
        {
            let mut arguments = vec!["--snapshot", "/s", "--runtime-dir", "/r"];
            arguments.extend(more);
            let message = parse(&arguments).unwrap_err().to_string();
            assert!(message.contains(more[0]) && message.contains("--snapshot"), "{message}");
        }
    }
}
