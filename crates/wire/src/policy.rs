//! Policies, each in both directions.

use hms_model::names::ServiceName;
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::policy::retry::{RetryOn, Toggle};
use hms_model::policy::{
    AuthorizationPolicy, Balance, KeepAlive, Limits, Outlier, Probe, Retry, Telemetry, Timeouts, TrafficPolicy,
};
use hms_model::resource::{Defaults, Overlay};
use hms_model::route::Match;
use http::Method;

use crate::bounds::{ORIGIN_BYTES, duration, each, micros, number, pause, required, text};
use crate::proto::hms::v1::{self, allow_rule};
use crate::{Wire, WireError};

const ALLOW_RULES: usize = 1024;
const MATCHES_PER_RULE: usize = 256;
const METHODS: usize = 32;
/// Statuses of one policy: as many as there are.
const STATUSES: usize = 100;
const METHOD_BYTES: usize = 32;
/// Far beyond any real limit or threshold, and small enough to be multiplied without care.
const MANY: u32 = 1_000_000;

impl Wire for Defaults {
    type Message = v1::Defaults;

    fn to_wire(&self) -> v1::Defaults {
        let Self { policy, telemetry } = self;
        v1::Defaults { policy: Some(policy.to_wire()), telemetry: Some(telemetry.to_wire()) }
    }

    fn from_wire(message: v1::Defaults) -> Result<Self, WireError> {
        let v1::Defaults { policy, telemetry } = message;
        Ok(Self {
            policy: TrafficPolicy::from_wire(required(policy, "defaults.policy")?)?,
            telemetry: Telemetry::from_wire(required(telemetry, "defaults.telemetry")?)?,
        })
    }
}

impl Wire for Telemetry {
    type Message = v1::Telemetry;

    fn to_wire(&self) -> v1::Telemetry {
        let Self { sample_per_million, in_json_body } = self;
        v1::Telemetry { sample_per_million: *sample_per_million, in_json_body: *in_json_body }
    }

    fn from_wire(message: v1::Telemetry) -> Result<Self, WireError> {
        let v1::Telemetry { sample_per_million, in_json_body } = message;
        Ok(Self {
            sample_per_million: number(sample_per_million, "telemetry.sample_per_million", 0..=1_000_000)?,
            in_json_body,
        })
    }
}

impl Wire for TrafficPolicy {
    type Message = v1::TrafficPolicy;

    fn to_wire(&self) -> v1::TrafficPolicy {
        let Self { retry, timeouts, outlier, balance, limits, keep_alive, probe } = self;
        let (balance, balancing) = balance.to_wire();
        v1::TrafficPolicy {
            retry: Some(retry.to_wire()),
            timeouts: Some(timeouts.to_wire()),
            outlier: Some(outlier.to_wire()),
            balance,
            limits: Some(limits.to_wire()),
            keep_alive: keep_alive.to_wire(),
            balancing,
            probe: probe.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: v1::TrafficPolicy) -> Result<Self, WireError> {
        let v1::TrafficPolicy { retry, timeouts, outlier, balance, limits, keep_alive, balancing, probe } = message;
        Ok(Self {
            retry: Retry::from_wire(required(retry, "policy.retry")?)?,
            timeouts: Timeouts::from_wire(required(timeouts, "policy.timeouts")?)?,
            outlier: Outlier::from_wire(required(outlier, "policy.outlier")?)?,
            balance: Balance::from_wire((balance, balancing))?,
            limits: Limits::from_wire(required(limits, "policy.limits")?)?,
            keep_alive: KeepAlive::from_wire(keep_alive)?,
            probe: probe.map(Probe::from_wire).transpose()?,
        })
    }
}

impl Wire for Overlay {
    type Message = v1::Overlay;

    fn to_wire(&self) -> v1::Overlay {
        let Self { retry, timeouts, outlier, balance, limits, keep_alive, probe } = self;
        let (balance, balancing) = balance.as_ref().map(Wire::to_wire).unzip();
        v1::Overlay {
            retry: retry.as_ref().map(Wire::to_wire),
            timeouts: timeouts.as_ref().map(Wire::to_wire),
            outlier: outlier.as_ref().map(Wire::to_wire),
            balance,
            limits: limits.as_ref().map(Wire::to_wire),
            keep_alive: keep_alive.as_ref().map(Wire::to_wire),
            balancing: balancing.flatten(),
            probe: probe.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: v1::Overlay) -> Result<Self, WireError> {
        let v1::Overlay { retry, timeouts, outlier, balance, limits, keep_alive, balancing, probe } = message;
        Ok(Self {
            retry: retry.map(Retry::from_wire).transpose()?,
            timeouts: timeouts.map(Timeouts::from_wire).transpose()?,
            outlier: outlier.map(Outlier::from_wire).transpose()?,
            balance: balance.map(|word| Balance::from_wire((word, balancing))).transpose()?,
            limits: limits.map(Limits::from_wire).transpose()?,
            keep_alive: keep_alive.map(KeepAlive::from_wire).transpose()?,
            probe: probe.map(Probe::from_wire).transpose()?,
        })
    }
}

impl Wire for Retry {
    type Message = v1::Retry;

    fn to_wire(&self) -> v1::Retry {
        let Self {
            retries,
            backoff_other,
            backoff_same,
            methods,
            on,
            statuses,
            budget_percent,
            budget_floor_per_second,
        } = self;
        let RetryOn { status_5xx, reset, timeout } = on;
        v1::Retry {
            retries: u32::from(*retries),
            backoff_other_us: micros(*backoff_other),
            backoff_same_us: micros(*backoff_same),
            methods: methods.iter().map(|method| method.as_str().to_owned()).collect(),
            on_5xx: *status_5xx,
            on_reset: *reset,
            on_timeout: matches!(timeout, Toggle::On),
            budget_percent: u32::from(*budget_percent),
            budget_floor_per_second: *budget_floor_per_second,
            statuses: statuses.iter().copied().map(u32::from).collect(),
        }
    }

    fn from_wire(message: v1::Retry) -> Result<Self, WireError> {
        Ok(Self {
            retries: number(message.retries, "retry.retries", 0..=10)?,
            backoff_other: pause(message.backoff_other_us, "retry.backoff_other")?,
            backoff_same: pause(message.backoff_same_us, "retry.backoff_same")?,
            methods: each(message.methods, "retry.methods", METHODS, method)?,
            on: RetryOn {
                status_5xx: message.on_5xx,
                reset: message.on_reset,
                timeout: if message.on_timeout { Toggle::On } else { Toggle::Off },
            },
            budget_percent: number(message.budget_percent, "retry.budget_percent", 0..=100)?,
            budget_floor_per_second: number(message.budget_floor_per_second, "retry.budget_floor", 0..=MANY)?,
            statuses: each(message.statuses, "retry.statuses", STATUSES, |status| {
                number(status, "retry.statuses", 500..=599)
            })?,
        })
    }
}

fn method(word: String) -> Result<Method, WireError> {
    let word = text(word, "retry.methods", 1..=METHOD_BYTES)?;
    Method::from_bytes(word.as_bytes()).map_err(|error| WireError::field("retry.methods", &error))
}

impl Wire for Timeouts {
    type Message = v1::Timeouts;

    fn to_wire(&self) -> v1::Timeouts {
        let Self { connect, request, attempt, idle } = self;
        v1::Timeouts {
            connect_us: micros(*connect),
            request_us: request.map(micros),
            attempt_us: attempt.map(micros),
            idle_us: micros(*idle),
        }
    }

    fn from_wire(message: v1::Timeouts) -> Result<Self, WireError> {
        let v1::Timeouts { connect_us, request_us, attempt_us, idle_us } = message;
        Ok(Self {
            connect: duration(connect_us, "timeouts.connect")?,
            request: request_us.map(|us| duration(us, "timeouts.request")).transpose()?,
            attempt: attempt_us.map(|us| duration(us, "timeouts.attempt")).transpose()?,
            idle: duration(idle_us, "timeouts.idle")?,
        })
    }
}

impl Wire for Outlier {
    type Message = v1::Outlier;

    fn to_wire(&self) -> v1::Outlier {
        let Self { consecutive, open_for, jitter_percent, rate_percent, rate_minimum, rate_window } = self;
        v1::Outlier {
            consecutive: *consecutive,
            open_for_us: micros(*open_for),
            jitter_percent: u32::from(*jitter_percent),
            rate_percent: rate_percent.map(u32::from),
            rate_minimum: *rate_minimum,
            rate_window_us: micros(*rate_window),
        }
    }

    fn from_wire(message: v1::Outlier) -> Result<Self, WireError> {
        let v1::Outlier { consecutive, open_for_us, jitter_percent, rate_percent, rate_minimum, rate_window_us } =
            message;
        Ok(Self {
            consecutive: number(consecutive, "outlier.consecutive", 1..=MANY)?,
            open_for: duration(open_for_us, "outlier.open_for")?,
            jitter_percent: number(jitter_percent, "outlier.jitter_percent", 0..=100)?,
            rate_percent: rate_percent.map(|share| number(share, "outlier.rate_percent", 1..=100)).transpose()?,
            rate_minimum: number(rate_minimum, "outlier.rate_minimum", 1..=MANY)?,
            rate_window: duration(rate_window_us, "outlier.rate_window")?,
        })
    }
}

impl Wire for Limits {
    type Message = v1::Limits;

    fn to_wire(&self) -> v1::Limits {
        let Self { requests, connections, pending } = self;
        v1::Limits { requests: *requests, connections: *connections, pending: Some(*pending) }
    }

    fn from_wire(message: v1::Limits) -> Result<Self, WireError> {
        let v1::Limits { requests, connections, pending } = message;
        let pending = pending.unwrap_or_else(|| Self::default().pending);
        Ok(Self {
            requests: number(requests, "limits.requests", 1..=MANY)?,
            connections: number(connections, "limits.connections", 1..=MANY)?,
            pending: number(pending, "limits.pending", 0..=MANY)?,
        })
    }
}

impl Wire for KeepAlive {
    type Message = bool;

    fn to_wire(&self) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
        }
    }

    fn from_wire(message: bool) -> Result<Self, WireError> {
        Ok(if message { Self::On } else { Self::Off })
    }
}

impl Wire for AuthorizationPolicy {
    type Message = v1::Authorization;

    fn to_wire(&self) -> v1::Authorization {
        let Self { allow } = self;
        v1::Authorization { allow: allow.iter().map(Wire::to_wire).collect() }
    }

    fn from_wire(message: v1::Authorization) -> Result<Self, WireError> {
        let v1::Authorization { allow } = message;
        Ok(Self { allow: each(allow, "authorization.allow", ALLOW_RULES, AllowRule::from_wire)? })
    }
}

impl Wire for AllowRule {
    type Message = v1::AllowRule;

    fn to_wire(&self) -> v1::AllowRule {
        let Self { source, matches, origin } = self;
        v1::AllowRule {
            source: Some(match source {
                Source::Any => allow_rule::Source::Any(true),
                Source::Gateway => allow_rule::Source::Gateway(true),
                Source::Service(name) => allow_rule::Source::Service(name.to_wire()),
            }),
            matches: matches.iter().map(Wire::to_wire).collect(),
            origin: origin.clone(),
        }
    }

    fn from_wire(message: v1::AllowRule) -> Result<Self, WireError> {
        let v1::AllowRule { source, matches, origin } = message;
        let source = match required(source, "allow.source")? {
            allow_rule::Source::Any(true) => Source::Any,
            allow_rule::Source::Gateway(true) => Source::Gateway,
            allow_rule::Source::Service(name) => Source::Service(ServiceName::from_wire(name)?),
            allow_rule::Source::Any(false) | allow_rule::Source::Gateway(false) => {
                return Err(WireError::field("allow.source", &"named, but not meant"));
            }
        };
        Ok(Self {
            source,
            matches: each(matches, "allow.matches", MATCHES_PER_RULE, Match::from_wire)?,
            origin: text(origin, "allow.origin", 0..=ORIGIN_BYTES)?,
        })
    }
}
