//! What a rule does with its requests.

use std::time::Duration;

use hms_model::http_route::{
    Cors, Fault, HeaderEdits, MOST_CODE, Mirror, PathRewrite, Portion, Redirect, Rewrite, Scheme,
};
use hms_model::split::{MOST_WEIGHT, Share};
use http::{HeaderName, HeaderValue, Method};

use super::{HOST_BYTES, port_of};
use crate::bounds::{each, micros, number, pause, required, text};
use crate::proto::hms::v1::{self, header_edits, path_rewrite};
use crate::{Wire, WireError};

/// Fields that one edit may name, and origins, methods and fields of CORS.
const NAMES: usize = 64;
const PATH_BYTES: usize = 16 * 1024;

impl Wire for HeaderEdits {
    type Message = v1::HeaderEdits;

    fn to_wire(&self) -> v1::HeaderEdits {
        let Self { set, add, remove } = self;
        let field = |(name, value): &(HeaderName, HeaderValue)| header_edits::Field {
            name: name.to_string(),
            value: value.as_bytes().to_vec().into(),
        };
        v1::HeaderEdits {
            set: set.iter().map(field).collect(),
            add: add.iter().map(field).collect(),
            remove: remove.iter().map(ToString::to_string).collect(),
        }
    }

    fn from_wire(message: v1::HeaderEdits) -> Result<Self, WireError> {
        let v1::HeaderEdits { set, add, remove } = message;
        let field = |field: header_edits::Field| {
            let value = HeaderValue::from_bytes(&field.value).map_err(|error| WireError::field("header.value", &error));
            Ok((header_name(field.name)?, value?))
        };
        Ok(Self {
            set: each(set, "header_edits.set", NAMES, field)?,
            add: each(add, "header_edits.add", NAMES, field)?,
            remove: each(remove, "header_edits.remove", NAMES, header_name)?,
        })
    }
}

fn header_name(name: String) -> Result<HeaderName, WireError> {
    HeaderName::try_from(name).map_err(|error| WireError::field("header.name", &error))
}

impl Wire for PathRewrite {
    type Message = v1::PathRewrite;

    fn to_wire(&self) -> v1::PathRewrite {
        v1::PathRewrite {
            kind: Some(match self {
                Self::Full(path) => path_rewrite::Kind::Full(path.clone()),
                Self::Prefix(path) => path_rewrite::Kind::Prefix(path.clone()),
            }),
        }
    }

    fn from_wire(message: v1::PathRewrite) -> Result<Self, WireError> {
        let checked = |path: String| text(path, "path_rewrite", 0..=PATH_BYTES);
        Ok(match required(message.kind, "path_rewrite.kind")? {
            path_rewrite::Kind::Full(path) => Self::Full(checked(path)?),
            path_rewrite::Kind::Prefix(path) => Self::Prefix(checked(path)?),
        })
    }
}

/// A host name; empty for none.
fn host(name: String) -> Result<Option<String>, WireError> {
    Ok(Some(text(name, "host", 0..=HOST_BYTES)?).filter(|name| !name.is_empty()))
}

impl Wire for Redirect {
    type Message = v1::Redirect;

    fn to_wire(&self) -> v1::Redirect {
        let Self { scheme, host, port, path, status } = self;
        v1::Redirect {
            scheme: scheme.map(|scheme| scheme.as_str().to_owned()).unwrap_or_default(),
            host: host.clone().unwrap_or_default(),
            port: u32::from(port.unwrap_or_default()),
            path: path.as_ref().map(Wire::to_wire),
            status: u32::from(*status),
        }
    }

    fn from_wire(message: v1::Redirect) -> Result<Self, WireError> {
        let v1::Redirect { scheme, host: name, port, path, status } = message;
        let scheme = match scheme.as_str() {
            "" => None,
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            _ => return Err(WireError::field("redirect.scheme", &"neither http nor https")),
        };
        Ok(Self {
            scheme,
            host: host(name)?,
            port: port_of(port)?,
            path: path.map(PathRewrite::from_wire).transpose()?,
            status: number(status, "redirect.status", 300..=399)?,
        })
    }
}

impl Wire for Rewrite {
    type Message = v1::Rewrite;

    fn to_wire(&self) -> v1::Rewrite {
        let Self { host, path } = self;
        v1::Rewrite { host: host.clone().unwrap_or_default(), path: path.as_ref().map(Wire::to_wire) }
    }

    fn from_wire(message: v1::Rewrite) -> Result<Self, WireError> {
        let v1::Rewrite { host: name, path } = message;
        Ok(Self { host: host(name)?, path: path.map(PathRewrite::from_wire).transpose()? })
    }
}

impl Wire for Mirror {
    type Message = v1::Mirror;

    fn to_wire(&self) -> v1::Mirror {
        let Self { share, port, portion } = self;
        v1::Mirror {
            share: Some(share.to_wire()),
            port: u32::from(port.unwrap_or_default()),
            millionths: portion.get(),
        }
    }

    fn from_wire(message: v1::Mirror) -> Result<Self, WireError> {
        let v1::Mirror { share, port, millionths } = message;
        Ok(Self {
            share: Share::from_wire(required(share, "mirror.share")?)?,
            port: port_of(port)?,
            portion: portion(millionths)?,
        })
    }
}

fn portion(millionths: u32) -> Result<Portion, WireError> {
    Ok(Portion::millionths(number(millionths, "millionths", 0..=MOST_WEIGHT)?))
}

impl Wire for Fault {
    type Message = v1::Fault;

    fn to_wire(&self) -> v1::Fault {
        let Self { delay, abort, trigger } = self;
        let (delay_us, delay_millionths) = delay.map_or((0, 0), |(time, part)| (micros(time), part.get()));
        let (abort_status, abort_millionths) = abort.map_or((0, 0), |(status, part)| (u32::from(status), part.get()));
        let trigger = trigger.as_ref().map(ToString::to_string).unwrap_or_default();
        v1::Fault { delay_us, delay_millionths, abort_status, abort_millionths, trigger }
    }

    fn from_wire(message: v1::Fault) -> Result<Self, WireError> {
        let v1::Fault { delay_us, delay_millionths, abort_status, abort_millionths, trigger } = message;
        let delay = pause(delay_us, "fault.delay")?;
        let abort = match abort_status {
            0 => None,
            status => {
                Some((number(status, "fault.abort_status", 200..=u32::from(MOST_CODE))?, portion(abort_millionths)?))
            }
        };
        Ok(Self {
            delay: if delay.is_zero() { None } else { Some((delay, portion(delay_millionths)?)) },
            abort,
            trigger: if trigger.is_empty() { None } else { Some(header_name(trigger)?) },
        })
    }
}

impl Wire for Cors {
    type Message = v1::Cors;

    fn to_wire(&self) -> v1::Cors {
        let Self { origins, credentials, methods, headers, expose, max_age } = self;
        let names = |names: Vec<String>| v1::cors::Names { names };
        v1::Cors {
            origins: origins.clone(),
            credentials: *credentials,
            methods: methods.as_ref().map(|own| names(own.iter().map(ToString::to_string).collect())),
            headers: headers.as_ref().map(|own| names(own.iter().map(ToString::to_string).collect())),
            expose: expose.iter().map(ToString::to_string).collect(),
            max_age_s: u32::try_from(max_age.as_secs()).unwrap_or(u32::MAX),
        }
    }

    fn from_wire(message: v1::Cors) -> Result<Self, WireError> {
        let v1::Cors { origins, credentials, methods, headers, expose, max_age_s } = message;
        let method = |name: String| {
            Method::from_bytes(name.as_bytes()).map_err(|error| WireError::field("cors.methods", &error))
        };
        Ok(Self {
            origins: each(origins, "cors.origins", NAMES, |origin| text(origin, "cors.origins", 1..=HOST_BYTES))?,
            credentials,
            methods: methods.map(|own| each(own.names, "cors.methods", NAMES, method)).transpose()?,
            headers: headers.map(|own| each(own.names, "cors.headers", NAMES, header_name)).transpose()?,
            expose: each(expose, "cors.expose", NAMES, header_name)?,
            max_age: Duration::from_secs(u64::from(max_age_s)),
        })
    }
}
