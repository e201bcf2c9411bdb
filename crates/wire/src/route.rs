//! Routes.

use hms_model::names::ServiceName;
use hms_model::policy::{LimitKey, RateLimit};
use hms_model::route::{Match, Route, Rule};

use http::HeaderName;

use crate::bounds::{ORIGIN_BYTES, each, required, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

const RULES: usize = 4096;
/// No request target longer than this reaches routing.
const MATCH_BYTES: usize = 16 * 1024;

impl Wire for Route {
    type Message = v1::Route;

    fn to_wire(&self) -> v1::Route {
        let Self { service, rules } = self;
        v1::Route { service: Some(service.to_wire()), rules: rules.iter().map(Wire::to_wire).collect() }
    }

    fn from_wire(message: v1::Route) -> Result<Self, WireError> {
        let v1::Route { service, rules } = message;
        Ok(Self {
            service: ServiceName::from_wire(required(service, "route.service")?)?,
            rules: each(rules, "route.rules", RULES, Rule::from_wire)?,
        })
    }
}

impl Wire for Rule {
    type Message = v1::Rule;

    fn to_wire(&self) -> v1::Rule {
        let Self { matches, rate_limit, origin } = self;
        v1::Rule {
            matches: matches.to_wire(),
            rate_limit: rate_limit.as_ref().map(Wire::to_wire),
            origin: origin.clone(),
        }
    }

    fn from_wire(message: v1::Rule) -> Result<Self, WireError> {
        let v1::Rule { matches, rate_limit, origin } = message;
        Ok(Self {
            matches: Match::from_wire(matches)?,
            rate_limit: rate_limit.map(RateLimit::from_wire).transpose()?,
            origin: text(origin, "rule.origin", 0..=ORIGIN_BYTES)?,
        })
    }
}

impl Wire for Match {
    type Message = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(message: String) -> Result<Self, WireError> {
        let message = text(message, "matches", 1..=MATCH_BYTES)?;
        Self::parse(&message).map_err(|error| WireError::field("matches", &error))
    }
}

impl Wire for RateLimit {
    type Message = v1::RateLimit;

    fn to_wire(&self) -> v1::RateLimit {
        let (identity, header) = match self.key() {
            LimitKey::Route => (false, String::new()),
            LimitKey::Identity => (true, String::new()),
            LimitKey::Header(name) => (false, name.to_string()),
        };
        v1::RateLimit {
            count: self.count(),
            period_us: crate::bounds::micros(self.period()),
            burst: self.burst(),
            cost: self.cost(),
            by_identity: identity,
            by_header: header,
        }
    }

    fn from_wire(message: v1::RateLimit) -> Result<Self, WireError> {
        let v1::RateLimit { count, period_us, burst, cost, by_identity, by_header } = message;
        let period = crate::bounds::duration(period_us, "rate_limit.period")?;
        let limit = Self::new(count, period, Some(burst)).and_then(|limit| limit.costing(cost.max(1)));
        let limit = limit.map_err(|error| WireError::field("rate_limit", &error))?;
        let header =
            |name| HeaderName::try_from(name).map_err(|error| WireError::field("rate_limit.by_header", &error));
        Ok(limit.each(match (by_identity, by_header) {
            (true, _) => LimitKey::Identity,
            (false, name) if name.is_empty() => LimitKey::Route,
            (false, name) => LimitKey::Header(header(name)?),
        }))
    }
}
