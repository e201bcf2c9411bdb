//! What may leave the mesh.

use std::collections::BTreeMap;

use hms_model::names::Label;
use hms_model::policy::Egress;
use hms_model::policy::egress::{EgressHost, MOST_HOSTS, MOST_PORTS, Origination, Through, Unlisted};
use hms_model::resource::Overlay;

use crate::bounds::{each, host_or_address, number, required, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

/// Longest path of a file.
const PATH_BYTES: usize = 4096;

impl Wire for Egress {
    type Message = v1::Egress;

    fn to_wire(&self) -> v1::Egress {
        let Self { unlisted, through, hosts } = self;
        let unlisted = match unlisted {
            None => v1::Unlisted::Unsaid,
            Some(Unlisted::Allowed) => v1::Unlisted::Allowed,
            Some(Unlisted::Refused) => v1::Unlisted::Refused,
            Some(Unlisted::AllRefused) => v1::Unlisted::AllRefused,
        };
        let hosts = hosts.iter().map(|(label, own)| {
            let EgressHost { host, ports, local, tls, overlay } = own;
            v1::EgressHost {
                label: label.to_string(),
                host: host.clone(),
                ports: ports.iter().map(|port| u32::from(*port)).collect(),
                local: *local,
                tls: tls.as_ref().map(Wire::to_wire),
                overlay: Some(overlay.to_wire()),
            }
        });
        v1::Egress { unlisted: unlisted.into(), hosts: hosts.collect(), through_gateway: *through == Through::Gateway }
    }

    fn from_wire(message: v1::Egress) -> Result<Self, WireError> {
        let v1::Egress { unlisted, hosts, through_gateway } = message;
        let unlisted = match v1::Unlisted::try_from(unlisted) {
            Ok(v1::Unlisted::Unsaid) => None,
            Ok(v1::Unlisted::Allowed) => Some(Unlisted::Allowed),
            Ok(v1::Unlisted::Refused) => Some(Unlisted::Refused),
            Ok(v1::Unlisted::AllRefused) => Some(Unlisted::AllRefused),
            Err(_unknown) => return Err(WireError::field("egress.unlisted", &unlisted)),
        };
        let hosts = each(hosts, "egress.hosts", MOST_HOSTS, listed)?;
        let count = hosts.len();
        let hosts: BTreeMap<Label, EgressHost> = hosts.into_iter().collect();
        if hosts.len() != count {
            return Err(WireError::field("egress.hosts", &"a label twice"));
        }
        let through = if through_gateway { Through::Gateway } else { Through::Sidecar };
        Ok(Self { unlisted, through, hosts })
    }
}

fn listed(message: v1::EgressHost) -> Result<(Label, EgressHost), WireError> {
    let v1::EgressHost { label, host: name, ports, local, tls, overlay } = message;
    let label = Label::new(&label).map_err(|error| WireError::field("egress.label", &error))?;
    let name = host_or_address(name, "egress.host")?.to_ascii_lowercase();
    let ports = each(ports, "egress.ports", MOST_PORTS, |port| number(port, "egress.ports", 1..=65535))?;
    if ports.is_empty() {
        return Err(WireError::Missing("egress.ports"));
    }
    let overlay = Overlay::from_wire(required(overlay, "egress.overlay")?)?;
    Ok((label, EgressHost { host: name, ports, local, tls: tls.map(Origination::from_wire).transpose()?, overlay }))
}

impl Wire for Origination {
    type Message = v1::Origination;

    fn to_wire(&self) -> v1::Origination {
        let Self { ca, client_certificate } = self;
        v1::Origination { ca: ca.clone(), client_certificate: *client_certificate }
    }

    fn from_wire(message: v1::Origination) -> Result<Self, WireError> {
        let v1::Origination { ca, client_certificate } = message;
        Ok(Self { ca: text(ca, "egress.ca", 0..=PATH_BYTES)?, client_certificate })
    }
}
